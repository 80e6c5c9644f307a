// SPDX-License-Identifier: BSD-3-Clause
//
// winograd.tmpl.c - F(m, r) along one side or two: the transforms of input tiles and output tiles, vectors over channels.
//
//   y = A^T [ u * (B^T d) ]            u = G g, prepared by conv/winograd.c
//   Y = A^T [ U * (B^T d B) ] A        U = G g G^T
//
// Both kernels work on a segment: neighbouring tiles of one tile row.  With two sides, B^T is applied to whole columns
// of the segment, which neighbouring tiles share, and then along the rows tile by tile.  Inside a channels-last image
// columns and rows are read where they lie; elsewhere they are first brought into a small buffer [row][column][lane],
// zero-padded, whatever the layout of the image (NCHW is transposed in registers on the way).  NCHW output takes the
// same way back.
#include "kernels/winograd_points.h"

enum {
    FC_NAME(winograd_most) = 8,   // points per side
    FC_NAME(winograd_room) = 288, // vectors of a segment: 18 KiB, more than half of L1, where they are 16 wide
};

// Columns of a segment whose rows in the buffer are so many: whole blocks of those that planes are transposed in.  The longer the
// runs of a plane that are written, the sooner its lines are there: outputs of F(4, 3) take a third less by 16 tiles than by 8.
FC_INLINE int64_t FC_NAME(winograd_segment)(int rows) { return FC_NAME(winograd_room) / rows / FC_VL * FC_VL; }

// B^T for one column or row of `alpha` values; it depends on the points alone, and so is shared by all F(m, r) of one
// alpha = m + r - 1.
FC_INLINE void FC_NAME(winograd_bt)(const int alpha, const vec *d, vec *v) {
    if (alpha == 4) {
        const vec a = v_set1((T)FC_W4_A), aa = v_set1((T)(FC_W4_A * FC_W4_A));
        v[0] = v_fnma(aa, d[0], d[2]);
        v[1] = v_fma(a, d[1], d[2]);
        v[2] = v_fnma(a, d[1], d[2]);
        v[3] = v_fnma(aa, d[1], d[3]);
    } else if (alpha == 5) {
        const vec a = v_set1((T)FC_W5_A), b = v_set1((T)FC_W5_B), aa = v_set1((T)(FC_W5_A * FC_W5_A));
        const vec even = v_fnma(b, d[2], d[3]), odd = v_fnma(b, d[1], d[2]);
        v[3] = v_fnma(aa, d[1], d[3]);
        v[0] = v_fnma(b, v_fnma(aa, d[0], d[2]), v[3]);
        v[1] = v_fma(a, odd, even);
        v[2] = v_fnma(a, odd, even);
        v[4] = v_fnma(b, v[3], v_fnma(aa, d[2], d[4]));
    } else if (alpha == 6) {
        const double aa = FC_W6_A * FC_W6_A, bb = FC_W6_B * FC_W6_B;
        const vec a = v_set1((T)FC_W6_A), b = v_set1((T)FC_W6_B), a2 = v_set1((T)aa), b2 = v_set1((T)bb);
        const vec sum = v_set1((T)(aa + bb)), product = v_set1((T)(aa * bb));
        const vec even_a = v_fnma(b2, d[2], d[4]), odd_a = v_fnma(b2, d[1], d[3]);
        const vec even_b = v_fnma(a2, d[2], d[4]), odd_b = v_fnma(a2, d[1], d[3]);
        v[0] = v_fma(product, d[0], v_fnma(sum, d[2], d[4]));
        v[5] = v_fma(product, d[1], v_fnma(sum, d[3], d[5]));
        v[1] = v_fma(a, odd_a, even_a);
        v[2] = v_fnma(a, odd_a, even_a);
        v[3] = v_fma(b, odd_b, even_b);
        v[4] = v_fnma(b, odd_b, even_b);
    } else {
        const double pair[3] = {FC_W8_A, FC_W8_B, FC_W8_C};
        const double aa = pair[0] * pair[0], bb = pair[1] * pair[1], cc = pair[2] * pair[2];
        const vec s1 = v_set1((T)(aa + bb + cc)), s2 = v_set1((T)(aa * bb + aa * cc + bb * cc));
        const vec s3 = v_set1((T)(aa * bb * cc));
        v[0] = v_fnma(s3, d[0], v_fma(s2, d[2], v_fnma(s1, d[4], d[6])));
        v[7] = v_fnma(s3, d[1], v_fma(s2, d[3], v_fnma(s1, d[5], d[7])));
#pragma GCC unroll 3
        for (int i = 0; i < 3; i++) {
            const double square = pair[i] * pair[i];
            const vec p = v_set1((T)pair[i]), sum = v_set1((T)(aa + bb + cc - square));
            const vec product = v_set1((T)(aa * bb * cc / square));
            const vec even = v_fma(product, d[2], v_fnma(sum, d[4], d[6]));
            const vec odd = v_fma(product, d[1], v_fnma(sum, d[3], d[5]));
            v[1 + 2 * i] = v_fma(p, odd, even);
            v[2 + 2 * i] = v_fnma(p, odd, even);
        }
    }
}

