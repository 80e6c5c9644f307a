// SPDX-License-Identifier: BSD-3-Clause
//
// gemm.tmpl.c - the register tile: C[m][nr] = sum over k of A[m][k] * B[k][nr], for m = 1 .. mr.
//
// Each m has its own unrolled body, so that the last rows of a matrix cost no more than their share, and so has a last
// tile of no more columns than one vector holds. In float64, rows that are many, and yet no whole tile, go in two halves.
// The products of a block of k are summed from zero and then added to the earlier blocks' sums: the same operations in
// the same order wherever a pixel lies in a tile, hence results that do not depend on batch, position or threads.  Blocks
// of 256 also keep the rounding error of long sums near that of pairwise summation.

// The distance from row to row of a tile (from pixel to pixel, over channels) in dst; 0 where it is not even.
FC_INLINE int64_t FC_NAME(gemm_row_step)(const fc_gemm_tile *t) {
    const int64_t step = t->m > 1 ? t->row_offset[1] - t->row_offset[0] : 1;
    for (int64_t i = 2; i < t->m; i++)
        if (t->row_offset[i] != t->row_offset[0] + i * step) return 0;
    return step;
}

// When all of a tile has been written.
static __attribute__((noinline, cold)) void FC_NAME(gemm_one_nan)(const fc_gemm_tile *t) {
    for (int64_t r = 0; r < t->run_count; r++)
        for (int64_t i = 0; i < t->m; i++)
            FC_NAME(one_nan)((T *)t->dst + t->row_offset[i] + t->runs[r].offset, t->runs[r].length, t->column_stride, 1,
                             0);
}

// Finishes `count` channels of `pixels` pixels that are `step` apart in dst: those of a phase.
static __attribute__((noinline)) void FC_NAME(gemm_apart)(const fc_gemm_tile *t, const T *sums, const T *bias,
                                                          int64_t count, int64_t at, int64_t pixels, int64_t step) {
    const vec low = v_set1((T)t->low), high = v_set1((T)t->high);
    for (int64_t r = 0; r < count; r++, at += t->column_stride) {
        const vec res = t->residual ? FC_NAME(load_apart)((const T *)t->residual + at, pixels, step) : v_set1(0);
        const vec y = FC_NAME(finish)(v_load(sums + r * FC_VL), v_set1(bias[r]), res, low, high);
        FC_NAME(store_apart)((T *)t->dst + at, y, pixels, step);
    }
}

// Finishes rows that lie in memory where pixels are `step` apart in dst and channels further: transposed in registers.
static void FC_NAME(gemm_transposed)(const fc_gemm_tile *t, int64_t step) {
    const T *bias = t->bias;
    const int64_t channels = t->runs[0].length, start = t->row_offset[0] + t->runs[0].offset;
    const vec low = v_set1((T)t->low), high = v_set1((T)t->high);
    vec seen = v_set1(1), before = v_set1(0);
    for (int64_t i = 0; i < t->m; i += FC_VL)
        for (int64_t j = 0; j < channels; j += FC_VL) {
            const int64_t pixels = FC_NAME(lanes_of)(t->m - i);
            vec v[FC_VL];
#pragma GCC unroll 16
            for (int r = 0; r < FC_VL; r++)
                v[r] = r < pixels ? v_load((const T *)t->sums + (i + r) * FC_NR + j) : v_set1(0);
            v_transpose(v);
            if (step != 1) {
                T lane[FC_VL * FC_VL];
#pragma GCC unroll 16
                for (int r = 0; r < FC_VL; r++) v_store(lane + r * FC_VL, v[r]);
                FC_NAME(gemm_apart)(t, lane, bias + j, FC_NAME(lanes_of)(channels - j),
                                    start + i * step + j * t->column_stride, pixels, step);
                continue;
            }
#pragma GCC unroll 16
            for (int r = 0; r < FC_VL; r++) {
                if (j + r >= channels) continue;
                const int64_t at = start + i + (j + r) * t->column_stride;
                vec y = v_add(v[r], v_set1(bias[j + r]));
                if (t->residual) y = v_add(y, v_load_part((const T *)t->residual + at, pixels));
                y = FC_NAME(bound)(y, low, high);
                v_store_part((T *)t->dst + at, y, pixels);
                if (r % 2) seen = FC_NAME(look)(seen, before, y);
                before = y;
            }
            seen = FC_NAME(look)(seen, before, before); // the last of an odd number
        }
    if (FC_NAME(saw_nan)(seen)) FC_NAME(gemm_one_nan)(t);
}

