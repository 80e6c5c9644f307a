// SPDX-License-Identifier: BSD-3-Clause
//
// depthwise_channels.tmpl.c - rows of a convolution whose groups have as many outputs as inputs, vectors along the channels.
//
// Weights lie in blocks of a vector of channels, [block][tap][input of the group][FC_VL], so that those of a vector follow
// each other.  All taps are summed in one order, so a pixel's bits do not depend on where it stands.

// Where the inputs of output (y, x) lie from tap (i, j, k) on, in the planes that belong to work->d.
FC_INLINE const T *FC_NAME(depthwise_input)(const fc_depthwise_rows *work, int64_t y, int64_t x, int64_t i, int64_t j,
                                            int64_t k) {
    const fc_problem *p = work->problem;
    const fc_axis *d = &p->axis[0], *h = &p->axis[1], *w = &p->axis[2];
    return (const T *)work->src + (work->d * d->stride - d->pad + i * d->dilation) * p->src.axis[0] +
           (y * h->stride - h->pad + j * h->dilation) * p->src.axis[1] +
           (x * w->stride - w->pad + k * w->dilation) * p->src.axis[2];
}

// What every output is finished with, and where it goes.
typedef struct FC_NAME(depthwise_end) {
    T *dst;
    const T *residual;
    int64_t next; // elements from pixel to pixel
    vec low, high, seen;
} FC_NAME(depthwise_end);

// At output (y, x).
FC_INLINE FC_NAME(depthwise_end) FC_NAME(depthwise_end_at)(const fc_depthwise_rows *work, int64_t y, int64_t x) {
    const fc_problem *p = work->problem;
    const int64_t at = y * p->dst.axis[1] + x * p->dst.axis[2];
    return (FC_NAME(depthwise_end)){
        .dst = (T *)work->dst + at,
        .residual = work->residual ? (const T *)work->residual + at : NULL,
        .next = p->dst.axis[2],
        .low = v_set1((T)p->low),
        .high = v_set1((T)p->high),
        .seen = v_set1(1),
    };
}

// Writes what depthwise_finish writes, beside a residual, of sums in memory.
static __attribute__((noinline)) void FC_NAME(depthwise_beside)(const FC_NAME(depthwise_end) * end, int64_t at,
                                                                const T *sums, vec bias, int64_t some, int64_t lanes) {
    for (int64_t q = 0; q < some; q++, at += end->next) {
        const vec value = v_add(v_add(v_load(sums + q * FC_VL), bias), v_load_part(end->residual + at, lanes));
        v_store_part(end->dst + at, FC_NAME(clamp)(value, end->low, end->high), lanes);
    }
}

// Writes `lanes` channels of the first `some` of `pixels` neighbours, `at` elements from there on; their sums are `apart`
// vectors apart.
FC_INLINE void FC_NAME(depthwise_finish)(FC_NAME(depthwise_end) * end, int64_t at, const vec *sum, vec bias,
                                         const int pixels, int64_t some, const int apart, int64_t lanes) {
    if (end->residual) {
        T lane[8 * FC_VL];
#pragma GCC unroll 8
        for (int q = 0; q < pixels; q++) v_store(lane + q * FC_VL, sum[q * apart]);
        FC_NAME(depthwise_beside)(end, at, lane, bias, some, lanes);
        return;
    }
    T *to = end->dst + at;
    vec before = v_set1(0);
#pragma GCC unroll 8
    for (int q = 0; q < pixels; q++) {
        if (q >= some) break;
        const vec value = FC_NAME(bound)(v_add(sum[q * apart], bias), end->low, end->high);
        if (lanes == FC_VL) v_store(to, value);
        else v_store_part(to, value, lanes);
        to += end->next;
        FC_WALK(to);
        if (q % 2) end->seen = FC_NAME(look)(end->seen, before, value);
        before = value;
    }
    if (some % 2) end->seen = FC_NAME(look)(end->seen, before, before);
}