// A^T for one column or row of `alpha` products: y[k] = sum of p^k times the product at p, infinity adding to the last.
FC_INLINE void FC_NAME(winograd_at)(const int m, const int alpha, const vec *p, vec *y) {
    const double a = alpha == 4 ? FC_W4_A : alpha == 5 ? FC_W5_A : alpha == 6 ? FC_W6_A : FC_W8_A;
    const double b = alpha == 5 ? FC_W5_B : alpha == 6 ? FC_W6_B : FC_W8_B, c = FC_W8_C;
    const double aa = a * a, bb = b * b, cc = c * c;
    const vec even = v_add(p[1], p[2]), odd = v_sub(p[1], p[2]);
    if (alpha == 4) {
        y[0] = v_add(p[0], even);
        if (m == 2) {
            y[1] = v_fma(v_set1((T)a), odd, p[3]);
            return;
        }
        y[1] = v_mul(v_set1((T)a), odd);
        y[2] = v_fma(v_set1((T)aa), even, p[3]);
    } else if (alpha == 5) {
        y[0] = v_add(v_add(p[0], p[3]), even);
        y[1] = v_fma(v_set1((T)a), odd, v_mul(v_set1((T)b), p[3]));
        if (m == 3) {
            y[2] = v_fma(v_set1((T)aa), even, v_fma(v_set1((T)bb), p[3], p[4]));
            return;
        }
        y[2] = v_fma(v_set1((T)aa), even, v_mul(v_set1((T)bb), p[3]));
        y[3] = v_fma(v_set1((T)(aa * a)), odd, v_fma(v_set1((T)(bb * b)), p[3], p[4]));
    } else if (alpha == 6) {
        const vec even_b = v_add(p[3], p[4]), odd_b = v_sub(p[3], p[4]);
        y[0] = v_add(p[0], v_add(even, even_b));
        if (m == 2) {
            y[1] = v_fma(v_set1((T)a), odd, v_fma(v_set1((T)b), odd_b, p[5]));
            return;
        }
        y[1] = v_fma(v_set1((T)a), odd, v_mul(v_set1((T)b), odd_b));
        y[2] = v_fma(v_set1((T)aa), even, v_mul(v_set1((T)bb), even_b));
        y[3] = v_fma(v_set1((T)(aa * a)), odd, v_fma(v_set1((T)(bb * b)), odd_b, p[5]));
    } else {
        const vec even_b = v_add(p[3], p[4]), odd_b = v_sub(p[3], p[4]);
        const vec even_c = v_add(p[5], p[6]), odd_c = v_sub(p[5], p[6]);
        double wa = 1, wb = 1, wc = 1;
#pragma GCC unroll 6
        for (int k = 0; k < m; k++, wa *= a, wb *= b, wc *= c) {
            const vec last = k == 0 ? p[0] : k + 1 == m ? p[7] : v_set1(0);
            y[k] =
                v_fma(v_set1((T)wa), k % 2 ? odd : even,
                      v_fma(v_set1((T)wb), k % 2 ? odd_b : even_b, v_fma(v_set1((T)wc), k % 2 ? odd_c : even_c, last)));
        }
        (void)cc;
    }
}