// A part of a run, `n` columns from `column` on, of all rows; `at` from where dst has its first one.
FC_INLINE vec FC_NAME(gemm_scatter_part)(const fc_gemm_tile *t, int64_t pitch, const int bias_per_row, const int even,
                                         int64_t column, int64_t n, int64_t at, vec seen) {
    const T *sums = (const T *)t->sums + column, *bias = t->bias, *residual = even ? NULL : t->residual;
    T *dst = (T *)t->dst + at;
    const vec low = v_set1((T)t->low), high = v_set1((T)t->high);
    const vec b = bias_per_row ? v_set1(0) : v_load_part(bias + column, n);
    const int64_t step = even ? 1 : t->column_stride, m = t->m, *row_offset = t->row_offset;
    vec before = v_set1(0);
    for (int64_t i = 0; i < m; i++, sums += pitch) {
        vec v = v_add(v_load_part(sums, n), bias_per_row ? v_set1(bias[i]) : b);
        if (residual) v = v_add(v, FC_NAME(load_row)(residual + at + row_offset[i], n, step));
        v = FC_NAME(bound)(v, low, high);
        FC_NAME(store_row)(dst + row_offset[i], v, n, step);
        if (i % 2) seen = FC_NAME(look)(seen, before, v);
        before = v;
    }
    return FC_NAME(look)(seen, before, before); // the last of an odd number
}

// Finishes rows that lie in memory, run by run: tiles that dst does not hold as one rectangle.  A vector of all rows at a
// time, which share its mask; rows of sums are `pitch` apart.
static void FC_NAME(gemm_scatter)(const fc_gemm_tile *t, int64_t pitch, int bias_per_row) {
    const int even = t->column_stride == 1 && !t->residual;
    vec seen = v_set1(1);
    for (int64_t r = 0; r < t->run_count; r++) {
        const fc_run run = t->runs[r];
        for (int64_t j = 0; j < run.length; j += FC_VL) {
            const int64_t n = FC_NAME(lanes_of)(run.length - j), at = run.offset + j * t->column_stride;
            if (even && bias_per_row) seen = FC_NAME(gemm_scatter_part)(t, pitch, 1, 1, run.column + j, n, at, seen);
            else seen = FC_NAME(gemm_scatter_part)(t, pitch, bias_per_row, 0, run.column + j, n, at, seen);
        }
    }
    if (FC_NAME(saw_nan)(seen)) FC_NAME(gemm_one_nan)(t);
}

// Finishes rows that lie in memory.
static void FC_NAME(gemm_finish)(const fc_gemm_tile *t, int bias_per_row) {
    const int64_t step = bias_per_row || t->column_stride == 1 ? 0 : FC_NAME(gemm_row_step)(t);
    if (step > 0 && step <= 2) FC_NAME(gemm_transposed)(t, step);
    else FC_NAME(gemm_scatter)(t, FC_NR, bias_per_row);
}