// When all `channels` from c on of `columns` pixels in each of `rows` rows have been written.
FC_INLINE void FC_NAME(depthwise_written)(const FC_NAME(depthwise_end) * end, int64_t c, int64_t channels,
                                          int64_t columns, int64_t rows, int64_t below) {
    if (!FC_NAME(saw_nan)(end->seen)) return;
    for (int64_t r = 0; r < rows; r++) FC_NAME(one_nan)(end->dst + r * below + c, channels, 1, columns, end->next);
}

// -------------------------------------------------------------------------- patches: taps x taps without dilation

enum { FC_PATCH_ROWS = 2, FC_PATCH_PIXELS = 4, FC_PATCH_COLUMNS = 11 }; // the last: of the input, at most

// `height` x `width` outputs from (y, x) on, in `vectors` vectors of `lanes` channels from c on; those lanes as a mask.
typedef struct FC_NAME(box) {
    int64_t y, x, height, width, c, vectors, lanes;
    vmask mask;
} FC_NAME(box);

// A patch by the taps [d0, d1) along the depth.  Each input is loaded once for all of it.  It is at the `border` where not
// all of it and of what it reads exists, or a vector is not whole; inputs outside are zero.
FC_INLINE void FC_NAME(depthwise_patch)(const fc_depthwise_rows *work, const FC_NAME(box) * at, int64_t d0, int64_t d1,
                                        const int border, const int taps, const int apart) {
    const int64_t lanes = border ? at->lanes : FC_VL;
    const fc_problem *p = work->problem;
    const int rows = (FC_PATCH_ROWS - 1) * apart + taps, columns = (FC_PATCH_PIXELS - 1) * apart + taps;
    const int64_t step = p->src.axis[2], down = p->src.axis[1], below = p->dst.axis[1];
    const int64_t deeper = p->axis[0].dilation * p->src.axis[0];
    const int64_t top = at->y * apart - p->axis[1].pad, left = at->x * apart - p->axis[2].pad;
    FC_NAME(depthwise_end) end = FC_NAME(depthwise_end_at)(work, at->y, at->x);
    const T *src = FC_NAME(depthwise_input)(work, at->y, at->x, d0, 0, 0);
    const int64_t last = at->c + (at->vectors - 1) * FC_VL;
    const T *weights = (const T *)work->weights + at->c * work->taps + d0 * taps * taps * FC_VL;
    const vmask none = v_lanes(0, 0);
    vmask within[FC_PATCH_COLUMNS];
    for (int q = 0; q < columns; q++) within[q] = left + q >= 0 && left + q < p->axis[2].in ? at->mask : none;
    for (int64_t c = at->c; c <= last; c += FC_VL, weights += work->taps * FC_VL) {
        const T *plane = src + c, *tap = weights;
        vec sum[FC_PATCH_ROWS * FC_PATCH_PIXELS];
#pragma GCC unroll 8
        for (int i = 0; i < FC_PATCH_ROWS * FC_PATCH_PIXELS; i++) sum[i] = v_set1(0);
        for (int64_t i = d0; i < d1; i++, plane += deeper, tap += taps * taps * FC_VL) {
            const T *row = plane;
            int64_t y = top;
#pragma GCC unroll 9
            for (int t = 0; t < rows; t++) {
                const T *from = row;
                const int outside = border && FC_NAME(outside)(y, p->axis[1].in);
                row += down;
                FC_WALK(row);
                y++;
                FC_WALK(y);
                if (outside) continue;
                vec in[FC_PATCH_COLUMNS];
#pragma GCC unroll 11
                for (int q = 0; q < columns; q++) {
                    in[q] = border ? v_load_lanes(within[q], from) : v_load(from);
                    from += step;
                    FC_WALK(from);
                }
#pragma GCC unroll 2
                for (int r = 0; r < FC_PATCH_ROWS; r++) {
                    const int j = t - r * apart;
                    if (j < 0 || j >= taps) continue;
#pragma GCC unroll 7
                    for (int k = 0; k < taps; k++) {
                        const vec weight = v_load(tap + (j * taps + k) * FC_VL);
#pragma GCC unroll 4
                        for (int q = 0; q < FC_PATCH_PIXELS; q++)
                            sum[r * FC_PATCH_PIXELS + q] =
                                v_fma(weight, in[q * apart + k], sum[r * FC_PATCH_PIXELS + q]);
                    }
                }
            }
        }
        const vec bias = v_load_part((const T *)work->bias + c, lanes);
#pragma GCC unroll 2
        for (int r = 0; r < FC_PATCH_ROWS; r++) {
            if (border && r >= at->height) break;
            FC_NAME(depthwise_finish)(&end, r * below + c, sum + r * FC_PATCH_PIXELS, bias, FC_PATCH_PIXELS,
                                      border && at->width < FC_PATCH_PIXELS ? at->width : FC_PATCH_PIXELS, 1, lanes);
        }
    }
    FC_NAME(depthwise_written)(&end, at->c, last + lanes - at->c,
                               at->width < FC_PATCH_PIXELS ? at->width : FC_PATCH_PIXELS,
                               at->height < FC_PATCH_ROWS ? at->height : FC_PATCH_ROWS, below);
}

