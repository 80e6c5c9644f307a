// SPDX-License-Identifier: BSD-3-Clause
//
// pool.tmpl.c - pooling.  Seven ways to the same numbers; pool/pool.c chooses by strides and windows:
//
//   pool_runs            channels contiguous, many of them, windows large and without common rows,
//   pool_channels        channels contiguous, any others, and
//   pool_columns         columns contiguous, windows low and narrow: see pool_bands.tmpl.c for all three
//   pool_pairs           columns contiguous, two of them in a window, long rows: see pool_pairs.tmpl.c
//   pool_planes          one window that is a whole plane in one piece
//   pool_lines           columns contiguous, any other windows: first down, then across.  The rows under a window are
//                        folded into one line with the padding's identity at its ends, and the windows are folded along
//                        that line: kh + kw operations instead of kh * kw, and no borders.  Positions of maxima are
//                        sought afterwards.  (To carry them along would have to compare rows among equals.)
//   pool_any             any strides
//
// Averages sum rows or columns of a window by themselves, so that their error grows with kh + kw; planes are summed in
// sixteen lanes, a line at a time.

// Folding: the maximum that NaN wins, or the sum.  `kind` is a constant at every call.
FC_INLINE vec FC_NAME(pool_fold)(const int kind, vec a, vec x) {
    return kind == FC_POOL_MAX ? v_peak(a, x) : v_add(a, x);
}

FC_INLINE T FC_NAME(pool_fold1)(const int kind, T a, T x) {
    if (kind == FC_POOL_AVG) return a + x;
    return x > a || x != x ? x : a;
}

FC_INLINE T FC_NAME(pool_identity)(const int kind) { return kind == FC_POOL_MAX ? -(T)INFINITY : 0; }

// The factor of the divisor that rows have in common.
FC_INLINE T FC_NAME(pool_row_count)(const fc_pool *p, int64_t row) {
    return (T)fc_pool_count(p, 0, row / p->axis[1].out) * (T)fc_pool_count(p, 1, row % p->axis[1].out);
}

FC_INLINE int64_t FC_NAME(pool_at)(const fc_view *v, int64_t image, int64_t channel, const fc_pool *p, int64_t row) {
    return image * v->outer + channel * v->channel + row / p->axis[1].out * v->axis[0] +
           row % p->axis[1].out * v->axis[1];
}

// ------------------------------------------------------------------------------------------------------ any strides

// One output element; *position is that of its maximum in the plane.
FC_INLINE T FC_NAME(pool_one)(const int kind, const fc_pool *p, const T *plane, const fc_window w[FC_AXES],
                              int64_t *position) {
    const int64_t *step = p->src.axis, height = p->axis[1].in, width = p->axis[2].in;
    T result = FC_NAME(pool_identity)(kind);
    *position = (w[0].start * height + w[1].start) * width + w[2].start;
    for (int64_t d = w[0].start, i = 0; i < w[0].taps; i++, d += w[0].step)
        for (int64_t h = w[1].start, j = 0; j < w[1].taps; j++, h += w[1].step) {
            const T *line = plane + d * step[0] + h * step[1];
            T sum = 0;
            for (int64_t x = w[2].start, k = 0; k < w[2].taps; k++, x += w[2].step) {
                const T value = line[x * step[2]];
                if (kind == FC_POOL_AVG) sum += value;
                else if (value > result || value != value) {
                    result = value;
                    *position = (d * height + h) * width + x;
                }
            }
            if (kind == FC_POOL_AVG) result += sum;
        }
    return result;
}