// A tile row: image, depth and first tile of a segment, which has so many tiles at most.
typedef struct FC_NAME(place) {
    int64_t image, d, row, column, tiles;
} FC_NAME(place);

FC_INLINE FC_NAME(place) FC_NAME(place_of)(const fc_winograd_tiles *w, int64_t tile, int64_t left, int64_t most) {
    FC_NAME(place) at;
    at.column = tile % w->tiles_w;
    at.row = tile / w->tiles_w % w->tiles_h;
    at.d = tile / w->tiles_w / w->tiles_h % w->problem->axis[0].out;
    at.image = tile / w->tiles_w / w->tiles_h / w->problem->axis[0].out;
    at.tiles = w->tiles_w - at.column;
    if (at.tiles > left) at.tiles = left;
    if (at.tiles > most) at.tiles = most;
    return at;
}

// out[column][lane] = in[lane * channel + column * step], `lanes` of them, for columns inside [0, size).
static __attribute__((noinline)) void FC_NAME(gather_row)(T *out, const T *in, int64_t x, int64_t size, int64_t columns,
                                                          int64_t step, int64_t channel, int64_t lanes) {
    int64_t low = x < 0 ? -x : 0, high = size - x < columns ? size - x : columns;
    if (low > columns) low = columns;
    if (high < low) high = low;
    for (int64_t j = 0; j < low; j++) v_store(out + j * FC_VL, v_set1(0));
    int64_t j = low;
    if (channel == 1) {
        for (; j < high; j++)
            v_store(out + j * FC_VL,
                    lanes == FC_VL ? v_load(in + (x + j) * step) : v_load_part(in + (x + j) * step, lanes));
    } else {
        // A block of FC_VL columns at a time, neighbours or every second one; the last may overlap the one before. A plane's
        // piece is too short to be foreseen: that of the next segment is asked for. A block stays in registers as long as no
        // loop of unknown length goes through it, here and in scatter_row: by way of memory both take up to a fourth longer.
        while (j < high && (step == 1 || step == 2)) {
            if (high - j < FC_VL && high - low >= FC_VL) j = high - FC_VL;
            const int64_t n = FC_NAME(lanes_of)(high - j);
            const T *from = in + (x + j) * step;
            vec block[FC_VL];
            if (n == FC_VL && lanes == FC_VL && step == 1)
#pragma GCC unroll 16
                for (int l = 0; l < FC_VL; l++) {
                    block[l] = v_load(from + l * channel);
                    __builtin_prefetch(from + l * channel + columns, 0, 2);
                }
            else if (step == 1)
#pragma GCC unroll 16
                for (int l = 0; l < FC_VL; l++) block[l] = l < lanes ? v_load_part(from + l * channel, n) : v_set1(0);
            else if (n == FC_VL && lanes == FC_VL)
#pragma GCC unroll 16
                for (int l = 0; l < FC_VL; l++) block[l] = v_load2(from + l * channel);
            else
#pragma GCC unroll 16
                for (int l = 0; l < FC_VL; l++) block[l] = l < lanes ? v_load2_part(from + l * channel, n) : v_set1(0);
            v_transpose(block);
#pragma GCC unroll 16
            for (int i = 0; i < FC_VL; i++) {
                if (i >= n) break;
                v_store(out + (j + i) * FC_VL, block[i]);
            }
            j += n;
        }
        for (; j < high; j++)
            for (int64_t l = 0; l < FC_VL; l++) out[j * FC_VL + l] = l < lanes ? in[l * channel + (x + j) * step] : 0;
    }
    for (j = high; j < columns; j++) v_store(out + j * FC_VL, v_set1(0));
}

