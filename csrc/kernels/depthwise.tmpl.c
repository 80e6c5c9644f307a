// SPDX-License-Identifier: BSD-3-Clause
//
// depthwise.tmpl.c - rows of a convolution with one input channel: dst[x] = sum over taps of w[tap] * src[x * s + tap].
//
// Taps are summed in one order everywhere, and every column by the same operations, so that a pixel's bits do not depend
// on where it stands.
#include "kernels/depthwise.h"

// `rows` rows of `count` vectors of outputs from column x on; the last vector of a row holds `lanes` columns.  Several
// sums go on at a time, or each would wait for the one before.
FC_INLINE void FC_NAME(depthwise_vectors)(const fc_depthwise_rows *work, const T *src, const T *weights, vec bias,
                                          T *dst, const T *residual, int64_t lanes, const int rows, const int count) {
    const int64_t pitch = work->pitch, down = work->problem->dst.axis[1];
    vec sum[4][4];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < count; v++) sum[r][v] = v_set1(0);
    for (int64_t t = 0; t < work->taps; t++) {
        const vec tap = v_set1(weights[t]);
        const T *in = src + work->tap_offset[t];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int v = 0; v < count; v++) sum[r][v] = v_fma(tap, v_load(in + r * pitch + v * FC_VL), sum[r][v]);
    }
    const vec low = v_set1((T)work->problem->low), high = v_set1((T)work->problem->high);
    vec seen = v_set1(1), before = v_set1(0);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < count; v++) {
            const int64_t at = r * down + v * FC_VL, n = v + 1 < count ? FC_VL : lanes;
            vec value = v_add(sum[r][v], bias);
            if (residual) value = v_add(value, v_load_part(residual + at, n));
            value = FC_NAME(bound)(value, low, high);
            v_store_part(dst + at, value, n);
            if ((r * count + v) % 2) seen = FC_NAME(look)(seen, before, value);
            before = value;
        }
    if (rows * count % 2) seen = FC_NAME(look)(seen, before, before);
    if (FC_NAME(saw_nan)(seen)) FC_NAME(one_nan)(dst, (count - 1) * FC_VL + lanes, 1, rows, down);
}

// Rows of one output channel from padded rows (conv/padded.c): no borders, no strides, only taps at offsets.
void FC_NAME(depthwise_padded)(const fc_depthwise_rows *work) {
    const fc_problem *p = work->problem;
    const int64_t columns = p->axis[2].out;
    const T *weights = (const T *)work->weights + work->channel * work->taps;
    const vec bias = v_set1(((const T *)work->bias)[work->channel]);
    for (int64_t r = 0; r < work->rows;) {
        const int64_t left_rows = work->rows - r, rows = left_rows >= 4 ? 4 : 1;
        const T *src = (const T *)work->src + r * work->pitch;
        T *dst = (T *)work->dst + (work->h + r) * p->dst.axis[1];
        const T *residual = work->residual ? (const T *)work->residual + (work->h + r) * p->dst.axis[1] : NULL;
        for (int64_t x = 0; x < columns;) {
            const int64_t left = columns - x, wide = (rows == 1 ? 4 : 2) * FC_VL;
            const int64_t most = left > wide - FC_VL ? wide : FC_VL, count = left < most ? left : most;
            const T *res = residual ? residual + x : NULL;
            const int64_t vectors = (count + FC_VL - 1) / FC_VL, lanes = count - (vectors - 1) * FC_VL;
#define FC_VECTORS(R, V)                                                                                               \
    if (rows == R && vectors == V) FC_NAME(depthwise_vectors)(work, src + x, weights, bias, dst + x, res, lanes, R, V);
            FC_VECTORS(4, 2)
            FC_VECTORS(4, 1)
            FC_VECTORS(1, 4)
            FC_VECTORS(1, 1)
#undef FC_VECTORS
            x += count;
        }
        r += rows;
    }
}