void FC_NAME(pool_any)(const fc_pool_work *work) {
    const fc_pool *p = work->pool;
    for (int64_t c = work->channel; c < work->channel + work->channels; c++) {
        const T *plane = (const T *)work->src + work->image * p->src.outer + c * p->src.channel;
        for (int64_t row = work->row; row < work->row + work->rows; row++) {
            T *dst = (T *)work->dst + FC_NAME(pool_at)(&p->dst, work->image, c, p, row);
            int64_t *indices = work->indices;
            if (indices) indices += FC_NAME(pool_at)(&p->index, work->image, c, p, row);
            fc_window w[FC_AXES] = {fc_pool_window(p, 0, row / p->axis[1].out),
                                    fc_pool_window(p, 1, row % p->axis[1].out)};
            for (int64_t x = work->column; x < work->column + work->columns; x++) {
                int64_t position;
                w[2] = fc_pool_window(p, 2, x);
                if (p->kind == FC_POOL_AVG) {
                    const T sum = FC_NAME(pool_one)(FC_POOL_AVG, p, plane, w, &position);
                    dst[x * p->dst.axis[2]] = sum / (FC_NAME(pool_row_count)(p, row) * (T)fc_pool_count(p, 2, x));
                    continue;
                }
                dst[x * p->dst.axis[2]] = FC_NAME(pool_one)(FC_POOL_MAX, p, plane, w, &position);
                if (indices) indices[x * p->index.axis[2]] = fc_pool_sees(w) ? position : -1;
            }
        }
    }
}

// ------------------------------------------------------------------------------------------------- columns, by lines

// Output columns whose windows lie in one line, and the line: inputs x0 .. x0 + span of a row, of which only those in
// lo .. hi exist.  One column may have more than FC_POOL_LINE inputs; it is then alone and the line holds a part of it.
typedef struct FC_NAME(pool_block) {
    int64_t columns, x0, span, lo, hi;
    struct {
        int32_t start, taps;
    } window[FC_POOL_LINE];        // in the line
    T count[FC_POOL_LINE + FC_VL]; // here and below, what lies behind the last one is read but never used
    T line[FC_POOL_LINE + 2 * FC_VL];
} FC_NAME(pool_block);

static void FC_NAME(pool_block_at)(const fc_pool *p, int64_t column, int64_t end, T identity, FC_NAME(pool_block) * b) {
    const fc_axis *a = &p->axis[2];
    b->columns = b->span = 0;
    b->x0 = p->adaptive ? fc_pool_window(p, 2, column).start : column * a->stride - a->pad;
    for (int64_t x = column; x < end && b->columns < FC_POOL_LINE; x++, b->columns++) {
        const fc_window w = fc_pool_window(p, 2, x);
        const int64_t stop =
            p->adaptive ? w.start + w.taps : x * a->stride - a->pad + (a->kernel - 1) * a->dilation + 1;
        if (stop - b->x0 > FC_POOL_LINE && b->columns) break;
        b->span = stop - b->x0;
        b->window[b->columns].start = (int32_t)(w.start - b->x0);
        b->window[b->columns].taps = (int32_t)w.taps;
        b->count[b->columns] = (T)fc_pool_count(p, 2, x);
    }
    b->lo = b->x0 > 0 ? b->x0 : 0;
    b->hi = b->x0 + b->span < a->in ? b->x0 + b->span : a->in;
    for (int64_t i = 0; i < FC_VL; i++) b->count[b->columns + i] = 1;
    const int64_t used = b->span < FC_POOL_LINE ? b->span : FC_POOL_LINE;
    for (int64_t i = 0; i < used + 2 * FC_VL; i++) b->line[i] = identity;
}

// Fetches what lies two pages behind p: rows that end and start again confuse the hardware's own prefetching.
#define FC_AHEAD(p) __builtin_prefetch((const char *)(p) + 8192)

// The input rows under a window.
typedef struct FC_NAME(pool_rows_under) {
    const T *first; // its element of column 0
    int64_t depths, depth_step, heights, height_step;
} FC_NAME(pool_rows_under);

FC_INLINE FC_NAME(pool_rows_under) FC_NAME(pool_under)(const fc_pool *p, const T *plane, int64_t row) {
    const fc_window d = fc_pool_window(p, 0, row / p->axis[1].out), h = fc_pool_window(p, 1, row % p->axis[1].out);
    return (FC_NAME(pool_rows_under)){plane + d.start * p->src.axis[0] + h.start * p->src.axis[1], d.taps,
                                      d.step * p->src.axis[0], h.taps, h.step * p->src.axis[1]};
}

// With the position of that element in the plane, and what lies between the positions of rows.
typedef struct FC_NAME(pool_places) {
    FC_NAME(pool_rows_under) rows;
    int64_t first, depth_apart, height_apart;
} FC_NAME(pool_places);

