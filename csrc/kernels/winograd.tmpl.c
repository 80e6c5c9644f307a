// SPDX-License-Identifier: BSD-3-Clause
//
// winograd.tmpl.c - F(m x m, 3 x 3): the transforms of input tiles and output tiles, vectors over channels.
//
//   Y = A^T [ U * (B^T d B) ] A        U = G g G^T, prepared by algo/winograd.c
//
// Both kernels work on a segment: neighbouring tiles of one tile row.  The input segment is first brought into a small
// buffer [row][column][lane], zero-padded, whatever the layout of the image (NCHW is transposed in registers on the way),
// so that the transform itself knows neither borders nor layouts; the output takes the same way back.  B^T is applied to
// whole columns of the segment, which neighbouring tiles share, and then along the rows tile by tile.
#include "kernels/winograd_points.h"

enum { FC_NAME(segment) = 14 }; // tiles: 58 columns of 6 rows of 16 floats are 22 KiB

// B^T for one column or row of m + 2 values.
FC_INLINE void FC_NAME(winograd_bt)(const int m, const vec *d, vec *v) {
    if (m == 2) {
        const vec a = v_set1((T)FC_F2_A), aa = v_set1((T)(FC_F2_A * FC_F2_A));
        v[0] = v_fnma(aa, d[0], d[2]);
        v[1] = v_fma(a, d[1], d[2]);
        v[2] = v_fnma(a, d[1], d[2]);
        v[3] = v_fnma(aa, d[1], d[3]);
    } else if (m == 3) {
        const vec a = v_set1((T)FC_F3_A), b = v_set1((T)FC_F3_B), aa = v_set1((T)(FC_F3_A * FC_F3_A));
        const vec even = v_fnma(b, d[2], d[3]), odd = v_fnma(b, d[1], d[2]);
        v[3] = v_fnma(aa, d[1], d[3]);
        v[0] = v_fnma(b, v_fnma(aa, d[0], d[2]), v[3]);
        v[1] = v_fma(a, odd, even);
        v[2] = v_fnma(a, odd, even);
        v[4] = v_fnma(b, v[3], v_fnma(aa, d[2], d[4]));
    } else {
        const double aa = FC_F4_A * FC_F4_A, bb = FC_F4_B * FC_F4_B;
        const vec a = v_set1((T)FC_F4_A), b = v_set1((T)FC_F4_B), a2 = v_set1((T)aa), b2 = v_set1((T)bb);
        const vec sum = v_set1((T)(aa + bb)), product = v_set1((T)(aa * bb));
        const vec even_a = v_fnma(b2, d[2], d[4]), odd_a = v_fnma(b2, d[1], d[3]);
        const vec even_b = v_fnma(a2, d[2], d[4]), odd_b = v_fnma(a2, d[1], d[3]);
        v[0] = v_fma(product, d[0], v_fnma(sum, d[2], d[4]));
        v[5] = v_fma(product, d[1], v_fnma(sum, d[3], d[5]));
        v[1] = v_fma(a, odd_a, even_a);
        v[2] = v_fnma(a, odd_a, even_a);
        v[3] = v_fma(b, odd_b, even_b);
        v[4] = v_fnma(b, odd_b, even_b);
    }
}

// A^T for one column or row of m + 2 products.
FC_INLINE void FC_NAME(winograd_at)(const int m, const vec *p, vec *y) {
    if (m == 2) {
        const vec a = v_set1((T)FC_F2_A);
        y[0] = v_add(p[0], v_add(p[1], p[2]));
        y[1] = v_fma(a, v_sub(p[1], p[2]), p[3]);
    } else if (m == 3) {
        const vec a = v_set1((T)FC_F3_A), b = v_set1((T)FC_F3_B);
        const vec a2 = v_set1((T)(FC_F3_A * FC_F3_A)), b2 = v_set1((T)(FC_F3_B * FC_F3_B));
        const vec even = v_add(p[1], p[2]), odd = v_sub(p[1], p[2]);
        y[0] = v_add(v_add(p[0], p[3]), even);
        y[1] = v_fma(a, odd, v_mul(b, p[3]));
        y[2] = v_fma(a2, even, v_fma(b2, p[3], p[4]));
    } else {
        const double aa = FC_F4_A * FC_F4_A, bb = FC_F4_B * FC_F4_B;
        const vec a = v_set1((T)FC_F4_A), b = v_set1((T)FC_F4_B), a2 = v_set1((T)aa), b2 = v_set1((T)bb);
        const vec a3 = v_set1((T)(aa * FC_F4_A)), b3 = v_set1((T)(bb * FC_F4_B));
        const vec even_a = v_add(p[1], p[2]), odd_a = v_sub(p[1], p[2]);
        const vec even_b = v_add(p[3], p[4]), odd_b = v_sub(p[3], p[4]);
        y[0] = v_add(p[0], v_add(even_a, even_b));
        y[1] = v_fma(a, odd_a, v_mul(b, odd_b));
        y[2] = v_fma(a2, even_a, v_mul(b2, even_b));
        y[3] = v_fma(a3, odd_a, v_fma(b3, odd_b, p[5]));
    }
}