// The taps k of an axis that read inside [0, in) from output position `at`: [low, high).
FC_INLINE void FC_NAME(taps_inside)(const fc_axis *a, int64_t at, int64_t *low, int64_t *high) {
    const int64_t first = at * a->stride - a->pad, e = a->dilation;
    *low = first < 0 ? (-first + e - 1) / e : 0;
    *high = first + (a->kernel - 1) * e < a->in ? a->kernel : first < a->in ? (a->in - 1 - first) / e + 1 : 0;
    if (*low > a->kernel) *low = a->kernel;
    if (*high < *low) *high = *low;
}

// Whether a position lies outside of [0, size), in one comparison.
FC_INLINE int FC_NAME(outside)(int64_t at, int64_t size) { return (uint64_t)at >= (uint64_t)size; }

FC_INLINE int FC_NAME(depthwise_is)(const fc_problem *p, int taps, int apart) {
    if (!FC_KNOWN_SIZES && (FC_VL == 1 || taps != 3 || apart != 1)) return 0;
    return fc_depthwise_is(p, taps, apart);
}

// Leaves it to `body`, if the kernel at hand is one of those that are unrolled.
#define FC_DEPTHWISE(body, taps, apart)                                                                                \
    if (FC_NAME(depthwise_is)(work->problem, taps, apart)) {                                                           \
        FC_NAME(body)(work, taps, apart);                                                                              \
        return;                                                                                                        \
    }

// --------------------------------------------------------------------------------- in place: rows read where they lie

// Vectors of 64 bytes: whole cache lines, with 32 registers, and masks that cost nothing.
enum { FC_LINES = FC_VL * sizeof(T) == 64 };

// Rows of a spot; taps of a row in straight code, by more than three of which 16 registers are a tenth slower.
enum { FC_PLANE_ROWS = 7, FC_PLANE_TAPS = FC_LINES ? 7 : 3 };

// The inputs of a vector of outputs, one or two elements apart; masked, only those of lanes `low` and `high` (of the first
// and the second FC_VL elements) are touched, and the others are zero.
FC_INLINE vec FC_NAME(row_load)(const T *p, const int apart) { return apart == 1 ? v_load(p) : v_load2(p); }
FC_INLINE vec FC_NAME(row_masked)(const T *p, vmask low, vmask high, const int apart) {
    const vec first = v_load_lanes(low, p);
    return apart == 1 ? first : v_even(first, v_load_lanes(high, p + FC_VL));
}

// One output channel: what all of its vectors share.
typedef struct FC_NAME(plane) {
    const fc_depthwise_rows *work;
    const T *weights;
    vec bias;
    int64_t d0, d1; // the taps along the depth that see the image
} FC_NAME(plane);

FC_INLINE FC_NAME(plane) FC_NAME(plane_of)(const fc_depthwise_rows *work) {
    FC_NAME(plane)
    plane = {.work = work,
             .weights = (const T *)work->weights + work->channel * work->taps,
             .bias = v_set1(((const T *)work->bias)[work->channel])};
    FC_NAME(taps_inside)(&work->problem->axis[0], work->d, &plane.d0, &plane.d1);
    return plane;
}

// The next of the work's planes.
FC_INLINE void FC_NAME(next_plane)(fc_depthwise_rows *work) {
    work->src = (const T *)work->src + work->src_plane;
    work->dst = (T *)work->dst + work->dst_plane;
    if (work->residual) work->residual = (const T *)work->residual + work->dst_plane;
    work->channel++;
}

// The outputs of a vector: `lanes` columns from x on in each of `height` rows from y on.
typedef struct FC_NAME(spot) {
    int64_t y, x, height, lanes;
} FC_NAME(spot);

// The lanes of each tap's inputs that lie inside of the row, as row_masked wants them.
typedef struct FC_NAME(sides) {
    vmask low[7], high[7];
} FC_NAME(sides);