// B^T over columns [0, count): element i of a column is `row` behind element i - 1, of the buffer's `pitch`.
FC_INLINE void FC_NAME(winograd_down)(const int alpha, const T *in, int64_t row, int64_t step, T *out, int64_t pitch,
                                      int64_t count) {
    for (int64_t j = 0; j < count; j++, in += step, out += FC_VL) {
        vec d[FC_NAME(winograd_most)], v[FC_NAME(winograd_most)];
#pragma GCC unroll 8
        for (int i = 0; i < alpha; i++) d[i] = v_load(in + i * row);
        FC_NAME(winograd_bt)(alpha, d, v);
#pragma GCC unroll 8
        for (int i = 0; i < alpha; i++) v_store(out + i * pitch, v[i]);
    }
}

// Every stride-th element of an axis, among them the one at `first`: how many there are, of an axis of `size` elements, and
// where the first one is.  `first` becomes its number, which may be less than 0 or beyond the last.
FC_INLINE int64_t FC_NAME(winograd_phase)(int64_t stride, int64_t size, int64_t *count, int64_t *first) {
    *count = size;
    if (stride == 1) return 0;
    const int64_t phase = (*first % stride + stride) % stride;
    *first = (*first - phase) / stride;
    *count = size > phase ? (size - phase - 1) / stride + 1 : 0;
    return phase;
}

// points [alpha] or [alpha * alpha][tile][channel]
FC_INLINE void FC_NAME(winograd_input_body)(const fc_winograd_tiles *w, const int alpha, const int sides) {
    const fc_problem *p = w->problem;
    const int m = (int)w->form.m, rows = sides == 2 ? alpha : 1, tile_rows = sides == 2 ? m : 1;
    // One row is read in place where a segment has no padding: of short ones more have none.
    const int64_t segment = FC_NAME(winograd_segment)(sides == 2 ? alpha : FC_NAME(winograd_most)),
                  wide = segment * FC_VL;
    const int64_t across = w->form.stride, below = sides == 2 ? across : 1; // from output to output
    const int64_t step = across * p->src.axis[2], down = below * p->src.axis[1], point = w->point, pitch = w->pitch;
    T buffer[FC_NAME(winograd_room) * FC_VL];
    for (int64_t done = 0; done < w->count;) {
        const FC_NAME(place) at = FC_NAME(place_of)(w, w->tile + done, w->count - done, (segment - (alpha - m)) / m);
        const int64_t columns = at.tiles * m + alpha - m;
        int64_t x = at.column * m * across - p->axis[2].pad + w->shift[2], width;
        int64_t y = at.row * tile_rows * p->axis[1].stride - p->axis[1].pad + w->shift[1], height;
        const T *phase = (const T *)w->src;
        phase += FC_NAME(winograd_phase)(across, p->axis[2].in, &width, &x) * p->src.axis[2];
        phase += FC_NAME(winograd_phase)(below, p->axis[1].in, &height, &y) * p->src.axis[1];
        const int64_t z = at.d * p->axis[0].stride - p->axis[0].pad + w->shift[0];
        const int deep = z >= 0 && z < p->axis[0].in;
        const int whole = deep && y >= 0 && y + rows <= height && p->src.channel == 1;
        int64_t low = x < 0 ? -x : 0, high = width - x < columns ? width - x : columns;
        if (low > columns) low = columns;
        if (high < low) high = low;
        for (int64_t c = w->channel; c < w->channel + w->channels; c += FC_VL) {
            const int64_t left = p->in_channels - c, lanes = FC_NAME(lanes_of)(left);
            const T *image = phase + at.image * p->src.outer + c * p->src.channel + z * p->src.axis[0];
            // Where the rows to be transformed lie, and from column to column.
            const T *in_place = buffer;
            int64_t in_step = FC_VL;
            if (sides == 1 && whole && lanes == FC_VL && high - low == columns) {
                in_place = image + y * down + x * step;
                in_step = step;
            } else if (sides == 2 && whole && lanes == FC_VL) {
                for (int i = 0; i < alpha; i++) {
                    for (int64_t j = 0; j < low; j++) v_store(buffer + i * wide + j * FC_VL, v_set1(0));
                    for (int64_t j = high; j < columns; j++) v_store(buffer + i * wide + j * FC_VL, v_set1(0));
                }
                if (high > low)
                    FC_NAME(winograd_down)(alpha, image + y * down + (x + low) * step, down, step, buffer + low * FC_VL,
                                           wide, high - low);
            } else {
                for (int i = 0; i < rows; i++) {
                    const int inside = deep && y + i >= 0 && y + i < height;
                    FC_NAME(gather_row)(buffer + i * wide, image + (y + i) * down, x, inside ? width : x, columns, step,
                                        p->src.channel, lanes);
                }
                if (sides == 2) FC_NAME(winograd_down)(alpha, buffer, wide, FC_VL, buffer, wide, columns);
            }
            for (int i = 0; i < rows; i++) {
                const T *in = in_place + i * wide;
                T *out = (T *)w->points + i * alpha * point + done * pitch + c;
                for (int64_t t = 0; t < at.tiles; t++, in += m * in_step, out += pitch) {
                    vec d[FC_NAME(winograd_most)], v[FC_NAME(winograd_most)];
#pragma GCC unroll 8
                    for (int j = 0; j < alpha; j++) d[j] = v_load(in + j * in_step);
                    FC_NAME(winograd_bt)(alpha, d, v);
                    if (lanes == FC_VL) {
#pragma GCC unroll 8
                        for (int j = 0; j < alpha; j++) v_store(out + j * point, v[j]);
                    } else { // what follows may be the next block of taps
#pragma GCC unroll 8
                        for (int j = 0; j < alpha; j++) v_store_part(out + j * point, v[j], lanes);
                    }
                }
            }
        }
        done += at.tiles;
    }
}