FC_INLINE FC_NAME(pool_places) FC_NAME(pool_places_of)(const fc_pool *p, const T *plane, int64_t row) {
    const fc_window d = fc_pool_window(p, 0, row / p->axis[1].out), h = fc_pool_window(p, 1, row % p->axis[1].out);
    const int64_t width = p->axis[2].in, size = p->axis[1].in * width;
    return (FC_NAME(pool_places)){FC_NAME(pool_under)(p, plane, row), d.start * size + h.start * width, d.step * size,
                                  h.step * width};
}

// Folds `vectors` vectors, or the `part` elements of one, down the rows.
FC_INLINE void FC_NAME(pool_down_vectors)(const int kind, const int vectors, const int64_t part,
                                          const FC_NAME(pool_rows_under) * u, const T *src, T *line) {
    const int64_t depths = u->depths, heights = u->heights;
    vec sum[4];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        FC_AHEAD(src + v * FC_VL);
        sum[v] = part ? v_load_part(src, part) : v_load(src + v * FC_VL);
    }
    for (int64_t d = 0; d < depths; d++)
        for (int64_t h = d == 0; h < heights; h++) {
            const T *p = src + d * u->depth_step + h * u->height_step;
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) {
                sum[v] = FC_NAME(pool_fold)(kind, sum[v], part ? v_load_part(p, part) : v_load(p + v * FC_VL));
            }
        }
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        if (part) v_store_part(line, sum[v], part);
        else v_store(line + v * FC_VL, sum[v]);
    }
}

// line[0 .. n) = the inputs from column x on, folded down the rows.
FC_INLINE void FC_NAME(pool_down)(const int kind, const FC_NAME(pool_rows_under) * u, int64_t x, int64_t n, T *line) {
    const T *src = u->first + x;
    int64_t i = 0;
    for (; i + 4 * FC_VL <= n; i += 4 * FC_VL) FC_NAME(pool_down_vectors)(kind, 4, 0, u, src + i, line + i);
    for (; i + FC_VL <= n; i += FC_VL) FC_NAME(pool_down_vectors)(kind, 1, 0, u, src + i, line + i);
    if (i == n) return;
    if (n < FC_VL) FC_NAME(pool_down_vectors)(kind, 1, n, u, src, line);
    else FC_NAME(pool_down_vectors)(kind, 1, 0, u, src + n - FC_VL, line + n - FC_VL); // overlaps its neighbour
}

// Folds a window along the line.
FC_INLINE T FC_NAME(pool_along)(const int kind, const T *line, int64_t taps, int64_t step) {
    T sum = line[0];
    int64_t k = 1;
    if (FC_VL > 1 && step == 1 && taps >= 2 * FC_VL) {
        vec wide = v_load(line);
        for (k = FC_VL; k + FC_VL <= taps; k += FC_VL) wide = FC_NAME(pool_fold)(kind, wide, v_load(line + k));
        T lanes[FC_VL];
        v_store(lanes, wide);
        sum = lanes[0];
        for (int l = 1; l < FC_VL; l++) sum = FC_NAME(pool_fold1)(kind, sum, lanes[l]);
    }
    for (; k < taps; k++) sum = FC_NAME(pool_fold1)(kind, sum, line[k * step]);
    return sum;
}

// Whether windows are folded at every column, of which some are picked.
FC_INLINE int FC_NAME(pool_picked)(const fc_pool *p) {
    const fc_axis *a = &p->axis[2];
    return FC_VL > 1 && !p->adaptive && (a->kernel <= FC_POOL_TAPS || a->stride <= 2) && a->stride <= 4 * FC_VL;
}

// Across the line, for any stride: folds start at every column, and some are picked.
FC_INLINE void FC_NAME(pool_picks)(const int kind, int64_t stride, int64_t taps, int64_t dilation,
                                   const FC_NAME(pool_block) * b, T rows, T *folds, T *dst) {
    const int64_t columns = b->columns, starts = (columns - 1) * stride + 1;
    for (int64_t i = 0; i < starts; i += FC_VL) {
        vec sum = v_load(b->line + i);
        for (int64_t k = 1; k < taps; k++) sum = FC_NAME(pool_fold)(kind, sum, v_load(b->line + i + k * dilation));
        v_store(folds + i, sum);
    }
    for (int64_t x = 0; x < columns; x++)
        dst[x] = kind == FC_POOL_AVG ? folds[x * stride] / (rows * b->count[x]) : folds[x * stride];
}