// Finishes sums in registers whose place in dst is a rectangle, which are clamped, `plain`, or either, asked row by row.  A
// body of its own for residuals was no faster than the branch; a single one for all cases, step by step over the sums, took
// up to 6 % more of a product whose k is 16, and for fewer than FC_MR rows alone up to 40 %: tiles are shared out evenly,
// and seldom whole.
FC_INLINE void FC_NAME(gemm_store)(const fc_gemm_tile *t, const int m, const int nv, vec sum[][FC_NV],
                                   const int bias_per_row, const int plain, int clamped) {
    T *dst = (T *)t->dst + t->runs[0].offset;
    const T *bias = t->bias, *residual = plain || !t->residual ? NULL : (const T *)t->residual + t->runs[0].offset;
    const int64_t *row_offset = t->row_offset; // read before a store, which may be to anything
    const vec low = v_set1((T)t->low), high = v_set1((T)t->high);
    vec b[FC_NV], seen = v_set1(1), before = v_set1(0);
#pragma GCC unroll 4
    for (int j = 0; j < nv && !bias_per_row; j++) b[j] = v_load(bias + j * FC_VL);
#pragma GCC unroll 16
    for (int i = 0; i < m; i++) {
        const int64_t offset = row_offset[i];
        if (m < FC_MR) FC_WALK(clamped); // or all that follows would be there twice
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) sum[i][j] = v_add(sum[i][j], bias_per_row ? v_set1(bias[i]) : b[j]);
        if (residual)
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) sum[i][j] = v_add(sum[i][j], v_load(residual + offset + j * FC_VL));
        if (!plain && clamped)
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) sum[i][j] = FC_NAME(bound)(sum[i][j], low, high);
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) {
            const vec v = sum[i][j];
            v_store(dst + offset + j * FC_VL, v);
            if ((i * nv + j) % 2) seen = FC_NAME(look)(seen, before, v);
            before = v;
        }
    }
    if (m * nv % 2) seen = FC_NAME(look)(seen, before, before);
    if (FC_NAME(saw_nan)(seen)) FC_NAME(gemm_one_nan)(t);
}

// What happens to the sums in registers at the end of a block of k.
FC_INLINE void FC_NAME(gemm_end)(const fc_gemm_tile *t, const int m, const int nv, vec sum[][FC_NV],
                                 const int bias_per_row) {
    T *sums = t->sums;
    if (!t->first) {
#pragma GCC unroll 16
        for (int i = 0; i < m; i++)
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) sum[i][j] = v_add(v_load(sums + i * FC_NR + j * FC_VL), sum[i][j]);
    }
    if (t->last && t->run_count == 1 && t->runs[0].length == nv * FC_VL && t->column_stride == 1) {
        // Where k is short the multipliers notice what else they are given: a sum that needs no clamp gets none.
        const int clamped = t->low > -INFINITY || t->high < INFINITY;
        if (m < FC_MR) FC_NAME(gemm_store)(t, m, nv, sum, bias_per_row, 0, clamped);
        else if (clamped || t->residual) FC_NAME(gemm_store)(t, m, nv, sum, bias_per_row, 0, 1);
        else FC_NAME(gemm_store)(t, m, nv, sum, bias_per_row, 1, 0);
        return;
    }
#pragma GCC unroll 16
    for (int i = 0; i < m; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) v_store(sums + i * FC_NR + j * FC_VL, sum[i][j]);
    if (t->last) FC_NAME(gemm_finish)(t, bias_per_row);
}

// Brings `bytes` from beyond L2, line by line, while the multipliers are busy.  AVX-512's loads leave half of their slots
// free, but of AVX2's ten go to each twelve multiplications, for which there are twelve.
FC_INLINE void FC_NAME(gemm_ahead)(const char **ahead, int64_t step, const size_t bytes) {
#pragma GCC unroll 2
    for (size_t line = 0; line < bytes; line += 64) __builtin_prefetch(*ahead + line, 0, 2);
    *ahead += step;
}