// Finishes `height` vectors of sums that the straight code below is not for: beside a residual, or where columns of dst are
// not neighbours, as in a phase of a transposed convolution.
static __attribute__((noinline)) void FC_NAME(depthwise_rest)(const fc_depthwise_rows *work, const T *sums, vec bias,
                                                              int64_t to, int64_t lanes, int64_t height) {
    const fc_problem *p = work->problem;
    const int64_t step = p->dst.axis[2];
    const vec low = v_set1((T)p->low), high = v_set1((T)p->high);
    for (int64_t r = 0; r < height; r++, to += p->dst.axis[1], sums += FC_VL) {
        vec value = v_add(v_load(sums), bias);
        if (work->residual) value = v_add(value, FC_NAME(load_row)((const T *)work->residual + to, lanes, step));
        FC_NAME(store_row)((T *)work->dst + to, FC_NAME(clamp)(value, low, high), lanes, step);
    }
}

// Finishes the vectors of sums of a spot, of which `rows` were computed.
FC_INLINE void FC_NAME(depthwise_store)(const FC_NAME(plane) * plane, FC_NAME(spot) at, const vec *sum,
                                        const int rows) {
    const fc_problem *p = plane->work->problem;
    const int64_t below = p->dst.axis[1], offset = at.y * below + at.x * p->dst.axis[2];
    if (p->dst.axis[2] != 1 || plane->work->residual) {
        T lane[FC_PLANE_ROWS * FC_VL];
#pragma GCC unroll 7
        for (int r = 0; r < rows; r++) v_store(lane + r * FC_VL, sum[r]);
        FC_NAME(depthwise_rest)(plane->work, lane, plane->bias, offset, at.lanes, at.height < rows ? at.height : rows);
        return;
    }
    const vec low = v_set1((T)p->low), high = v_set1((T)p->high);
    T *to = (T *)plane->work->dst + offset;
    vec seen = v_set1(1), before = v_set1(0);
#pragma GCC unroll 7
    for (int r = 0; r < rows; r++) {
        if (r >= at.height) break;
        const vec value = FC_NAME(bound)(v_add(sum[r], plane->bias), low, high);
        if (FC_LINES || at.lanes < FC_VL) v_store_part(to, value, at.lanes);
        else v_store(to, value);
        to += below;
        FC_WALK(to);
        if (r % 2) seen = FC_NAME(look)(seen, before, value);
        before = value;
    }
    seen = FC_NAME(look)(seen, before, before);
    if (FC_NAME(saw_nan)(seen))
        FC_NAME(one_nan)((T *)plane->work->dst + offset, at.lanes, 1, at.height < rows ? at.height : rows, below);
}

// A spot of FC_PLANE_ROWS rows, by taps x taps without dilation: each input is loaded once for all of the rows.  At the
// border rows may be fewer, and only those inside and the lanes of `sides` are read.
FC_INLINE void FC_NAME(plane_patch)(const FC_NAME(plane) * plane, FC_NAME(spot) at, const FC_NAME(sides) * sides,
                                    const int border, const int taps, const int apart) {
    const fc_depthwise_rows *work = plane->work;
    const fc_problem *p = work->problem;
    const fc_axis *d = &p->axis[0];
    const int rows = FC_PLANE_ROWS;
    const int64_t down = p->src.axis[1], top = at.y * apart - p->axis[1].pad;
    vec sum[FC_PLANE_ROWS];
#pragma GCC unroll 7
    for (int r = 0; r < rows; r++) sum[r] = v_set1(0);
    for (int64_t i = plane->d0; i < plane->d1; i++) {
        const T *row = (const T *)work->src + (work->d * d->stride - d->pad + i * d->dilation) * p->src.axis[0] +
                       top * down + at.x * apart - p->axis[2].pad;
        const T *tap = plane->weights + i * taps * taps;
        int64_t y = top;
#pragma GCC unroll 19
        for (int t = 0; t < (rows - 1) * apart + taps; t++) {
            const T *from = row;
            const int outside = border && FC_NAME(outside)(y, p->axis[1].in);
            row += down;
            FC_WALK(row);
            y++;
            FC_WALK(y);
            if (outside) continue;
#pragma GCC unroll FC_PLANE_TAPS
            for (int k = 0; k < taps; k++) {
                vec in = border ? FC_NAME(row_masked)(from + k, sides->low[k], sides->high[k], apart)
                                : FC_NAME(row_load)(from + k, apart);
                FC_KEEP(in);
#pragma GCC unroll 7
                for (int r = 0; r < rows; r++) {
                    const int j = t - r * apart;
                    if (j >= 0 && j < taps) sum[r] = v_fma(v_set1(tap[j * taps + k]), in, sum[r]);
                }
            }
        }
    }
    if (!border) at.height = rows;
    FC_NAME(depthwise_store)(plane, at, sum, rows);
}