// The finished row of a segment: rows[column][lane] + bias, with residual and clamp, into dst.  It is `clean` where its NaN
// are all the one.
static __attribute__((noinline)) void FC_NAME(scatter_row)(const fc_winograd_tiles *w, T *row, int64_t columns,
                                                           int64_t offset, int64_t lanes, int clean) {
    const fc_problem *p = w->problem;
    const int64_t step = p->dst.axis[2], channel = p->dst.channel;
    const vec low = v_set1((T)p->low), high = v_set1((T)p->high);
    T *dst = (T *)w->dst + offset;
    const T *residual = w->residual ? (const T *)w->residual + offset : NULL;
    if (channel == 1) {
        for (int64_t j = 0; j < columns; j++) {
            vec v = v_load(row + j * FC_VL);
            if (residual) v = v_add(v, v_load_part(residual + j * step, lanes));
            v = FC_NAME(bound)(v, low, high);
            if (!clean) v = v_one_nan(v);
            if (lanes == FC_VL) v_store(dst + j * step, v);
            else v_store_part(dst + j * step, v, lanes);
        }
        return;
    }
    for (int64_t j = 0; j < columns; j += FC_VL) {
        const int64_t n = FC_NAME(lanes_of)(columns - j);
        vec block[FC_VL];
#pragma GCC unroll 16
        for (int i = 0; i < FC_VL; i++) block[i] = v_load(row + (j + i) * FC_VL);
        v_transpose(block);
        if (step == 1) {
#pragma GCC unroll 16
            for (int l = 0; l < FC_VL; l++) {
                if (l >= lanes) break;
                const int64_t at = l * channel + j;
                if (residual) block[l] = v_add(block[l], v_load_part(residual + at, n));
                block[l] = FC_NAME(bound)(block[l], low, high);
                v_store_part(dst + at, clean ? block[l] : v_one_nan(block[l]), n);
            }
            continue;
        }
#pragma GCC unroll 16
        for (int l = 0; l < FC_VL; l++) v_store(row + (j + l) * FC_VL, block[l]);
        for (int64_t l = 0; l < lanes; l++) {
            const int64_t at = l * channel + j * step;
            vec v = v_load(row + (j + l) * FC_VL);
            if (residual) v = v_add(v, FC_NAME(load_apart)(residual + at, n, step));
            v = FC_NAME(bound)(v, low, high);
            FC_NAME(store_apart)(dst + at, clean ? v : v_one_nan(v), n, step);
        }
    }
}