// Asks for the lines that a tile will be written to, while its sums are computed: they may have to come from beyond L2, and
// stores wait for one another.  Where k is short, that is a quarter of the time.
FC_INLINE void FC_NAME(gemm_claim)(const fc_gemm_tile *t, const int m, const int nv) {
    if (!t->last || t->run_count != 1 || t->column_stride != 1) return;
    const T *dst = (const T *)t->dst + t->runs[0].offset;
#pragma GCC unroll 1
    for (int i = 0; i < m; i++)
#pragma GCC unroll 4
        for (size_t end = 64; end < nv * sizeof(vec) + 64; end += 64)
            __builtin_prefetch((const char *)(dst + t->row_offset[i]) + end - 1, 1, 3);
}

FC_INLINE void FC_NAME(gemm_pixels_body)(const fc_gemm_tile *t, const int m, const int nv) {
    FC_NAME(gemm_claim)(t, m, nv);
    vec sum[FC_MR][FC_NV];
#pragma GCC unroll 16
    for (int i = 0; i < m; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) sum[i][j] = v_set1(0);
    const T *a = t->a, *base = t->b;
    const int64_t *offset = t->b_offset;
    const char *ahead = t->ahead;
    const int64_t ahead_step = t->ahead_step;
    const int64_t step = t->a_row;
    for (int64_t k = 0; k < t->depth; k++, a += step) {
        const T *row = base + offset[k];
        FC_NAME(gemm_ahead)(&ahead, ahead_step, FC_NR * sizeof(T));
        vec b[FC_NV];
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) b[j] = v_load(row + j * FC_VL);
#pragma GCC unroll 16
        for (int i = 0; i < m; i++) {
            const vec x = v_set1(a[i]);
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) sum[i][j] = v_fma(x, b[j], sum[i][j]);
        }
    }
    FC_NAME(gemm_end)(t, m, nv, sum, 1);
}

FC_INLINE void FC_NAME(gemm_channels_body)(const fc_gemm_tile *t, const int m, const int nv) {
    FC_NAME(gemm_claim)(t, m, nv);
    vec sum[FC_MR][FC_NV];
#pragma GCC unroll 16
    for (int i = 0; i < m; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) sum[i][j] = v_set1(0);
    const T *b = t->b;
    const int64_t row = t->a_row;
    const char *ahead = t->ahead;
    const int64_t ahead_step = t->ahead_step;
    for (int64_t s = 0; s < t->segments; s++) {
        // Every third row has a pointer; the two after it are reached through the index register.
        const T *a = (const T *)t->a + t->a_segment[s], *base[(FC_MR + 2) / 3];
#pragma GCC unroll 8
        for (int i = 0; i < (m + 2) / 3; i++) base[i] = a + 3 * i * row;
        for (int64_t k = 0; k < t->depth; k++, b += FC_NR) {
            vec w[FC_NV];
            FC_NAME(gemm_ahead)(&ahead, ahead_step, 128);
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) w[j] = v_load(b + j * FC_VL);
#pragma GCC unroll 16
            for (int i = 0; i < m; i++) {
                const vec x = v_set1(base[i / 3][(i % 3) * row + k]);
#pragma GCC unroll 4
                for (int j = 0; j < nv; j++) sum[i][j] = v_fma(x, w[j], sum[i][j]);
            }
        }
        ahead += t->ahead_segment;
    }
    FC_NAME(gemm_end)(t, m, nv, sum, 0);
}