// A window that is longer than the line, part by part.
static __attribute__((noinline)) T FC_NAME(pool_long)(const int kind, const FC_NAME(pool_rows_under) * u, fc_window w,
                                                      T *line) {
    const int64_t most = w.step < FC_POOL_LINE ? (FC_POOL_LINE - 1) / w.step + 1 : 1;
    T sum = FC_NAME(pool_identity)(kind);
    for (int64_t k = 0; k < w.taps; k += most) {
        const int64_t taps = w.taps - k < most ? w.taps - k : most;
        FC_NAME(pool_down)(kind, u, w.start + k * w.step, (taps - 1) * w.step + 1, line);
        sum = FC_NAME(pool_fold1)(kind, sum, FC_NAME(pool_along)(kind, line, taps, w.step));
    }
    return sum;
}

// Where the first of n elements is that equals x, or n.
FC_INLINE int64_t FC_NAME(pool_find)(const T *src, int64_t n, int64_t step, T x) {
    int64_t i = 0;
    for (; step == 1 && i + 64 <= n; i += 64) {
        int found = 0;
        for (int64_t k = 0; k < 64; k++) found |= src[i + k] == x;
        if (found) break;
    }
    while (i < n && src[i * step] != x) i++;
    return i;
}

// The position of a window's maximum in the plane: of the first among equals, of the last NaN.
FC_INLINE int64_t FC_NAME(pool_search)(const fc_pool *p, const T *plane, const fc_window w[FC_AXES], T maximum) {
    const int64_t *step = p->src.axis, height = p->axis[1].in, width = p->axis[2].in;
    int64_t position = -1;
    if (maximum != maximum) {
        FC_NAME(pool_one)(FC_POOL_MAX, p, plane, w, &position);
        return position;
    }
    // All of a small window, from behind: a branch on the data costs more than it saves.
    if (w[0].taps * w[1].taps * w[2].taps <= FC_POOL_SMALL) {
        for (int64_t i = w[0].taps - 1, d = w[0].start + i * w[0].step; i >= 0; i--, d -= w[0].step)
            for (int64_t j = w[1].taps - 1, h = w[1].start + j * w[1].step; j >= 0; j--, h -= w[1].step) {
                const T *line = plane + d * step[0] + h * step[1];
                for (int64_t k = w[2].taps - 1, x = w[2].start + k * w[2].step; k >= 0; k--, x -= w[2].step)
                    position = line[x] == maximum ? (d * height + h) * width + x : position;
            }
        return position;
    }
    for (int64_t i = 0, d = w[0].start; i < w[0].taps; i++, d += w[0].step)
        for (int64_t j = 0, h = w[1].start; j < w[1].taps; j++, h += w[1].step) {
            const T *line = plane + d * step[0] + h * step[1] + w[2].start;
            const int64_t k = FC_NAME(pool_find)(line, w[2].taps, w[2].step, maximum);
            if (k < w[2].taps) return (d * height + h) * width + w[2].start + k * w[2].step;
        }
    return position;
}

// The positions of n maxima of a row from `column` on that are not finite or, with all, of any: window by window.
static __attribute__((noinline)) void FC_NAME(pool_search_row)(const fc_pool *p, const T *plane, int64_t row,
                                                               int64_t column, int64_t n, const int all, const T *dst,
                                                               int64_t *indices) {
    fc_window w[FC_AXES] = {fc_pool_window(p, 0, row / p->axis[1].out), fc_pool_window(p, 1, row % p->axis[1].out)};
    for (int64_t i = 0; i < n; i++) {
        if (!all && dst[i] - dst[i] == 0) continue;
        w[2] = fc_pool_window(p, 2, column + i);
        indices[i * p->index.axis[2]] = FC_NAME(pool_search)(p, plane, w, dst[i]);
    }
}

