// SPDX-License-Identifier: BSD-3-Clause
//
// problem.c - the checks that memory safety rests on, of convolutions, pooling and stencils.  The words for users are Python's (_args); these are the last
// line of defence, so that no caller of the C interface can make a kernel read outside an array of the stated sizes.
#include "core/family.h"
#include "kernels/pool.h"

#include <math.h>

// Whether the axes of a tensor follow each other in memory, in any order but for the images', without gaps.
static int fills(const fc_view *v, int64_t groups, int64_t channels, const int64_t size[FC_AXES], int64_t outer) {
    const int64_t counts[] = {groups, channels, size[0], size[1], size[2]};
    const int64_t strides[] = {v->group, v->channel, v->axis[0], v->axis[1], v->axis[2]};
    int64_t span = 1;
    for (int found = 0, used = 0; found >= 0;) {
        found = -1;
        for (int i = 0; i < 2 + FC_AXES; i++)
            if (counts[i] > 1 && !(used >> i & 1) && strides[i] == span) found = i;
        if (found < 0) break;
        used |= 1 << found;
        span *= counts[found];
    }
    return span == groups * channels * size[0] * size[1] * size[2] && (outer <= 1 || v->outer == span);
}

// No array has its elements further apart; the stride of an axis of one element could be any number.
static int reaches(const fc_view *v) {
    const int64_t strides[] = {v->group, v->outer, v->channel, v->axis[0], v->axis[1], v->axis[2]};
    int all = 1;
    for (int i = 0; i < 3 + FC_AXES; i++) all &= strides[i] >= -fc_largest && strides[i] <= fc_largest;
    return all;
}

int fc_is_activation(int32_t code) {
#define FC_IS(id) || code == FC_MAP_##id
    return 0 FC_ACTIVATION_LIST(FC_IS);
#undef FC_IS
}

const fc_kind *const fc_kinds_problem[] = {NULL}; // planner.c chooses

fc_status fc_check_problem(const void *problem, char message[FC_MESSAGE]) {
    const fc_problem *p = problem;
    static const char *const names[FC_AXES] = {"depth", "height", "width"};
    const fc_types *t = &p->types;
    FC_CHECK(t->source >= FC_F32 && t->source <= FC_F16 && fc_types_equal(*t, fc_types_of(t->source)),
             "no kernel has the types %d, %d, %d and %d", (int)t->source, (int)t->weight, (int)t->accumulator,
             (int)t->destination);
    FC_CHECK(p->direction >= FC_FORWARD && p->direction <= FC_BACKWARD_WEIGHT, "direction %d is unknown",
             (int)p->direction);
    FC_CHECK(p->batch >= 0, "batch %lld is negative", (long long)p->batch);
    FC_CHECK(p->groups >= 1, "groups %lld is below 1", (long long)p->groups);
    FC_CHECK(p->in_channels >= 1, "in_channels %lld is below 1", (long long)p->in_channels);
    FC_CHECK(p->out_channels >= 1, "out_channels %lld is below 1", (long long)p->out_channels);
    FC_CHECK(fc_is_activation(p->activation), "activation %d is unknown", (int)p->activation);
    FC_CHECK(!isnan(p->low) && !isnan(p->high) && p->low <= p->high, "activation bounds are not ordered");
    FC_CHECK(p->activation == FC_MAP_CLAMP || (p->low == -INFINITY && p->high == INFINITY),
             "activation %d has bounds, which are for a clamp", (int)p->activation);
    FC_CHECK(!p->pooled || (p->direction == FC_FORWARD && p->activation == FC_MAP_CLAMP && t->source != FC_F16),
             "only a forward convolution is pooled, of float32 or float64, with a clamp");
    FC_CHECK(!p->pooled || (p->axis[1].out % 2 == 0 && p->axis[2].out % 2 == 0), "%lld x %lld outputs cannot be paired",
             (long long)p->axis[1].out, (long long)p->axis[2].out);
    int64_t src = p->batch > 0 ? p->batch : 1, dst = src, wei = 1;
    int fits = fc_product_fits(&src, p->groups) && fc_product_fits(&src, p->in_channels) &&
               fc_product_fits(&dst, p->groups) && fc_product_fits(&dst, p->out_channels) &&
               fc_product_fits(&wei, p->groups) && fc_product_fits(&wei, p->in_channels) &&
               fc_product_fits(&wei, p->out_channels);
    for (int i = 0; i < FC_AXES; i++) {
        const fc_axis *a = &p->axis[i];
        FC_CHECK(a->in >= 1 && a->in <= fc_largest, "input %s %lld is out of range", names[i], (long long)a->in);
        FC_CHECK(a->out >= 1 && a->out <= fc_largest, "output %s %lld is out of range", names[i], (long long)a->out);
        FC_CHECK(a->kernel >= 1 && a->kernel <= fc_largest, "kernel %s %lld is out of range", names[i],
                 (long long)a->kernel);
        FC_CHECK(a->stride >= 1 && a->stride <= fc_largest, "stride %lld is out of range", (long long)a->stride);
        FC_CHECK(a->dilation >= 1 && a->dilation <= fc_largest, "dilation %lld is out of range",
                 (long long)a->dilation);
        FC_CHECK(a->pad >= -fc_largest && a->pad <= fc_largest, "padding %lld is out of range", (long long)a->pad);
        int64_t reach = a->kernel, span = a->out;
        fits = fits && fc_product_fits(&reach, a->dilation) && fc_product_fits(&span, a->stride);
        fits =
            fits && fc_product_fits(&src, a->in) && fc_product_fits(&dst, a->out) && fc_product_fits(&wei, a->kernel);
    }
    FC_CHECK(fits, "the product of the sizes exceeds 2^48");
    FC_CHECK(reaches(&p->src) && reaches(&p->wei) && reaches(&p->dst), "a stride exceeds 2^48 elements");
    if (t->source != FC_F16) return FC_OK;
    FC_CHECK(p->direction == FC_FORWARD, "float16 is for forward only");
    const int64_t in[] = {p->axis[0].in, p->axis[1].in, p->axis[2].in};
    const int64_t out[] = {p->axis[0].out, p->axis[1].out, p->axis[2].out};
    const int64_t taps[] = {p->axis[0].kernel, p->axis[1].kernel, p->axis[2].kernel};
    FC_CHECK(fills(&p->src, p->groups, p->in_channels, in, p->batch), "float16 input has gaps");
    FC_CHECK(fills(&p->dst, p->groups, p->out_channels, out, p->batch), "float16 output has gaps");
    const fc_view rows = {p->wei.outer, 0, p->wei.channel, {p->wei.axis[0], p->wei.axis[1], p->wei.axis[2]}};
    FC_CHECK(fills(&rows, p->out_channels, p->in_channels, taps, 1) &&
                 (p->groups == 1 || p->wei.group == p->out_channels * p->wei.outer),
             "float16 weights have gaps");
    return FC_OK;
}