FC_INLINE void FC_NAME(depthwise_patches)(const fc_depthwise_rows *work, const int taps, const int apart) {
    const fc_axis *h = &work->problem->axis[1], *w = &work->problem->axis[2];
    const int rows = (FC_PATCH_ROWS - 1) * apart + taps, columns = (FC_PATCH_PIXELS - 1) * apart + taps;
    const int64_t whole = work->problem->groups / FC_VL, rest = work->problem->groups % FC_VL;
    const int64_t end = work->h + work->rows;
    const vmask full = v_lanes(0, FC_VL), last = v_lanes(0, rest);
    int64_t d0, d1;
    FC_NAME(taps_inside)(&work->problem->axis[0], work->d, &d0, &d1);
    for (int64_t y = work->h; y < end; y += FC_PATCH_ROWS)
        for (int64_t x = 0; x < w->out; x += FC_PATCH_PIXELS) {
            const int64_t top = y * apart - h->pad, left = x * apart - w->pad;
            FC_NAME(box)
            at = {.y = y, .x = x, .height = end - y, .width = w->out - x, .vectors = whole, .lanes = FC_VL};
            const int inside = at.height >= FC_PATCH_ROWS && at.width >= FC_PATCH_PIXELS && top >= 0 && left >= 0 &&
                               top + rows <= h->in && left + columns <= w->in;
            if (inside) FC_NAME(depthwise_patch)(work, &at, d0, d1, 0, taps, apart);
            at.mask = full;
            // Whole vectors, unless that was done, and what is left of one.
            for (int part = inside || whole == 0; part < 1 + (rest > 0); part++) {
                if (part) {
                    at.c = whole * FC_VL;
                    at.vectors = 1;
                    at.lanes = rest;
                    at.mask = last;
                }
                FC_NAME(depthwise_patch)(work, &at, d0, d1, 1, taps, apart);
            }
        }
}

// ------------------------------------------------------- windows: neighbouring outputs by neighbouring taps of any kernel

enum { FC_WINDOW_PIXELS = 8, FC_WINDOW_TAPS = 4 };