#if FC_HALVES
// A spot of half a vector of columns at most, as a small plane has: what plane_patch does at the border, by halves, which
// take half of the time where vectors are computed in two, and lie in fewer cache lines.
FC_INLINE void FC_NAME(half_patch)(const FC_NAME(plane) * plane, FC_NAME(spot) at, const FC_NAME(sides) * sides,
                                   const int taps, const int apart) {
    const fc_depthwise_rows *work = plane->work;
    const fc_problem *p = work->problem;
    const fc_axis *d = &p->axis[0];
    const int rows = FC_PLANE_ROWS;
    const int64_t down = p->src.axis[1], top = at.y * apart - p->axis[1].pad, below = p->dst.axis[1];
    v_half sum[FC_PLANE_ROWS];
#pragma GCC unroll 7
    for (int r = 0; r < rows; r++) sum[r] = v_half_set1(0);
    for (int64_t i = plane->d0; i < plane->d1; i++) {
        const T *row = (const T *)work->src + (work->d * d->stride - d->pad + i * d->dilation) * p->src.axis[0] +
                       top * down + at.x * apart - p->axis[2].pad;
        const T *tap = plane->weights + i * taps * taps;
        int64_t y = top;
#pragma GCC unroll 19
        for (int t = 0; t < (rows - 1) * apart + taps; t++) {
            const T *from = row;
            const int outside = FC_NAME(outside)(y, p->axis[1].in);
            row += down;
            FC_WALK(row);
            y++;
            FC_WALK(y);
            if (outside) continue;
#pragma GCC unroll FC_PLANE_TAPS
            for (int k = 0; k < taps; k++) {
                v_half in;
                if (apart == 1) in = v_half_load_lanes(sides->low[k], from + k);
                else in = v_half_of(FC_NAME(row_masked)(from + k, sides->low[k], 0, apart));
                FC_KEEP(in);
#pragma GCC unroll 7
                for (int r = 0; r < rows; r++) {
                    const int j = t - r * apart;
                    if (j >= 0 && j < taps) sum[r] = v_half_fma(v_half_set1(tap[j * taps + k]), in, sum[r]);
                }
            }
        }
    }
    if (p->dst.axis[2] != 1 || work->residual) {
        vec whole[FC_PLANE_ROWS];
#pragma GCC unroll 7
        for (int r = 0; r < rows; r++) whole[r] = v_half_whole(sum[r]);
        FC_NAME(depthwise_store)(plane, at, whole, rows);
        return;
    }
    const v_half bias = v_half_of(plane->bias), low = v_half_set1((T)p->low), high = v_half_set1((T)p->high);
    T *const dst = (T *)work->dst + at.y * below + at.x, *to = dst;
    v_half seen = v_half_set1(0);
#pragma GCC unroll 7
    for (int r = 0; r < rows; r++) {
        if (r >= at.height) break;
        const v_half value = v_half_min(high, v_half_max(low, v_half_add(sum[r], bias)));
        v_half_store_part(to, value, at.lanes);
        to += below;
        FC_WALK(to);
        seen = v_half_fma(value, value, seen);
    }
    if (FC_NAME(saw_nan)(v_half_whole(seen)))
        FC_NAME(one_nan)(dst, at.lanes, 1, at.height < rows ? at.height : rows, below);
}
#endif