// The places of finite folds: what lies under the windows is compared with them from behind, so that the first among equals
// stays.  src is the input under the first of them; at an edge there are inputs in lo <= column < hi only.
FC_INLINE int FC_NAME(pool_seek_vectors)(const int vectors, const int edge, const fc_axis *a,
                                         const FC_NAME(pool_places) * from, const T *src, int64_t lo, int64_t hi,
                                         const T *folds, T *places) {
    const FC_NAME(pool_places) at_rows = *from; // a copy, because a vector's store might change what a pointer shows
    const FC_NAME(pool_rows_under) u = at_rows.rows;
    const int64_t dilation = a->dilation;
    vec fold[4], at[4];
    int finite = 1;
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        fold[v] = v_load(folds + v * FC_VL);
        at[v] = v_set1(0);
        finite &= v_finite(fold[v]);
    }
    for (int64_t d = u.depths - 1; d >= 0; d--)
        for (int64_t h = u.heights - 1; h >= 0; h--) {
            const T *line = src + d * u.depth_step + h * u.height_step;
            const int64_t row = d * at_rows.depth_apart + h * at_rows.height_apart;
            for (int64_t k = (a->kernel - 1) * dilation; k >= 0; k -= dilation) {
                const vec place = v_set1((T)(row + k));
#pragma GCC unroll 4
                for (int v = 0; v < vectors; v++) {
                    const vec x = edge ? v_load_where(v_lanes(lo - k, hi - k), line + k, v_set1(-(T)INFINITY))
                                       : v_load(line + k + v * FC_VL);
                    at[v] = v_select(v_same(x, fold[v]), place, at[v]);
                }
            }
        }
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) v_store(places + v * FC_VL, at[v]);
    return finite;
}

// The positions of maxima that were picked; whether all folds were finite.
FC_INLINE int FC_NAME(pool_seek)(const fc_pool *p, const FC_NAME(pool_block) * b, const FC_NAME(pool_places) * u,
                                 const T *folds, T *places, int64_t *indices) {
    const fc_axis *a = &p->axis[2];
    const int64_t starts = (b->columns - 1) * a->stride + 1, in = a->in, width = (a->kernel - 1) * a->dilation + 1;
    int finite = 1;
    for (int64_t i = 0, n; i < starts; i += n) {
        n = b->x0 + i >= 0 && b->x0 + i + 4 * FC_VL - 1 + width <= in && i + 4 * FC_VL <= starts ? 4 * FC_VL : FC_VL;
        const int64_t x = i + n > starts && starts > n ? starts - n : i, from = b->x0 + x; // may overlap its neighbour
        const T *src = u->rows.first + from;
        if (n > FC_VL) finite &= FC_NAME(pool_seek_vectors)(4, 0, a, u, src, 0, 0, folds + x, places + x);
        else if (from >= 0 && from + FC_VL - 1 + width <= in)
            finite &= FC_NAME(pool_seek_vectors)(1, 0, a, u, src, 0, 0, folds + x, places + x);
        else finite &= FC_NAME(pool_seek_vectors)(1, 1, a, u, src, -from, in - from, folds + x, places + x);
    }
    const int64_t first = u->first + b->x0, apart = p->index.axis[2], stride = a->stride, columns = b->columns;
    for (int64_t x = 0; x < columns; x++) indices[x * apart] = first + x * stride + (int32_t)places[x * stride];
    return finite;
}

// Whether that is less work, and places are exact.
FC_INLINE int FC_NAME(pool_sought)(const fc_pool *p, const FC_NAME(pool_block) * b, const FC_NAME(pool_places) * u) {
    const int64_t taps = u->rows.depths * u->rows.heights * p->axis[2].kernel;
    const int64_t reach = u->rows.depths * u->depth_apart + u->rows.heights * u->height_apart + FC_POOL_LINE;
    return b->span <= FC_POOL_LINE && FC_NAME(pool_picked)(p) && p->axis[2].stride <= FC_VL && taps <= FC_POOL_SMALL &&
           reach < 1 << 24;
}

// `columns` outputs of one row from `column` on: their folds.
FC_INLINE void FC_NAME(pool_line)(const int kind, const fc_pool *p, FC_NAME(pool_block) * b, int64_t column,
                                  const T *plane, int64_t row, T *folds, T *dst) {
    const fc_axis *a = &p->axis[2];
    const int64_t stride = p->adaptive ? 0 : a->stride, step = p->adaptive ? 1 : a->dilation, taps = a->kernel;
    const FC_NAME(pool_rows_under) under = FC_NAME(pool_under)(p, plane, row);
    const T rows = kind == FC_POOL_AVG ? FC_NAME(pool_row_count)(p, row) : 1;
    if (b->span > FC_POOL_LINE) {
        const T sum = FC_NAME(pool_long)(kind, &under, fc_pool_window(p, 2, column), b->line);
        *dst = kind == FC_POOL_AVG ? sum / (rows * b->count[0]) : sum;
        return;
    }
    FC_NAME(pool_down)(kind, &under, b->lo, b->hi - b->lo, b->line + b->lo - b->x0);
    if (FC_NAME(pool_picked)(p)) FC_NAME(pool_picks)(kind, stride, taps, step, b, rows, folds, dst);
    else
        for (int64_t x = 0; x < b->columns; x++) {
            const T sum = FC_NAME(pool_along)(kind, b->line + b->window[x].start, b->window[x].taps, step);
            dst[x] = kind == FC_POOL_AVG ? sum / (rows * b->count[x]) : sum;
        }
}

