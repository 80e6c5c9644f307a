// SPDX-License-Identifier: BSD-3-Clause
//
// problem.c - the checks that memory safety rests on.  The words for users are Python's (_args.py); these are the last
// line of defence, so that no caller of the C interface can make a kernel read outside an array of the stated sizes.
#include "fastconv.h"

#include <math.h>
#include <stdio.h>

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            snprintf(message, FC_MESSAGE, __VA_ARGS__);                                                                \
            return FC_INVALID;                                                                                         \
        }                                                                                                              \
    } while (0)

// Far below INT64_MAX, so that sums of a few such numbers and their bytes cannot overflow either.
static const int64_t largest = INT64_C(1) << 48;

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

static int product_fits(int64_t *product, int64_t factor) {
    return factor >= 0 && !__builtin_mul_overflow(*product, factor, product) && *product <= largest;
}

fc_status fc_problem_check(const fc_problem *p, char message[FC_MESSAGE]) {
    static const char *const names[FC_AXES] = {"depth", "height", "width"};
    CHECK(p->dtype == FC_F32 || p->dtype == FC_F64, "dtype %d is not float32 or float64", (int)p->dtype);
    CHECK(p->direction >= FC_FORWARD && p->direction <= FC_BACKWARD_WEIGHT, "direction %d is unknown",
          (int)p->direction);
    CHECK(p->batch >= 0, "batch %lld is negative", (long long)p->batch);
    CHECK(p->groups >= 1, "groups %lld is below 1", (long long)p->groups);
    CHECK(p->in_channels >= 1, "in_channels %lld is below 1", (long long)p->in_channels);
    CHECK(p->out_channels >= 1, "out_channels %lld is below 1", (long long)p->out_channels);
    CHECK(!isnan(p->low) && !isnan(p->high) && p->low <= p->high, "activation bounds are not ordered");
    int64_t src = p->batch > 0 ? p->batch : 1, dst = src, wei = 1;
    int fits = product_fits(&src, p->groups) && product_fits(&src, p->in_channels) && product_fits(&dst, p->groups) &&
               product_fits(&dst, p->out_channels) && product_fits(&wei, p->groups) &&
               product_fits(&wei, p->in_channels) && product_fits(&wei, p->out_channels);
    for (int i = 0; i < FC_AXES; i++) {
        const fc_axis *a = &p->axis[i];
        CHECK(a->in >= 1 && a->in <= largest, "input %s %lld is out of range", names[i], (long long)a->in);
        CHECK(a->out >= 1 && a->out <= largest, "output %s %lld is out of range", names[i], (long long)a->out);
        CHECK(a->kernel >= 1 && a->kernel <= largest, "kernel %s %lld is out of range", names[i], (long long)a->kernel);
        CHECK(a->stride >= 1 && a->stride <= largest, "stride %lld is out of range", (long long)a->stride);
        CHECK(a->dilation >= 1 && a->dilation <= largest, "dilation %lld is out of range", (long long)a->dilation);
        CHECK(a->pad >= -largest && a->pad <= largest, "padding %lld is out of range", (long long)a->pad);
        int64_t reach = a->kernel, span = a->out;
        fits = fits && product_fits(&reach, a->dilation) && product_fits(&span, a->stride);
        fits = fits && product_fits(&src, a->in) && product_fits(&dst, a->out) && product_fits(&wei, a->kernel);
    }
    CHECK(fits, "the product of the sizes exceeds 2^48");
    if (!p->half) return FC_OK;
    CHECK(p->dtype == FC_F32 && p->direction == FC_FORWARD, "float16 is for float32 and forward only");
    const int64_t in[] = {p->axis[0].in, p->axis[1].in, p->axis[2].in};
    const int64_t out[] = {p->axis[0].out, p->axis[1].out, p->axis[2].out};
    const int64_t taps[] = {p->axis[0].kernel, p->axis[1].kernel, p->axis[2].kernel};
    CHECK(fills(&p->src, p->groups, p->in_channels, in, p->batch), "float16 input has gaps");
    CHECK(fills(&p->dst, p->groups, p->out_channels, out, p->batch), "float16 output has gaps");
    const fc_view rows = {p->wei.outer, 0, p->wei.channel, {p->wei.axis[0], p->wei.axis[1], p->wei.axis[2]}};
    CHECK(fills(&rows, p->out_channels, p->in_channels, taps, 1) &&
              (p->groups == 1 || p->wei.group == p->out_channels * p->wei.outer),
          "float16 weights have gaps");
    return FC_OK;
}