// ----------------------------------------------------------------------------------------------------------- pooling

static fc_status check_pool_axis(const fc_pool *p, int i, char message[FC_MESSAGE]) {
    const fc_axis *a = &p->axis[i];
    const int64_t limit = (INT64_C(1) << 48) + 1; // keeps every sum and product of the kernels from overflowing
    const long long in = a->in, out = a->out;
    FC_CHECK(in > 0 && out > 0 && in < limit && out < limit, "axis %d: %lld -> %lld elements", i, in, out);
    if (p->adaptive) {
        FC_CHECK(in < INT64_MAX / (out + 1), "axis %d: %lld x %lld overflows", i, in, out);
        return FC_OK;
    }
    FC_CHECK(a->kernel > 0 && a->stride > 0 && a->dilation > 0 && a->kernel < limit && a->stride < limit &&
                 a->dilation < limit,
             "axis %d: kernel %lld, stride %lld and dilation %lld must be positive", i, (long long)a->kernel,
             (long long)a->stride, (long long)a->dilation);
    FC_CHECK(a->pad >= 0 && p->pad_after[i] >= 0 && a->pad < limit && p->pad_after[i] < limit,
             "axis %d: padding %lld and %lld must not be negative", i, (long long)a->pad, (long long)p->pad_after[i]);
    FC_CHECK(a->kernel < INT64_MAX / 4 / a->dilation && out < INT64_MAX / 4 / a->stride,
             "axis %d: kernel x dilation or output x stride overflows", i);
    FC_CHECK((out - 1) * a->stride - a->pad < in, "axis %d: the last window starts behind the input", i);
    if (p->kind == FC_POOL_AVG) FC_CHECK(fc_pool_hits(p, i), "axis %d: a window holds no element", i);
    return FC_OK;
}

fc_status fc_check_pool(const void *problem, char message[FC_MESSAGE]) {
    const fc_pool *p = problem;
    FC_CHECK(p->batch >= 0 && p->channels >= 0, "%lld images of %lld channels", (long long)p->batch,
             (long long)p->channels);
    FC_CHECK(p->dtype == FC_F32 || p->dtype == FC_F64, "dtype %d is unknown", (int)p->dtype);
    FC_CHECK(p->kind == FC_POOL_MAX || p->kind == FC_POOL_AVG, "kind %d is unknown", (int)p->kind);
    FC_CHECK(p->direction == FC_FORWARD || p->direction == FC_BACKWARD_INPUT, "direction %d is unknown",
             (int)p->direction);
    for (int i = 0; i < FC_AXES; i++) {
        const fc_status status = check_pool_axis(p, i, message);
        if (status != FC_OK) return status;
    }
    return FC_OK;
}

// ---------------------------------------------------------------------------------------------------------- stencils

fc_status fc_check_stencil(const void *problem, char message[FC_MESSAGE]) {
    const fc_stencil *s = problem;
    const int64_t limit = INT64_C(1) << 40; // keeps every sum and product below from overflowing
    int64_t taps = 1;
    FC_CHECK(s->rank >= 2 && s->rank <= FC_RANK, "%d axes", (int)s->rank);
    FC_CHECK(s->dtype == FC_F32 || s->dtype == FC_F64, "dtype %d is unknown", (int)s->dtype);
    FC_CHECK(!s->unfused || s->dtype == FC_F64, "products of float32 are not rounded by themselves");
    for (int i = 0; i < s->rank; i++) {
        const fc_stencil_axis *a = &s->axis[i];
        FC_CHECK(a->in > 0 && a->out > 0 && a->kernel > 0 && a->in < limit && a->out < limit && a->kernel < limit,
                 "axis %d: %lld -> %lld elements by %lld", i, (long long)a->in, (long long)a->out,
                 (long long)a->kernel);
        FC_CHECK(a->offset > -limit && a->offset < limit, "axis %d: offset %lld", i, (long long)a->offset);
        FC_CHECK(a->border >= 0 && a->border < FC_BORDERS, "axis %d: border %d", i, (int)a->border);
        FC_CHECK(taps < limit / a->kernel, "the kernel is too large");
        FC_CHECK(!s->separable || i + 2 >= s->rank || a->kernel == 1, "a separable stencil has a plane's taps only");
        taps *= a->kernel;
    }
    FC_CHECK(s->axis[s->rank - 1].dst == 1, "the rows of the output are not contiguous");
    return FC_OK;
}