FC_INLINE void FC_NAME(pool_lines_of)(const int kind, const fc_pool_work *work) {
    const fc_pool *p = work->pool;
    const int64_t end = work->column + work->columns;
    FC_NAME(pool_block) b;
    T folds[FC_POOL_LINE + FC_VL], places[FC_POOL_LINE + FC_VL]; // of windows that start at every column
    for (int64_t column = work->column; column < end; column += b.columns) {
        FC_NAME(pool_block_at)(p, column, end, FC_NAME(pool_identity)(kind), &b);
        for (int64_t c = work->channel; c < work->channel + work->channels; c++) {
            const T *plane = (const T *)work->src + work->image * p->src.outer + c * p->src.channel;
            for (int64_t row = work->row; row < work->row + work->rows; row++) {
                T *dst = (T *)work->dst + FC_NAME(pool_at)(&p->dst, work->image, c, p, row) + column;
                FC_NAME(pool_line)(kind, p, &b, column, plane, row, folds, dst);
                if (kind == FC_POOL_AVG || !work->indices) continue;
                int64_t *indices = work->indices + FC_NAME(pool_at)(&p->index, work->image, c, p, row);
                indices += column * p->index.axis[2];
                const FC_NAME(pool_places) under = FC_NAME(pool_places_of)(p, plane, row);
                const int sought = FC_NAME(pool_sought)(p, &b, &under);
                if (!sought || !FC_NAME(pool_seek)(p, &b, &under, folds, places, indices))
                    FC_NAME(pool_search_row)(p, plane, row, column, b.columns, !sought, dst, indices);
            }
        }
    }
}

void FC_NAME(pool_lines)(const fc_pool_work *work) {
    if (work->pool->kind == FC_POOL_MAX) FC_NAME(pool_lines_of)(FC_POOL_MAX, work);
    else FC_NAME(pool_lines_of)(FC_POOL_AVG, work);
}

// ----------------------------------------------------------------------------------------------------- whole planes

// Lanes that a plane is folded in, on every instruction set, so that sums are the same on all of them.
enum { FC_NAME(pool_fold_vectors) = 16 / FC_VL };

// Planes that are folded side by side, since a sum by itself waits for its additions.
enum { FC_NAME(pool_fold_planes) = FC_VL >= 16 ? 4 : FC_VL >= 8 ? 2 : 1 };

// Folds n elements of each of `planes` planes into what is there.
FC_INLINE void FC_NAME(pool_plane)(const int kind, const int planes, const T *src, int64_t apart, int64_t n,
                                   vec total[FC_NAME(pool_fold_planes)][FC_NAME(pool_fold_vectors)]) {
    const vec blank = v_set1(FC_NAME(pool_identity)(kind));
    for (int64_t start = 0; start < n; start += FC_POOL_SPAN) {
        const int64_t end = n - start < FC_POOL_SPAN ? n : start + FC_POOL_SPAN;
        vec sum[FC_NAME(pool_fold_planes)][FC_NAME(pool_fold_vectors)];
#pragma GCC unroll 4
        for (int p = 0; p < planes; p++)
#pragma GCC unroll 16
            for (int j = 0; j < FC_NAME(pool_fold_vectors); j++) sum[p][j] = blank;
        int64_t i = start;
        for (; i + 16 <= end; i += 16)
#pragma GCC unroll 4
            for (int p = 0; p < planes; p++)
#pragma GCC unroll 16
                for (int j = 0; j < FC_NAME(pool_fold_vectors); j++) {
                    const T *at = src + p * apart + i + j * FC_VL;
                    FC_AHEAD(at);
                    sum[p][j] = FC_NAME(pool_fold)(kind, sum[p][j], v_load(at));
                }
#pragma GCC unroll 16
        for (int j = 0; j < FC_NAME(pool_fold_vectors); j++, i += FC_VL) {
            if (i >= end) continue;
            const vmask rest = v_lanes(0, end - i);
#pragma GCC unroll 4
            for (int p = 0; p < planes; p++)
                sum[p][j] = FC_NAME(pool_fold)(kind, sum[p][j], v_load_where(rest, src + p * apart + i, blank));
        }
#pragma GCC unroll 4
        for (int p = 0; p < planes; p++)
#pragma GCC unroll 16
            for (int j = 0; j < FC_NAME(pool_fold_vectors); j++)
                total[p][j] = FC_NAME(pool_fold)(kind, total[p][j], sum[p][j]);
    }
}

