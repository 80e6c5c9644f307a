// SPDX-License-Identifier: BSD-3-Clause
#include "core/family.h"

const fc_family_entry fc_families[FC_FAMILIES] = {
#define FC_FAMILY(id, type, name, dtype)                                                                               \
    [FC_##id] = {sizeof(type), offsetof(type, dtype), fc_check_##name, fc_kinds_##name},
    FC_FAMILY_LIST(FC_FAMILY)
#undef FC_FAMILY
};

fc_status fc_op_check(const fc_op *op, char message[FC_MESSAGE]) {
    FC_CHECK((unsigned)op->family < FC_FAMILIES && op->problem, "one problem is to be described");
    return fc_families[op->family].check(op->problem, message);
}