// Rows of `planes` output channels, each from the plane of its input, a column of vectors after the other: small planes take
// little longer than what is prepared for a column, once for all of them.  Seven rows at a time hide the latency of the
// sums; heights are multiples of seven more often than of any other number of that size.
FC_INLINE void FC_NAME(plane_patches_of)(const fc_depthwise_rows *work, int64_t planes, const int taps,
                                         const int apart) {
    const fc_axis *h = &work->problem->axis[1], *w = &work->problem->axis[2];
    const int64_t end = work->h + work->rows;
    // In so much work a border is not noticed, and where vectors are lines masked loads cost less.
    const int masked = FC_LINES ? taps * apart > 5 : taps > 3;
    for (int64_t x = 0; x < w->out; x += FC_VL) {
        const int64_t left = x * apart - w->pad;
        const int between = left >= 0 && left + (FC_VL - 1) * apart + taps <= w->in;
        FC_NAME(sides) sides;
        for (int k = 0; k < taps; k++) {
            sides.low[k] = v_lanes(-left - k, w->in - left - k);
            sides.high[k] = v_lanes(-left - k - FC_VL, w->in - left - k - FC_VL);
        }
        FC_NAME(spot) at = {.x = x, .lanes = FC_NAME(lanes_of)(w->out - x)};
        fc_depthwise_rows one = *work;
        for (int64_t q = 0; q < planes; q++, FC_NAME(next_plane)(&one)) {
            const FC_NAME(plane) plane = FC_NAME(plane_of)(&one);
            for (at.y = work->h; at.y < end; at.y += FC_PLANE_ROWS) {
                at.height = end - at.y;
                const int64_t top = at.y * apart - h->pad;
                const int inside = between && at.height >= FC_PLANE_ROWS && top >= 0 &&
                                   top + (FC_PLANE_ROWS - 1) * apart + taps <= h->in;
#if FC_HALVES
                if (at.lanes <= FC_VL / 2) {
                    FC_NAME(half_patch)(&plane, at, &sides, taps, apart);
                    continue;
                }
#endif
                if (inside && !masked) FC_NAME(plane_patch)(&plane, at, &sides, 0, taps, apart);
                else FC_NAME(plane_patch)(&plane, at, &sides, 1, taps, apart);
            }
        }
    }
}

// The planes at hand together, if the columns of each are few; or else one by one, as long as it is in the cache.
enum { FC_PLANES_COLUMNS = 32 };
FC_INLINE void FC_NAME(plane_patches)(const fc_depthwise_rows *work, const int taps, const int apart) {
    const int64_t planes = work->problem->axis[2].out <= FC_PLANES_COLUMNS ? work->planes : 1;
    fc_depthwise_rows some = *work;
    for (int64_t q = 0; q < work->planes; q += planes, FC_NAME(next_plane)(&some))
        FC_NAME(plane_patches_of)(&some, planes, taps, apart);
}

// The inputs of a vector of outputs `step` elements apart, three or more: of the vectors that they lie in those lanes that
// are in the row.
typedef struct FC_NAME(reads) {
    vmask lanes[FC_VL];
} FC_NAME(reads);

// Of which the first is element `at` of a row of `size`.
FC_INLINE FC_NAME(reads) FC_NAME(reads_at)(int64_t step, int64_t at, int64_t size) {
    FC_NAME(reads) r;
    memset(&r, 0, sizeof r);
    if (step <= FC_VL)
#pragma GCC unroll 4
        for (int64_t j = 0; j * FC_VL <= (FC_VL - 1) * step; j++)
            r.lanes[j] = v_lanes(-at - j * FC_VL, size - at - j * FC_VL);
    return r;
}