enum { FC_NAME(winograd_few) = 4, FC_NAME(winograd_terms) = 256 }; // columns, and products of a partial sum

// `count` outputs from (row, column) on, of a vector of channels from `c` on: y where `bad` is not NaN, else direct sums,
// with one NaN.
static __attribute__((noinline, cold)) void FC_NAME(winograd_again)(const fc_winograd_tiles *w,
                                                                    const FC_NAME(place) * at, int64_t row,
                                                                    int64_t column, int64_t c, int64_t count, vec bad,
                                                                    vec *y) {
    enum { FEW = FC_NAME(winograd_few), TERMS = FC_NAME(winograd_terms) };
    const fc_problem *p = w->problem;
    const fc_axis *d = &p->axis[0], *h = &p->axis[1], *x = &p->axis[2];
    for (; count > 0; count -= FEW, column += FEW, y += FEW) {
        const T *image = (const T *)w->src + at->image * p->src.outer, *wei = (const T *)w->wei + c;
        vec sum[FEW], part[FEW];
        for (int q = 0; q < FEW; q++) sum[q] = part[q] = v_set1(0);
        int64_t terms = 0;
        for (int64_t channel = 0; channel < p->in_channels; channel++, image += p->src.channel)
            for (int64_t i = 0; i < d->kernel; i++)
                for (int64_t j = 0; j < h->kernel; j++) {
                    const int64_t z = at->d * d->stride - d->pad + i * d->dilation;
                    const int64_t v = row * h->stride - h->pad + j * h->dilation;
                    const int inside = z >= 0 && z < d->in && v >= 0 && v < h->in;
                    const T *line = inside ? image + z * p->src.axis[0] + v * p->src.axis[1] : image;
                    for (int64_t k = 0; k < x->kernel; k++, wei += FC_NR) {
                        const vec weight = v_load(wei);
#pragma GCC unroll 4
                        for (int q = 0; q < FEW; q++) {
                            const int64_t u = (column + q) * x->stride - x->pad + k;
                            const T value = inside && u >= 0 && u < x->in ? line[u * p->src.axis[2]] : 0;
                            part[q] = v_fma(v_set1(value), weight, part[q]);
                        }
                        if (++terms % TERMS) continue;
#pragma GCC unroll 4
                        for (int q = 0; q < FEW; q++) {
                            sum[q] = v_add(sum[q], part[q]);
                            part[q] = v_set1(0);
                        }
                    }
                }
        for (int q = 0; q < FEW && q < count; q++)
            y[q] = v_select(v_above(bad, v_set1(0)), v_one_nan(v_add(sum[q], part[q])), y[q]);
    }
}

// Column j of a tile after the first of two sides, or the values of the only one; and the squares of what `half` holds then.
// Four columns are straight code, as a loop F(2, 3) takes up to a tenth longer; larger tiles do not notice.
FC_INLINE void FC_NAME(winograd_half)(const T *in, int64_t point, const int m, const int alpha, const int sides, int j,
                                      vec half[6][FC_NAME(winograd_most)], vec *all) {
    vec q[FC_NAME(winograd_most)], y[6];
    if (sides == 1) {
        half[0][j] = v_load(in + j * point);
        *all = v_fma(half[0][j], half[0][j], *all);
        return;
    }
#pragma GCC unroll 8
    for (int i = 0; i < alpha; i++) q[i] = v_load(in + (i * alpha + j) * point);
    FC_NAME(winograd_at)(m, alpha, q, y);
#pragma GCC unroll 6
    for (int i = 0; i < m; i++) {
        half[i][j] = y[i];
        *all = v_fma(y[i], y[i], *all);
    }
}