// A vector of planes at a time: their folds are transposed, and the lanes folded in order.
FC_INLINE void FC_NAME(pool_planes_of)(const int kind, const fc_pool_work *work) {
    const fc_pool *p = work->pool;
    const int64_t n = p->axis[2].in;
    const T count = kind == FC_POOL_AVG ? FC_NAME(pool_row_count)(p, 0) * (T)fc_pool_count(p, 2, 0) : 1;
    for (int64_t c = work->channel; c < work->channel + work->channels; c += FC_VL) {
        const int64_t left = work->channel + work->channels - c, planes = left < FC_VL ? left : FC_VL;
        const T *src = (const T *)work->src + work->image * p->src.outer + c * p->src.channel;
        T *dst = (T *)work->dst + work->image * p->dst.outer + c * p->dst.channel;
        vec folds[FC_NAME(pool_fold_vectors)][FC_VL];
        for (int64_t i = 0; i < FC_VL; i += FC_NAME(pool_fold_planes)) {
            const T *plane = src + i * p->src.channel;
            vec total[FC_NAME(pool_fold_planes)][FC_NAME(pool_fold_vectors)];
#pragma GCC unroll 4
            for (int q = 0; q < FC_NAME(pool_fold_planes); q++)
#pragma GCC unroll 16
                for (int j = 0; j < FC_NAME(pool_fold_vectors); j++) total[q][j] = v_set1(FC_NAME(pool_identity)(kind));
            if (i + FC_NAME(pool_fold_planes) <= planes)
                FC_NAME(pool_plane)(kind, FC_NAME(pool_fold_planes), plane, p->src.channel, n, total);
            else
                for (int64_t q = 0; i + q < planes; q++)
                    FC_NAME(pool_plane)(kind, 1, plane + q * p->src.channel, 0, n, total + q);
#pragma GCC unroll 4
            for (int q = 0; q < FC_NAME(pool_fold_planes); q++)
                for (int j = 0; j < FC_NAME(pool_fold_vectors); j++) folds[j][i + q] = total[q][j];
        }
        vec result = v_set1(FC_NAME(pool_identity)(kind));
        for (int j = 0; j < FC_NAME(pool_fold_vectors); j++) {
            v_transpose(folds[j]);
            for (int l = 0; l < FC_VL; l++) result = FC_NAME(pool_fold)(kind, result, folds[j][l]);
        }
        T lanes[FC_VL];
        v_store(lanes, kind == FC_POOL_AVG ? v_div(result, v_set1(count)) : result);
        for (int64_t i = 0; i < planes; i++) {
            if (kind == FC_POOL_MAX && work->indices) {
                const T *plane = src + i * p->src.channel;
                int64_t at = FC_NAME(pool_find)(plane, n, 1, lanes[i]);
                if (at == n) // a NaN is equal to nothing: the last one
                    do at--;
                    while (plane[at] == plane[at]);
                work->indices[work->image * p->index.outer + (c + i) * p->index.channel] = at;
                lanes[i] = plane[at]; // zeros of either sign are equal
            }
            dst[i * p->dst.channel] = lanes[i];
        }
    }
}

void FC_NAME(pool_planes)(const fc_pool_work *work) {
    if (work->pool->kind == FC_POOL_MAX) FC_NAME(pool_planes_of)(FC_POOL_MAX, work);
    else FC_NAME(pool_planes_of)(FC_POOL_AVG, work);
}