// What `taps` neighbouring taps add to the sums of `pixels` neighbouring outputs; the first of them sees column 0 of `in` by
// the first of these.  An input is loaded once for all that see it: the sums and the taps fill the registers of AVX2.  Columns
// outside of [low, high) do not exist.
FC_INLINE void FC_NAME(window_taps)(const T *in, int64_t step, int64_t low, int64_t high, int64_t lanes, const T *tap,
                                    vec *sum, const int pixels, const int taps, const int whole) {
    vec weight[FC_WINDOW_TAPS];
#pragma GCC unroll 4
    for (int k = 0; k < taps; k++) weight[k] = v_load(tap + k * FC_VL);
#pragma GCC unroll 11
    for (int c = 0; c < pixels + taps - 1; c++) {
        const T *from = in;
        in += step;
        FC_WALK(in);
        if (c < low || c >= high) continue;
        const vec x = whole ? v_load(from) : v_load_part(from, lanes);
#pragma GCC unroll 4
        for (int k = 0; k < taps; k++)
            if (c - k >= 0 && c - k < pixels) sum[c - k] = v_fma(weight[k], x, sum[c - k]);
    }
}

// The outputs of a box of one row and one vector, `pixels` of them at most.
FC_INLINE void FC_NAME(depthwise_window)(const fc_depthwise_rows *work, const FC_NAME(box) * at, int64_t d0, int64_t d1,
                                         const int pixels, const int whole) {
    const fc_problem *p = work->problem;
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    const int64_t step = p->src.axis[2], lanes = at->lanes, left = at->x - w->pad;
    const T *weights = (const T *)work->weights + at->c * work->taps;
    int64_t h0, h1;
    FC_NAME(taps_inside)(h, at->y, &h0, &h1);
    vec sum[FC_WINDOW_PIXELS];
#pragma GCC unroll 8
    for (int q = 0; q < pixels; q++) sum[q] = v_set1(0);
    for (int64_t i = d0; i < d1; i++)
        for (int64_t j = h0; j < h1; j++) {
            const T *in = FC_NAME(depthwise_input)(work, at->y, at->x, i, j, 0) + at->c;
            const T *tap = weights + (i * h->kernel + j) * w->kernel * FC_VL;
            int64_t low = -left, high = w->in - left, k = 0;
#define FC_WINDOW(n) FC_NAME(window_taps)(in, step, low, high, lanes, tap, sum, pixels, n, whole)
            for (; k + FC_WINDOW_TAPS <= w->kernel; k += FC_WINDOW_TAPS) {
                FC_WINDOW(FC_WINDOW_TAPS);
                in += FC_WINDOW_TAPS * step;
                tap += FC_WINDOW_TAPS * FC_VL;
                low -= FC_WINDOW_TAPS;
                high -= FC_WINDOW_TAPS;
            }
            if (w->kernel - k == 3) FC_WINDOW(3);
            else if (w->kernel - k == 2) FC_WINDOW(2);
            else if (w->kernel - k == 1) FC_WINDOW(1);
#undef FC_WINDOW
        }
    FC_NAME(depthwise_end) end = FC_NAME(depthwise_end_at)(work, at->y, at->x);
    const vec bias = whole ? v_load((const T *)work->bias + at->c) : v_load_part((const T *)work->bias + at->c, lanes);
    const int64_t some = at->width < pixels ? at->width : pixels;
    FC_NAME(depthwise_finish)(&end, at->c, sum, bias, pixels, some, 1, whole ? FC_VL : lanes);
    FC_NAME(depthwise_written)(&end, at->c, lanes, some, 1, 0);
}

// One vector of channels after the other, whose taps stay in L1.
FC_INLINE void FC_NAME(depthwise_windows)(const fc_depthwise_rows *work) {
    const fc_problem *p = work->problem;
    int64_t d0, d1;
    FC_NAME(taps_inside)(&p->axis[0], work->d, &d0, &d1);
    FC_NAME(box) at = {.height = 1};
    for (at.c = 0; at.c < p->groups; at.c += FC_VL) {
        at.lanes = FC_NAME(lanes_of)(p->groups - at.c);
        const int whole = at.lanes == FC_VL;
        for (at.y = work->h; at.y < work->h + work->rows; at.y++)
            for (at.x = 0; at.x < p->axis[2].out;) {
                at.width = p->axis[2].out - at.x;
                const int wide = whole && (!FC_KNOWN_SIZES || at.width > FC_WINDOW_PIXELS / 2);
                if (wide) FC_NAME(depthwise_window)(work, &at, d0, d1, FC_WINDOW_PIXELS, 1);
                else if (whole) FC_NAME(depthwise_window)(work, &at, d0, d1, FC_WINDOW_PIXELS / 2, 1);
                else FC_NAME(depthwise_window)(work, &at, d0, d1, FC_WINDOW_PIXELS / 2, 0);
                at.x += wide ? FC_WINDOW_PIXELS : FC_WINDOW_PIXELS / 2;
            }
    }
}

