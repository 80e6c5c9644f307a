// SPDX-License-Identifier: BSD-3-Clause
#include "core/algorithms.h"

extern const fc_kind fc_kind_direct, fc_kind_im2col, fc_kind_winograd_f2, fc_kind_winograd_f3, fc_kind_winograd_f4,
    fc_kind_winograd_f6, fc_kind_pointwise, fc_kind_depthwise, fc_kind_reference;
extern const fc_kind fc_kind_depthwise_input;
extern const fc_kind fc_kind_weight_product, fc_kind_weight_winograd_f2, fc_kind_weight_winograd_f3,
    fc_kind_weight_winograd_f4, fc_kind_weight_winograd_f6, fc_kind_weight_pointwise, fc_kind_weight_depthwise;
extern const fc_kind fc_kind_bands, fc_kind_dilated, fc_kind_turned, fc_kind_interleaved, fc_kind_dots, fc_kind_small,
    fc_kind_weight_small, fc_kind_spread, fc_kind_columns, fc_kind_convert;

const fc_kind *const fc_algorithms[FC_DIRECTIONS][FC_ALGOS] = {
    [FC_FORWARD] =
        {
            [FC_DIRECT] = &fc_kind_direct,
            [FC_IM2COL] = &fc_kind_im2col,
            [FC_WINOGRAD_F2] = &fc_kind_winograd_f2,
            [FC_WINOGRAD_F3] = &fc_kind_winograd_f3,
            [FC_WINOGRAD_F4] = &fc_kind_winograd_f4,
            [FC_WINOGRAD_F6] = &fc_kind_winograd_f6,
            [FC_POINTWISE] = &fc_kind_pointwise,
            [FC_DEPTHWISE] = &fc_kind_depthwise,
            [FC_REFERENCE] = &fc_kind_reference,
        },
    [FC_BACKWARD_INPUT] = {[FC_DEPTHWISE] = &fc_kind_depthwise_input},
    [FC_BACKWARD_WEIGHT] =
        {
            [FC_DIRECT] = &fc_kind_weight_product,
            [FC_WINOGRAD_F2] = &fc_kind_weight_winograd_f2,
            [FC_WINOGRAD_F3] = &fc_kind_weight_winograd_f3,
            [FC_WINOGRAD_F4] = &fc_kind_weight_winograd_f4,
            [FC_WINOGRAD_F6] = &fc_kind_weight_winograd_f6,
            [FC_POINTWISE] = &fc_kind_weight_pointwise,
            [FC_DEPTHWISE] = &fc_kind_weight_depthwise,
        },
};

const fc_kind *const fc_derived_kinds[] = {
    &fc_kind_bands,   &fc_kind_dilated,     &fc_kind_turned, &fc_kind_dots,         &fc_kind_views,   &fc_kind_spread,
    &fc_kind_columns, &fc_kind_interleaved, &fc_kind_small,  &fc_kind_weight_small, &fc_kind_convert, NULL,
};
