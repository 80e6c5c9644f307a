// SPDX-License-Identifier: BSD-3-Clause
//
// family.h - what the core knows of a family of problems.  A family NAME of FC_FAMILY_LIST defines
//
//   fc_check_NAME   the rules that memory safety rests on
//   fc_kinds_NAME   what can solve it, NULL behind the last: the first that does not refuse does (no `refuse`: never).
//                   Of convolutions there are none: planner.c chooses among their algorithms.
#ifndef FC_FAMILY_H
#define FC_FAMILY_H

#include "core/kind.h"

#include <stdio.h>
#include <string.h>

typedef struct fc_family_entry {
    size_t bytes, dtype; // of the struct; where in it dtype stands
    fc_status (*check)(const void *problem, char message[FC_MESSAGE]);
    const fc_kind *const *kinds;
} fc_family_entry;

extern const fc_family_entry fc_families[FC_FAMILIES];

#define FC_FAMILY(id, type, name, ...)                                                                                 \
    fc_status fc_check_##name(const void *problem, char message[FC_MESSAGE]);                                          \
    extern const fc_kind *const fc_kinds_##name[];
FC_FAMILY_LIST(FC_FAMILY)
#undef FC_FAMILY

static inline fc_dtype fc_op_dtype(const fc_op *op) {
    int32_t dtype;
    memcpy(&dtype, (const char *)op->problem + fc_families[op->family].dtype, sizeof dtype);
    return (fc_dtype)dtype;
}

// In a check: a rule, and what to say of a problem that breaks it.
#define FC_CHECK(condition, ...)                                                                                       \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            snprintf(message, FC_MESSAGE, __VA_ARGS__);                                                                \
            return FC_INVALID;                                                                                         \
        }                                                                                                              \
    } while (0)

// Of sizes, strides and products of sizes: far below INT64_MAX, so that sums of a few such numbers and their bytes cannot
// overflow either.
static const int64_t fc_largest = INT64_C(1) << 48;

static inline int fc_product_fits(int64_t *product, int64_t factor) {
    return factor >= 0 && !__builtin_mul_overflow(*product, factor, product) && *product <= fc_largest;
}

#endif