#if FC_HALVES
// As gemm_channels_body, of nv vectors and half a one: a core that computes a vector in two halves leaves out the second.
// The half is multiplied by half of the same broadcast, so that others lose nothing by it.
FC_INLINE void FC_NAME(gemm_half_body)(const fc_gemm_tile *t, const int m, const int nv) {
    FC_NAME(gemm_claim)(t, m, nv + 1);
    vec sum[FC_MR];
    v_half part[FC_MR];
#pragma GCC unroll 16
    for (int i = 0; i < m; i++) sum[i] = v_set1(0), part[i] = v_half_set1(0);
    const T *b = t->b;
    const int64_t row = t->a_row;
    const char *ahead = t->ahead;
    const int64_t ahead_step = t->ahead_step;
    for (int64_t s = 0; s < t->segments; s++) {
        const T *a = (const T *)t->a + t->a_segment[s], *base[(FC_MR + 2) / 3];
#pragma GCC unroll 8
        for (int i = 0; i < (m + 2) / 3; i++) base[i] = a + 3 * i * row;
        for (int64_t k = 0; k < t->depth; k++, b += FC_NR) {
            FC_NAME(gemm_ahead)(&ahead, ahead_step, 128);
            const vec w = v_load(b);
            const v_half rest = v_half_load(b + nv * FC_VL);
#pragma GCC unroll 16
            for (int i = 0; i < m; i++) {
                const T x = base[i / 3][(i % 3) * row + k];
                if (nv) {
                    const vec both = v_set1(x);
                    sum[i] = v_fma(both, w, sum[i]);
                    part[i] = v_half_fma(v_half_of(both), rest, part[i]);
                } else part[i] = v_half_fma(v_half_set1(x), rest, part[i]);
            }
        }
        ahead += t->ahead_segment;
    }
    T *sums = t->sums;
    const int64_t tail = nv * FC_VL;
    if (!t->first) {
#pragma GCC unroll 16
        for (int i = 0; i < m; i++) {
            if (nv) sum[i] = v_add(v_load(sums + i * FC_NR), sum[i]);
            part[i] = v_half_add(v_half_load(sums + i * FC_NR + tail), part[i]);
        }
    }
    if (!t->last || t->run_count > 1 || t->runs[0].length != tail + FC_VL / 2 || t->column_stride != 1) {
#pragma GCC unroll 16
        for (int i = 0; i < m; i++) {
            if (nv) v_store(sums + i * FC_NR, sum[i]);
            v_half_store(sums + i * FC_NR + tail, part[i]);
        }
        if (t->last) FC_NAME(gemm_finish)(t, 0);
        return;
    }
    T *dst = (T *)t->dst + t->runs[0].offset;
    const T *bias = t->bias, *residual = t->residual ? (const T *)t->residual + t->runs[0].offset : NULL;
    const int64_t *row_offset = t->row_offset; // read before a store, which may be to anything
    const vec low = v_set1((T)t->low), high = v_set1((T)t->high), b0 = v_load(bias);
    const v_half b1 = v_half_load(bias + tail);
    vec seen = v_set1(1);
    v_half half_seen = v_half_set1(0);
#pragma GCC unroll 16
    for (int i = 0; i < m; i++) {
        const int64_t offset = row_offset[i];
        if (nv) {
            vec y = v_add(sum[i], b0);
            if (residual) y = v_add(y, v_load(residual + offset));
            y = FC_NAME(bound)(y, low, high);
            v_store(dst + offset, y);
            seen = FC_NAME(look)(seen, y, y);
        }
        v_half y = v_half_add(part[i], b1);
        if (residual) y = v_half_add(y, v_half_load(residual + offset + tail));
        y = v_half_min(v_half_of(high), v_half_max(v_half_of(low), y));
        v_half_store(dst + offset + tail, y);
        half_seen = v_half_fma(y, y, half_seen);
    }
    if (FC_NAME(saw_nan)(v_add(seen, v_half_whole(half_seen)))) FC_NAME(gemm_one_nan)(t);
}
#endif

// The rows that have a body.
#define FC_GEMM_FEW 7
#define FC_GEMM_BODY_OF(rows) (rows <= FC_MR && (FC_KNOWN_SIZES || rows <= FC_GEMM_FEW || rows == FC_MR))

#define FC_GEMM_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16)

#define FC_GEMM_CASE(rows)                                                                                             \
    case rows:                                                                                                         \
        if (FC_GEMM_BODY_OF(rows)) FC_GEMM_BODY(tile, rows <= FC_MR ? rows : 1, FC_GEMM_VECTORS);                      \
        return;