// --------------------------------------------------------------------------------------------------- runs: the others

typedef struct FC_NAME(tap_range) {
    int64_t low[FC_AXES], high[FC_AXES];
} FC_NAME(tap_range);

// A group of several channels adds up `size` products per tap: input q of each group is spread over the group's outputs.
//
// The outputs of one row, `width` of them and a multiple of `pixels`, in `count` vectors; all of them see the taps of `r`.
// Only a single vector may be partial.
FC_INLINE void FC_NAME(depthwise_run)(const fc_depthwise_rows *work, const FC_NAME(tap_range) * r,
                                      const FC_NAME(box) * at, const int pixels, const int count, const int one) {
    const int64_t y = at->y, x = at->x, c = at->c, lanes = at->lanes;
    const fc_problem *p = work->problem;
    const fc_axis *d = &p->axis[0], *h = &p->axis[1], *w = &p->axis[2];
    const int size = one ? 1 : (int)p->in_channels;
    const int64_t across = w->stride * p->src.axis[2], step = w->dilation * p->src.axis[2];
    const int64_t down = h->dilation * p->src.axis[1], deeper = d->dilation * p->src.axis[0];
    const int64_t tap_row = w->kernel * size * FC_VL, tap_plane = h->kernel * tap_row;
    const int64_t block = work->taps * size * FC_VL;
    const int64_t depth = r->high[0] - r->low[0], rows = r->high[1] - r->low[1], wide = r->high[2] - r->low[2];
    const T *weights = (const T *)work->weights + c / FC_VL * block + r->low[0] * tap_plane + r->low[1] * tap_row +
                       r->low[2] * size * FC_VL;
    const T *src = FC_NAME(depthwise_input)(work, y, x, r->low[0], r->low[1], r->low[2]) + c;
    FC_NAME(depthwise_end) end = FC_NAME(depthwise_end_at)(work, y, x);
    vec bias[4];
#pragma GCC unroll 4
    for (int v = 0; v < count; v++) bias[v] = v_load_part((const T *)work->bias + c + v * FC_VL, lanes);
    for (int64_t first = 0; first < at->width; first += pixels) {
        vec sum[8];
#pragma GCC unroll 8
        for (int i = 0; i < pixels * count; i++) sum[i] = v_set1(0);
        for (int64_t i = 0; i < depth; i++)
            for (int64_t j = 0; j < rows; j++) {
                const T *column = src + first * across + i * deeper + j * down;
                const T *tap = weights + i * tap_plane + j * tap_row;
                for (int64_t k = 0; k < wide; k++, column += step, tap += size * FC_VL) {
                    vec in[8];
                    const T *from = column;
#pragma GCC unroll 4
                    for (int q = 0; q < pixels; q++) {
#pragma GCC unroll 4
                        for (int v = 0; v < count; v++)
                            in[q * count + v] =
                                lanes == FC_VL ? v_load(from + v * FC_VL) : v_load_part(from + v * FC_VL, lanes);
                        from += across;
                        FC_WALK(from);
                    }
                    for (int s = 0; s < size; s++) {
                        const T *of = tap + s * FC_VL;
#pragma GCC unroll 4
                        for (int v = 0; v < count; v++) {
                            const vec weight = v_load(of);
                            of += block;
#pragma GCC unroll 4
                            for (int q = 0; q < pixels; q++) {
                                const vec input = in[q * count + v];
                                sum[q * count + v] =
                                    v_fma(weight, one ? input : v_spread(input, size, s), sum[q * count + v]);
                            }
                        }
                    }
                }
            }
#pragma GCC unroll 4
        for (int v = 0; v < count; v++)
            FC_NAME(depthwise_finish)(&end, first * end.next + c + v * FC_VL, sum + v, bias[v], pixels, pixels, count,
                                      lanes);
    }
    FC_NAME(depthwise_written)(&end, c, (count - 1) * FC_VL + lanes, at->width, 1, 0);
}