FC_INLINE vec FC_NAME(row_each)(const T *p, const FC_NAME(reads) * r, int64_t step, int64_t at, int64_t size) {
    vec v = v_set1(0);
    if (FC_VL == 1 || step > FC_VL) {
        T lane[FC_VL];
        for (int64_t l = 0; l < FC_VL; l++) lane[l] = at + l * step >= 0 && at + l * step < size ? p[l * step] : 0;
        return v_load(lane);
    }
#pragma GCC unroll 4
    for (int64_t j = 0; j * FC_VL <= (FC_VL - 1) * step; j++)
        v = v_pick(v, v_load_lanes(r->lanes[j], p + j * FC_VL), step, j);
    return v;
}

// What `reach` rows of taps, the first of which sees row `top` of a plane, add to seven rows of a vector of outputs from
// column x on.  Outputs are `apart` columns of the input apart, or any number from three on where that is 0.  An input row
// is loaded once for all of the taps, which are neighbours then, and outputs as far apart in height as in width; with a
// reach of one nothing is asked of dilation and stride.
FC_INLINE void FC_NAME(plane_taps)(const fc_depthwise_rows *work, const T *plane, const T *tap, int64_t top, int64_t x,
                                   vec *sum, const int reach, const int apart) {
    const fc_problem *p = work->problem;
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    const int over = reach == 1 ? 1 : apart;            // input rows from output to output
    const int64_t further = reach == 1 ? h->stride : 1; // what an input row is here
    const int64_t down = further * p->src.axis[1], step = apart ? apart : w->stride;
    const int rows = (FC_PLANE_ROWS - 1) * over + reach;
    const int rows_inside = top >= 0 && top + (rows - 1) * further < h->in;
    for (int64_t k = 0; k < w->kernel; k++) {
        const int64_t at = x * step - w->pad + k * w->dilation;
        const int inside = rows_inside && at >= 0 && at + (FC_VL - 1) * step < w->in;
        const vmask low = v_lanes(-at, w->in - at), high = v_lanes(-at - FC_VL, w->in - at - FC_VL);
        FC_NAME(reads) reads;
        const T *in = plane + top * p->src.axis[1] + at;
        T lane[FC_PLANE_ROWS * FC_VL];
        if (apart == 0) {
            reads = FC_NAME(reads_at)(step, at, w->in);
            for (int t = 0; t < rows; t++)
                if (inside || !FC_NAME(outside)(top + t * further, h->in))
                    v_store(lane + t * FC_VL, FC_NAME(row_each)(in + t * down, &reads, step, at, w->in));
        }
        vec weight[3];
#pragma GCC unroll 3
        for (int q = 0; q < reach; q++) weight[q] = v_set1(tap[q * w->kernel + k]);
#pragma GCC unroll 15
        for (int t = 0; t < rows; t++, in += down) {
            if (!inside && FC_NAME(outside)(top + t * further, h->in)) continue;
            vec row;
            if (apart == 0) row = v_load(lane + t * FC_VL);
            else row = inside ? FC_NAME(row_load)(in, apart) : FC_NAME(row_masked)(in, low, high, apart);
#pragma GCC unroll 7
            for (int r = 0; r < FC_PLANE_ROWS; r++) {
                const int q = t - r * over;
                if (q >= 0 && q < reach) sum[r] = v_fma(weight[q], row, sum[r]);
            }
        }
    }
}

// How many rows of taps go together from row j on: tap by tap along the row, and down the rows for each.
FC_INLINE int FC_NAME(plane_reach)(const fc_axis *h, int64_t j, const int apart) {
    return apart && h->dilation == 1 && h->stride == apart && j + 3 <= h->kernel ? 3 : 1;
}