// A tile row: image, depth and first tile of a segment.
typedef struct FC_NAME(place) {
    int64_t image, d, row, column, tiles;
} FC_NAME(place);

FC_INLINE FC_NAME(place) FC_NAME(place_of)(const fc_winograd_tiles *w, int64_t tile, int64_t left) {
    FC_NAME(place) at;
    at.column = tile % w->tiles_w;
    at.row = tile / w->tiles_w % w->tiles_h;
    at.d = tile / w->tiles_w / w->tiles_h % w->problem->axis[0].out;
    at.image = tile / w->tiles_w / w->tiles_h / w->problem->axis[0].out;
    at.tiles = w->tiles_w - at.column;
    if (at.tiles > left) at.tiles = left;
    if (at.tiles > FC_NAME(segment)) at.tiles = FC_NAME(segment);
    return at;
}

// out[column][lane] = in[lane * channel + column * step], `lanes` of them, for columns inside [0, size).
FC_INLINE void FC_NAME(gather_row)(T *out, const T *in, int64_t x, int64_t size, int64_t columns, int64_t step,
                                   int64_t channel, int64_t lanes) {
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
        // A block of FC_VL columns at a time; the last one may overlap the one before.
        while (j < high && step == 1) {
            if (high - j < FC_VL && high - low >= FC_VL) j = high - FC_VL;
            const int64_t n = high - j < FC_VL ? high - j : FC_VL;
            vec block[FC_VL];
            if (n == FC_VL && lanes == FC_VL)
#pragma GCC unroll 16
                for (int l = 0; l < FC_VL; l++) block[l] = v_load(in + l * channel + x + j);
            else
                for (int l = 0; l < FC_VL; l++)
                    block[l] = l < lanes ? v_load_part(in + l * channel + x + j, n) : v_set1(0);
            v_transpose(block);
            if (n == FC_VL)
#pragma GCC unroll 16
                for (int i = 0; i < FC_VL; i++) v_store(out + (j + i) * FC_VL, block[i]);
            else
                for (int i = 0; i < n; i++) v_store(out + (j + i) * FC_VL, block[i]);
            j += n;
        }
        for (; j < high; j++)
            for (int64_t l = 0; l < FC_VL; l++) out[j * FC_VL + l] = l < lanes ? in[l * channel + (x + j) * step] : 0;
    }
    for (j = high; j < columns; j++) v_store(out + j * FC_VL, v_set1(0));
}

FC_INLINE void FC_NAME(winograd_input)(const fc_winograd_tiles *w, const int m) {
    enum { MOST = 6, COLUMNS = FC_NAME(segment) * 4 + 2 };
    const int alpha = m + 2;
    const fc_problem *p = w->problem;
    T buffer[MOST][COLUMNS * FC_VL];
    for (int64_t done = 0; done < w->count;) {
        const FC_NAME(place) at = FC_NAME(place_of)(w, w->tile + done, w->count - done);
        const int64_t columns = at.tiles * m + 2, x = at.column * m - p->axis[2].pad;
        const int64_t z = at.d * p->axis[0].stride - p->axis[0].pad;
        for (int64_t c = w->channel; c < w->channel + w->channels; c += FC_VL) {
            const int64_t left = p->in_channels - c, lanes = left < FC_VL ? left : FC_VL;
            const T *image = (const T *)w->src + at.image * p->src.outer + c * p->src.channel + z * p->src.axis[0];
            for (int i = 0; i < alpha; i++) {
                const int64_t y = at.row * m - p->axis[1].pad + i;
                const int inside = y >= 0 && y < p->axis[1].in && z >= 0 && z < p->axis[0].in;
                FC_NAME(gather_row)(buffer[i], image + y * p->src.axis[1], x, inside ? p->axis[2].in : x, columns,
                                    p->src.axis[2], p->src.channel, lanes);
            }
            for (int64_t j = 0; j < columns; j++) {
                vec d[MOST], v[MOST];
#pragma GCC unroll 6
                for (int i = 0; i < alpha; i++) d[i] = v_load(buffer[i] + j * FC_VL);
                FC_NAME(winograd_bt)(m, d, v);
#pragma GCC unroll 6
                for (int i = 0; i < alpha; i++) v_store(buffer[i] + j * FC_VL, v[i]);
            }
            for (int64_t t = 0; t < at.tiles; t++)
                for (int i = 0; i < alpha; i++) {
                    vec d[MOST], v[MOST];
                    T *out = (T *)w->points + i * alpha * w->point + (done + t) * w->row + c;
#pragma GCC unroll 6
                    for (int j = 0; j < alpha; j++) d[j] = v_load(buffer[i] + (t * m + j) * FC_VL);
                    FC_NAME(winograd_bt)(m, d, v);
#pragma GCC unroll 6
                    for (int j = 0; j < alpha; j++) v_store(out + j * w->point, v[j]);
                }
        }
        done += at.tiles;
    }
}