// The same by all channels.
FC_INLINE void FC_NAME(depthwise_columns)(const fc_depthwise_rows *work, const FC_NAME(tap_range) * r, FC_NAME(box) at,
                                          const int pixels, const int count, const int one) {
    const int64_t channels = work->problem->groups * (one ? 1 : work->problem->in_channels);
    at.lanes = FC_VL;
    for (; at.c + count * FC_VL <= channels; at.c += count * FC_VL)
        FC_NAME(depthwise_run)(work, r, &at, pixels, count, one);
    for (; at.c < channels; at.c += FC_VL) {
        at.lanes = FC_NAME(lanes_of)(channels - at.c);
        FC_NAME(depthwise_run)(work, r, &at, pixels, 1, one);
    }
}

FC_INLINE void FC_NAME(depthwise_runs)(const fc_depthwise_rows *work, const int one) {
    const fc_axis *w = &work->problem->axis[2];
    // Columns [first, last) see all taps.
    const int64_t reach = w->pad + w->in - 1 - (w->kernel - 1) * w->dilation;
    int64_t first = w->pad > 0 ? (w->pad + w->stride - 1) / w->stride : 0;
    if (first > w->out) first = w->out;
    int64_t last = reach < 0 ? 0 : reach / w->stride + 1;
    if (last > w->out) last = w->out;
    if (last < first) last = first;
    FC_NAME(tap_range) r;
    FC_NAME(taps_inside)(&work->problem->axis[0], work->d, &r.low[0], &r.high[0]);
    for (int64_t y = work->h; y < work->h + work->rows; y++) {
        FC_NAME(taps_inside)(&work->problem->axis[1], y, &r.low[1], &r.high[1]);
        for (int64_t x = 0; x < w->out;) {
            const int64_t fours = x == first ? (last - first) / 4 * 4 : 0;
            FC_NAME(taps_inside)(w, x, &r.low[2], &r.high[2]);
            const FC_NAME(box) at = {.y = y, .x = x, .height = 1, .width = fours ? fours : 1};
            if (fours) FC_NAME(depthwise_columns)(work, &r, at, 4, 2, one);
            else FC_NAME(depthwise_columns)(work, &r, at, 1, 4, one);
            x += fours ? fours : 1;
        }
    }
}

#include "kernels/depthwise_groups.tmpl.c"

void FC_NAME(depthwise_channels)(const fc_depthwise_rows *work) {
    const fc_axis *w = &work->problem->axis[2];
    if (FC_VL > 1 && work->problem->in_channels > 1) { // no more than a vector has lanes
        if (FC_NAME(has_windows)(w)) FC_NAME(depthwise_groups)(work);
        else FC_NAME(depthwise_runs)(work, 0);
        return;
    }
    // Windows are as fast by 7 x 7 taps, and take a third less where pixels share sets of the first-level cache.
    FC_DEPTHWISE(depthwise_patches, 2, 1)
    FC_DEPTHWISE(depthwise_patches, 3, 1)
    FC_DEPTHWISE(depthwise_patches, 3, 2)
    FC_DEPTHWISE(depthwise_patches, 5, 1)
    FC_DEPTHWISE(depthwise_patches, 5, 2)
    if (w->stride == 1 && w->dilation == 1 && w->kernel > 1) FC_NAME(depthwise_windows)(work);
    else FC_NAME(depthwise_runs)(work, 1);
}

#undef FC_DEPTHWISE