// points [alpha] or [alpha * alpha][tile][channel]
//
// A NaN or an infinity in a tile's input spoils outputs whose windows do not hold it, and so does a number so large that
// the transforms overflow.  The constants of B^T and A^T are not zero where a value has a part in another, so that what is
// not finite stays so through products and sums up to every value in which it has a part; and what has no part in one,
// having zero for a constant, is not computed with.  So the tiles of a channel that are not finite when one of two sides
// has been transformed are summed directly, and those near to it (2^64, whose square overflows), in which some outputs may
// yet overflow and others hold what is left of the rounding of such numbers.  That is before the store: residual and clamp
// would hide them, and the residual may be what is overwritten.  It is known before the second side: outputs would have
// to wait for the last of the tile, in more registers than there are.  Looking costs an instruction for each value between
// the sides, a sum of squares from 1 on in which tiny ones are lost, and a branch for the tile.  After it NaN can come
// from a residual alone, or from a bias that is not finite.
//
// Tiles begin at even rows and columns, so that those of an even m hold whole windows of 2 x 2.  Their maximum is that of
// sums with a bias, which may be infinite, and is taken before the clamp, which keeps order.
FC_INLINE void FC_NAME(winograd_output_body)(const fc_winograd_tiles *w, const int m, const int alpha,
                                             const int sides) {
    enum { MOST = FC_NAME(winograd_most) };
    const fc_problem *p = w->problem;
    const int pooled = sides == 2 && m % 2 == 0 && p->pooled, side = pooled ? 2 : 1; // of what becomes one output
    const int64_t point = w->point, pitch = w->pitch, step = p->dst.axis[2], down = p->dst.axis[1];
    const int64_t hop = m / side * step;
    const vec low = v_set1((T)p->low), high = v_set1((T)p->high);
    const int rows = sides == 2 ? m : 1;
    const int64_t segment = FC_NAME(winograd_segment)(rows), wide = segment * FC_VL;
    T buffer[FC_NAME(winograd_room) * FC_VL];
    for (int64_t done = 0; done < w->count;) {
        const FC_NAME(place) at = FC_NAME(place_of)(w, w->tile + done, w->count - done, segment / m);
        const int64_t y0 = at.row * rows, x0 = at.column * m;
        const int64_t width = p->axis[2].out - x0 < at.tiles * m ? p->axis[2].out - x0 : at.tiles * m;
        const int64_t height = p->axis[1].out - y0 < rows ? p->axis[1].out - y0 : rows;
        const int64_t base = at.image * p->dst.outer + at.d * p->dst.axis[0] + y0 / side * down + x0 / side * step;
        for (int64_t c = 0; c < w->channels; c += FC_VL) {
            const int64_t left = p->out_channels - w->channel - c, lanes = FC_NAME(lanes_of)(left);
            const vec bias = v_load((const T *)w->bias + w->channel + c);
            const T *in = (const T *)w->points + done * pitch + c;
            const int64_t offset = base + (w->channel + c) * p->dst.channel;
            T *dst = (T *)w->dst + offset;
            const T *residual = w->residual ? (const T *)w->residual + offset : NULL;
            const int direct = p->dst.channel == 1 && lanes == FC_VL, clean = !residual && v_finite(bias);
            for (int64_t t = 0; t < at.tiles; t++, in += pitch, dst += hop) {
                vec half[6][MOST], all = v_set1(1), best[3] = {all, all, all};
                // The lines that the next tile goes to, which may have to come from beyond L2.
                if (direct && t + 1 < at.tiles)
#pragma GCC unroll 6
                    for (int i = 0; i < rows / side; i++)
#pragma GCC unroll 6
                        for (int j = 0; j < m / side; j++) __builtin_prefetch(dst + hop + i * down + j * step, 1, 3);
                if (alpha == 4)
#pragma GCC unroll 4
                    for (int j = 0; j < alpha; j++) FC_NAME(winograd_half)(in, point, m, alpha, sides, j, half, &all);
                else
#pragma GCC unroll 1
                    for (int j = 0; j < alpha; j++) FC_NAME(winograd_half)(in, point, m, alpha, sides, j, half, &all);
                const int64_t across = width - t * m;
                const int bad = !v_finite(all);
#pragma GCC unroll 2
                for (int i = 0; i < rows; i++) {
                    if (i >= height) break;
                    vec y[6];
                    FC_NAME(winograd_at)(m, alpha, half[i], y);
                    if (__builtin_expect(bad, 0)) {
                        vec again[2 * FC_NAME(winograd_few)]; // has an address, while y lies in registers
#pragma GCC unroll 6
                        for (int j = 0; j < m; j++) again[j] = y[j];
                        FC_NAME(winograd_again)(w, &at, y0 + i, x0 + t * m, c, across < m ? across : m, v_sub(all, all),
                                                again);
#pragma GCC unroll 6
                        for (int j = 0; j < m; j++) y[j] = again[j];
                    }
                    if (pooled) {
#pragma GCC unroll 3
                        for (int j = 0; j < m; j += 2) {
                            const vec pair = v_peak(v_add(y[j], bias), v_add(y[j + 1], bias));
                            best[j / 2] = i % 2 ? v_peak(best[j / 2], pair) : pair;
                            if (i % 2 == 0 || j >= across) continue;
                            const int64_t to = i / 2 * down + j / 2 * step;
                            if (direct) v_store(dst + to, FC_NAME(clamp)(best[j / 2], low, high));
                            else v_store(buffer + i / 2 * wide + (t * m + j) / 2 * FC_VL, best[j / 2]);
                        }
                        continue;
                    }
#pragma GCC unroll 6
                    for (int j = 0; j < m; j++) {
                        if (direct) {
                            if (j >= across) break;
                            const int64_t to = i * down + j * step;
                            vec v = v_add(y[j], bias);
                            if (residual) v = v_add(v, v_load(residual + t * m * step + to));
                            v = FC_NAME(bound)(v, low, high);
                            v_store(dst + to, clean ? v : v_one_nan(v));
                        } else v_store(buffer + i * wide + (t * m + j) * FC_VL, v_add(y[j], bias));
                    }
                }
            }
            for (int64_t i = 0; i < height / side && !direct; i++)
                FC_NAME(scatter_row)(w, buffer + i * wide, width / side, offset + i * down, lanes, clean);
        }
        done += at.tiles;
    }
}