// The finished row of a segment: rows[column][lane] + bias, with residual and clamp, into dst.
FC_INLINE void FC_NAME(scatter_row)(const fc_winograd_tiles *w, T *row, int64_t columns, int64_t offset,
                                    int64_t lanes) {
    const fc_problem *p = w->problem;
    const int64_t step = p->dst.axis[2], channel = p->dst.channel;
    const vec low = v_set1((T)p->low), high = v_set1((T)p->high);
    T *dst = (T *)w->dst + offset;
    const T *residual = w->residual ? (const T *)w->residual + offset : NULL;
    if (channel == 1) {
        for (int64_t j = 0; j < columns; j++) {
            vec v = v_load(row + j * FC_VL);
            if (residual) v = v_add(v, v_load_part(residual + j * step, lanes));
            v = v_min(high, v_max(low, v));
            if (lanes == FC_VL) v_store(dst + j * step, v);
            else v_store_part(dst + j * step, v, lanes);
        }
        return;
    }
    for (int64_t j = 0; j < columns; j += FC_VL) {
        const int64_t n = columns - j < FC_VL ? columns - j : FC_VL;
        vec block[FC_VL];
#pragma GCC unroll 16
        for (int i = 0; i < FC_VL; i++) block[i] = v_load(row + (j + i) * FC_VL);
        v_transpose(block);
        for (int64_t l = 0; l < lanes; l++) {
            T *out = dst + l * channel + j * step;
            const T *res = residual ? residual + l * channel + j * step : NULL;
            if (step == 1) {
                vec v = block[l];
                if (res) v = v_add(v, v_load_part(res, n));
                v_store_part(out, v_min(high, v_max(low, v)), n);
            } else {
                T lane[FC_VL], extra[FC_VL] = {0};
                for (int64_t i = 0; res && i < n; i++) extra[i] = res[i * step];
                v_store(lane, v_min(high, v_max(low, v_add(block[l], v_load(extra)))));
                for (int64_t i = 0; i < n; i++) out[i * step] = lane[i];
            }
        }
    }
}

// points [alpha * alpha][tile of nr channels][tile][nr]; `row` elements between the tiles of nr channels.
FC_INLINE void FC_NAME(winograd_output)(const fc_winograd_tiles *w, const int m) {
    enum { MOST = 6, COLUMNS = FC_NAME(segment) * 4 + FC_VL };
    const int alpha = m + 2;
    const fc_problem *p = w->problem;
    T buffer[4][COLUMNS * FC_VL];
    for (int64_t done = 0; done < w->count;) {
        const FC_NAME(place) at = FC_NAME(place_of)(w, w->tile + done, w->count - done);
        const int64_t y0 = at.row * m, x0 = at.column * m;
        const int64_t width = p->axis[2].out - x0 < at.tiles * m ? p->axis[2].out - x0 : at.tiles * m;
        for (int64_t c = w->channel; c < w->channel + w->channels; c += FC_VL) {
            const int64_t left = p->out_channels - c, lanes = left < FC_VL ? left : FC_VL;
            const vec bias = v_load((const T *)w->bias + c);
            const T *in = (const T *)w->points + c / FC_NR * w->row + done * FC_NR + c % FC_NR;
            for (int64_t t = 0; t < at.tiles; t++, in += FC_NR) {
                vec half[4][MOST];
#pragma GCC unroll 6
                for (int j = 0; j < alpha; j++) {
                    vec q[MOST], y[4];
#pragma GCC unroll 6
                    for (int i = 0; i < alpha; i++) q[i] = v_load(in + (i * alpha + j) * w->point);
                    FC_NAME(winograd_at)(m, q, y);
#pragma GCC unroll 4
                    for (int i = 0; i < m; i++) half[i][j] = y[i];
                }
#pragma GCC unroll 4
                for (int i = 0; i < m; i++) {
                    vec y[4];
                    FC_NAME(winograd_at)(m, half[i], y);
#pragma GCC unroll 4
                    for (int j = 0; j < m; j++) v_store(buffer[i] + (t * m + j) * FC_VL, v_add(y[j], bias));
                }
            }
            for (int i = 0; i < m && y0 + i < p->axis[1].out; i++)
                FC_NAME(scatter_row)(w, buffer[i], width,
                                     at.image * p->dst.outer + c * p->dst.channel + at.d * p->dst.axis[0] +
                                         (y0 + i) * p->dst.axis[1] + x0 * p->dst.axis[2],
                                     lanes);
        }
        done += at.tiles;
    }
}

static void FC_NAME(winograd_input_f2)(const fc_winograd_tiles *work) { FC_NAME(winograd_input)(work, 2); }
static void FC_NAME(winograd_input_f3)(const fc_winograd_tiles *work) { FC_NAME(winograd_input)(work, 3); }
static void FC_NAME(winograd_input_f4)(const fc_winograd_tiles *work) { FC_NAME(winograd_input)(work, 4); }
static void FC_NAME(winograd_output_f2)(const fc_winograd_tiles *work) { FC_NAME(winograd_output)(work, 2); }
static void FC_NAME(winograd_output_f3)(const fc_winograd_tiles *work) { FC_NAME(winograd_output)(work, 3); }
static void FC_NAME(winograd_output_f4)(const fc_winograd_tiles *work) { FC_NAME(winograd_output)(work, 4); }