// Seven rows of a vector by any kernel.
FC_INLINE void FC_NAME(plane_rows)(const FC_NAME(plane) * plane, FC_NAME(spot) at, const int apart) {
    const fc_depthwise_rows *work = plane->work;
    const fc_problem *p = work->problem;
    const fc_axis *d = &p->axis[0], *h = &p->axis[1];
    vec sum[FC_PLANE_ROWS];
#pragma GCC unroll 7
    for (int r = 0; r < FC_PLANE_ROWS; r++) sum[r] = v_set1(0);
    for (int64_t i = plane->d0; i < plane->d1; i++) {
        const T *in = (const T *)work->src + (work->d * d->stride - d->pad + i * d->dilation) * p->src.axis[0];
        const T *tap = plane->weights + i * h->kernel * p->axis[2].kernel;
        const int64_t top = at.y * h->stride - h->pad;
        int64_t j = 0;
        for (; FC_NAME(plane_reach)(h, j, apart) == 3; j += 3, tap += 3 * p->axis[2].kernel)
            FC_NAME(plane_taps)(work, in, tap, top + j, at.x, sum, 3, apart);
        for (; j < h->kernel; j++, tap += p->axis[2].kernel)
            FC_NAME(plane_taps)(work, in, tap, top + j * h->dilation, at.x, sum, 1, apart);
    }
    FC_NAME(depthwise_store)(plane, at, sum, FC_PLANE_ROWS);
}

// What the taps `k` to `end` of a row of taps add to `count` vectors of outputs from column x on, whose inputs are in `row`.
FC_INLINE void FC_NAME(row_taps)(const fc_axis *w, const T *row, const T *tap, int64_t k, int64_t end, int64_t x,
                                 vec *sum, const int count, const int apart) {
    for (; k < end; k++) {
        const int64_t at = x * apart - w->pad + k * w->dilation;
        const vec weight = v_set1(tap[k]);
        if (at >= 0 && at + (count * FC_VL - 1) * apart < w->in) {
#pragma GCC unroll 4
            for (int v = 0; v < count; v++)
                sum[v] = v_fma(weight, FC_NAME(row_load)(row + at + v * FC_VL * apart, apart), sum[v]);
            continue;
        }
#pragma GCC unroll 4
        for (int v = 0; v < count; v++) {
            const int64_t from = at + v * FC_VL * apart;
            const vmask low = v_lanes(-from, w->in - from), high = v_lanes(-from - FC_VL, w->in - from - FC_VL);
            sum[v] = v_fma(weight, FC_NAME(row_masked)(row + from, low, high, apart), sum[v]);
        }
    }
}

// `count` vectors of one row by any kernel, summed in the order of plane_rows: how rows are shared out changes no bit.
FC_INLINE void FC_NAME(plane_row)(const FC_NAME(plane) * plane, FC_NAME(spot) at, const int count, const int apart) {
    const fc_depthwise_rows *work = plane->work;
    const fc_problem *p = work->problem;
    const fc_axis *d = &p->axis[0], *h = &p->axis[1], *w = &p->axis[2];
    const int64_t down = h->dilation * p->src.axis[1], x = at.x;
    int64_t h0, h1;
    FC_NAME(taps_inside)(h, at.y, &h0, &h1);
    vec sum[4];
#pragma GCC unroll 4
    for (int v = 0; v < count; v++) sum[v] = v_set1(0);
    for (int64_t i = plane->d0; i < plane->d1; i++) {
        const T *in = (const T *)work->src + (work->d * d->stride - d->pad + i * d->dilation) * p->src.axis[0];
        const T *top = in + (at.y * h->stride - h->pad) * p->src.axis[1];
        const T *taps = plane->weights + i * h->kernel * w->kernel;
        int64_t j = 0;
        for (; FC_NAME(plane_reach)(h, j, apart) == 3; j += 3)
            for (int64_t k = 0; k < w->kernel; k++)
                for (int64_t q = j; q < j + 3; q++)
                    if (q >= h0 && q < h1)
                        FC_NAME(row_taps)(w, top + q * down, taps + q * w->kernel, k, k + 1, x, sum, count, apart);
        for (; j < h->kernel; j++)
            if (j >= h0 && j < h1)
                FC_NAME(row_taps)(w, top + j * down, taps + j * w->kernel, 0, w->kernel, x, sum, count, apart);
    }
#pragma GCC unroll 4
    for (int v = 0; v < count; v++, at.x += FC_VL) FC_NAME(depthwise_store)(plane, at, sum + v, 1);
}