#define FC_GEMM_VECTORS FC_NV
#define FC_GEMM_BODY FC_NAME(gemm_pixels_body)
static void FC_NAME(gemm_pixels_wide)(const fc_gemm_tile *tile) {
    switch (tile->m) { FC_GEMM_ROWS(FC_GEMM_CASE) }
}
#undef FC_GEMM_BODY
#define FC_GEMM_BODY FC_NAME(gemm_channels_body)
static void FC_NAME(gemm_channels_wide)(const fc_gemm_tile *tile) {
    switch (tile->m) { FC_GEMM_ROWS(FC_GEMM_CASE) }
}
#undef FC_GEMM_BODY
#undef FC_GEMM_VECTORS

#define FC_GEMM_VECTORS 1
#define FC_GEMM_BODY FC_NAME(gemm_pixels_body)
static void FC_NAME(gemm_pixels_narrow)(const fc_gemm_tile *tile) {
    switch (tile->m) { FC_GEMM_ROWS(FC_GEMM_CASE) }
}
#undef FC_GEMM_BODY
#define FC_GEMM_BODY FC_NAME(gemm_channels_body)
static void FC_NAME(gemm_channels_narrow)(const fc_gemm_tile *tile) {
    switch (tile->m) { FC_GEMM_ROWS(FC_GEMM_CASE) }
}
#undef FC_GEMM_BODY
#if FC_HALVES
#define FC_GEMM_BODY FC_NAME(gemm_half_body)
static void FC_NAME(gemm_channels_three_halves)(const fc_gemm_tile *tile) {
    switch (tile->m) { FC_GEMM_ROWS(FC_GEMM_CASE) }
}
#undef FC_GEMM_VECTORS
#define FC_GEMM_VECTORS 0
static void FC_NAME(gemm_channels_half)(const fc_gemm_tile *tile) {
    switch (tile->m) { FC_GEMM_ROWS(FC_GEMM_CASE) }
}
#undef FC_GEMM_BODY
#endif
#undef FC_GEMM_VECTORS
#undef FC_GEMM_CASE
#undef FC_GEMM_ROWS

// Each half keeps the multipliers busy; that the columns are read twice is not noticed.
FC_INLINE void FC_NAME(gemm_split)(const fc_gemm_tile *tile, fc_gemm_fn *run, const int over_pixels) {
    if (FC_GEMM_BODY_OF(tile->m)) {
        run(tile);
        return;
    }
    const int64_t first = tile->m / 2;
    fc_gemm_tile half = *tile;
    half.m = first;
    run(&half);
    half.m = tile->m - first;
    half.a = (const T *)tile->a + first * (over_pixels ? 1 : tile->a_row);
    half.sums = (T *)tile->sums + first * FC_NR;
    if (tile->last) { // they are there
        half.row_offset = tile->row_offset + first;
        if (over_pixels) half.bias = (const T *)tile->bias + first;
    }
    run(&half);
}

void FC_NAME(gemm_pixels)(const fc_gemm_tile *tile) {
    FC_NAME(gemm_split)(tile, tile->columns <= FC_VL ? FC_NAME(gemm_pixels_narrow) : FC_NAME(gemm_pixels_wide), 1);
}

void FC_NAME(gemm_channels)(const fc_gemm_tile *tile) {
#if FC_HALVES
    if ((tile->columns - 1) % FC_VL < FC_VL / 2) {
        if (tile->columns < FC_VL) FC_NAME(gemm_channels_half)(tile);
        else FC_NAME(gemm_channels_three_halves)(tile);
        return;
    }
#endif
    FC_NAME(gemm_split)(tile, tile->columns <= FC_VL ? FC_NAME(gemm_channels_narrow) : FC_NAME(gemm_channels_wide), 0);
}
#undef FC_GEMM_BODY_OF
#undef FC_GEMM_FEW