// The bodies with their sizes as constants.
#define FC_WINOGRAD_INPUT(points)                                                                                      \
    if (w->form.alpha == points) {                                                                                     \
        if (w->form.sides == 1) FC_NAME(winograd_input_body)(w, points, 1);                                            \
        else FC_NAME(winograd_input_body)(w, points, 2);                                                               \
    }
#define FC_WINOGRAD_OUTPUT(outputs, points)                                                                            \
    if (w->form.m == outputs && w->form.alpha == points) {                                                             \
        if (w->form.sides == 1) FC_NAME(winograd_output_body)(w, outputs, points, 1);                                  \
        else FC_NAME(winograd_output_body)(w, outputs, points, 2);                                                     \
    }

void FC_NAME(winograd_input)(const fc_winograd_tiles *w) {
    FC_WINOGRAD_INPUT(4)
    FC_WINOGRAD_INPUT(5)
    FC_WINOGRAD_INPUT(6)
    FC_WINOGRAD_INPUT(8)
}

void FC_NAME(winograd_output)(const fc_winograd_tiles *w) {
    FC_WINOGRAD_OUTPUT(2, 4)
    FC_WINOGRAD_OUTPUT(3, 4)
    FC_WINOGRAD_OUTPUT(3, 5)
    FC_WINOGRAD_OUTPUT(4, 5)
    FC_WINOGRAD_OUTPUT(2, 6)
    FC_WINOGRAD_OUTPUT(4, 6)
    FC_WINOGRAD_OUTPUT(6, 8)
}

#undef FC_WINOGRAD_INPUT
#undef FC_WINOGRAD_OUTPUT