FC_INLINE void FC_NAME(plane_any)(const fc_depthwise_rows *work, const int apart) {
    const int64_t columns = work->problem->axis[2].out, end = work->h + work->rows;
    const FC_NAME(plane) plane = FC_NAME(plane_of)(work);
    FC_NAME(spot) at = {.y = work->h, .height = FC_PLANE_ROWS};
    // Further apart even a few rows share what is prepared for each tap, though some of the seven are for nothing.
    for (; at.y + (apart ? FC_PLANE_ROWS : 1) <= end; at.y += FC_PLANE_ROWS) {
        if (end - at.y < FC_PLANE_ROWS) at.height = end - at.y;
        for (at.x = 0; at.x < columns; at.x += FC_VL) {
            at.lanes = FC_NAME(lanes_of)(columns - at.x);
            FC_NAME(plane_rows)(&plane, at, apart);
        }
    }
    if (apart == 0) return;
    for (at.height = 1; at.y < end; at.y++) {
        at.lanes = FC_VL;
        for (at.x = 0; at.x + 4 * FC_VL <= columns; at.x += 4 * FC_VL) FC_NAME(plane_row)(&plane, at, 4, apart);
        for (; at.x < columns; at.x += FC_VL) {
            at.lanes = FC_NAME(lanes_of)(columns - at.x);
            FC_NAME(plane_row)(&plane, at, 1, apart);
        }
    }
}

// Functions of their own for each.  (By channels those would save the compiler nothing, and are up to 7 % slower.)
#define FC_PLANES_BODY(body, taps, apart)                                                                              \
    FC_BODY void FC_NAME(body##_##taps##_##apart)(const fc_depthwise_rows *work) { FC_NAME(body)(work, taps, apart); }
#define FC_PLANES(body, taps, apart)                                                                                   \
    if (FC_NAME(depthwise_is)(work->problem, taps, apart)) {                                                           \
        FC_NAME(body##_##taps##_##apart)(work);                                                                        \
        return;                                                                                                        \
    }
FC_DEPTHWISE_LIST(FC_PLANES_BODY, plane_patches)

FC_INLINE void FC_NAME(planes_any)(const fc_depthwise_rows *work, const int apart) {
    fc_depthwise_rows one = *work;
    for (int64_t q = 0; q < work->planes; q++, FC_NAME(next_plane)(&one)) FC_NAME(plane_any)(&one, apart);
}
FC_BODY void FC_NAME(planes_any_1)(const fc_depthwise_rows *work) { FC_NAME(planes_any)(work, 1); }
FC_BODY void FC_NAME(planes_any_2)(const fc_depthwise_rows *work) { FC_NAME(planes_any)(work, 2); }
FC_BODY void FC_NAME(planes_any_0)(const fc_depthwise_rows *work) { FC_NAME(planes_any)(work, 0); }

void FC_NAME(depthwise_in_place)(const fc_depthwise_rows *work) {
    FC_DEPTHWISE_LIST(FC_PLANES, plane_patches)
    const int64_t stride = work->problem->axis[2].stride;
    if (stride == 1) FC_NAME(planes_any_1)(work);
    else if (stride == 2) FC_NAME(planes_any_2)(work);
    else FC_NAME(planes_any_0)(work);
}

#undef FC_PLANES
#undef FC_PLANES_BODY
