// SPDX-License-Identifier: BSD-3-Clause
//
// winograd_grad.tmpl.c - the two transforms of a weight gradient, F(m, r) along one side or two:
//
//   g = G^T [ (A d) * (B^T x) ]           summed over tiles before G^T, and so two sides
//   g = G^T [ (A d A^T) * (B^T x B) ] G
//
// A evaluates the polynomial whose coefficients are m neighbouring elements of d, the gradient of dst, at each point; at
// infinity that is the last one.  B^T x is that of the forward form (winograd.tmpl.c), whose places and buffers these are.

FC_INLINE void FC_NAME(winograd_a)(const int m, const int alpha, const vec *d, vec *z) {
    const double a = alpha == 4 ? FC_W4_A : alpha == 5 ? FC_W5_A : alpha == 6 ? FC_W6_A : FC_W8_A;
    const double b = alpha == 5 ? FC_W5_B : alpha == 6 ? FC_W6_B : FC_W8_B;
    const double pairs[3] = {a, b, FC_W8_C};
    z[0] = d[0];
    z[alpha - 1] = d[m - 1];
    const int count = (alpha - 2) / 2; // pairs of points, and 1/2 of five
#pragma GCC unroll 3
    for (int i = 0; i < count; i++) { // even and odd coefficients by Horner's rule
        const vec square = v_set1((T)(pairs[i] * pairs[i]));
        vec even = d[(m - 1) / 2 * 2], odd = d[m / 2 * 2 - 1];
#pragma GCC unroll 3
        for (int k = (m - 1) / 2 * 2 - 2; k >= 0; k -= 2) even = v_fma(square, even, d[k]);
#pragma GCC unroll 3
        for (int k = m / 2 * 2 - 3; k >= 0; k -= 2) odd = v_fma(square, odd, d[k]);
        z[1 + 2 * i] = v_fma(v_set1((T)pairs[i]), odd, even);
        z[2 + 2 * i] = v_fnma(v_set1((T)pairs[i]), odd, even);
    }
    if (alpha == 5) {
        const vec point = v_set1((T)b);
        vec value = d[m - 1];
#pragma GCC unroll 3
        for (int k = m - 2; k >= 0; k--) value = v_fma(point, value, d[k]);
        z[3] = value;
    }
}

// points [alpha] or [alpha * alpha][tile][channel]; beyond the image d is zero.
FC_INLINE void FC_NAME(winograd_grad_body)(const fc_winograd_tiles *w, const int m, const int alpha, const int sides) {
    const fc_problem *p = w->problem;
    const int rows = sides == 2 ? m : 1;
    const int64_t segment = FC_NAME(winograd_segment)(sides == 2 ? alpha : 1), wide = segment * FC_VL;
    const int64_t step = p->dst.axis[2], down = p->dst.axis[1], point = w->point, pitch = w->pitch;
    T buffer[FC_NAME(winograd_room) * FC_VL];
    for (int64_t done = 0; done < w->count;) {
        const FC_NAME(place) at = FC_NAME(place_of)(w, w->tile + done, w->count - done, segment / m);
        const int64_t columns = at.tiles * m, x = at.column * m, y = at.row * rows;
        for (int64_t c = 0; c < w->channels; c += FC_VL) {
            const int64_t left = w->channels - c, lanes = FC_NAME(lanes_of)(left);
            const T *image =
                (const T *)w->src + at.image * p->dst.outer + (w->channel + c) * p->dst.channel + at.d * p->dst.axis[0];
            for (int i = 0; i < rows; i++) {
                const int inside = y + i < p->axis[1].out;
                FC_NAME(gather_row)(buffer + i * wide, image + (y + i) * down, x, inside ? p->axis[2].out : x, columns,
                                    step, p->dst.channel, lanes);
            }
            for (int64_t j = 0; sides == 2 && j < columns; j++) {
                vec d[FC_NAME(winograd_most)], z[FC_NAME(winograd_most)];
#pragma GCC unroll 8
                for (int i = 0; i < m; i++) d[i] = v_load(buffer + i * wide + j * FC_VL);
                FC_NAME(winograd_a)(m, alpha, d, z);
#pragma GCC unroll 8
                for (int i = 0; i < alpha; i++) v_store(buffer + i * wide + j * FC_VL, z[i]);
            }
            for (int i = 0; i < (sides == 2 ? alpha : 1); i++) {
                const T *in = buffer + i * wide;
                T *out = (T *)w->points + i * alpha * point + done * pitch + c;
                for (int64_t t = 0; t < at.tiles; t++, in += m * FC_VL, out += pitch) {
                    vec d[FC_NAME(winograd_most)], z[FC_NAME(winograd_most)];
#pragma GCC unroll 8
                    for (int j = 0; j < m; j++) d[j] = v_load(in + j * FC_VL);
                    FC_NAME(winograd_a)(m, alpha, d, z);
                    if (lanes == FC_VL) {
#pragma GCC unroll 8
                        for (int j = 0; j < alpha; j++) v_store(out + j * point, z[j]);
                    } else {
#pragma GCC unroll 8
                        for (int j = 0; j < alpha; j++) v_store_part(out + j * point, z[j], lanes);
                    }
                }
            }
        }
        done += at.tiles;
    }
}

// Lanes are input channels.  The squares of all sums, from 1 on, are summed, which tells whether all are finite.
FC_INLINE int FC_NAME(winograd_grad_taps_body)(const fc_winograd_taps *w, const int r, const int alpha,
                                               const int sides) {
    const int lines = sides == 2 ? alpha : 1, rows = sides == 2 ? r : 1;
    T g[FC_MAX_ALPHA * FC_MAX_TAPS], squares[FC_VL];
    for (int i = 0; i < alpha * r; i++) g[i] = (T)w->g[i];
    vec all = v_set1(1);
    for (int64_t i = 0; i < w->rows; i++)
        for (int64_t c = 0; c < w->columns; c += FC_VL) {
            const int64_t lanes = w->columns - c; // behind them lies whatever the product was given
            const T *in = (const T *)w->points + i * FC_NR + c;
            T *out = (T *)w->taps + i * FC_NR + c;
            vec half[FC_NAME(winograd_most)][FC_MAX_TAPS], tap[FC_MAX_TAPS], seen = v_set1(1);
            for (int y = 0; y < lines; y++) {
#pragma GCC unroll 5
                for (int x = 0; x < r; x++) tap[x] = v_set1(0);
                for (int j = 0; j < alpha; j++) {
                    const T *sums = in + (y * alpha + j) * w->point;
                    vec sum = v_load(sums);
                    for (int64_t s = 1; s < w->slices; s++) sum = v_add(sum, v_load(sums + s * w->slice));
                    seen = v_fma(sum, sum, seen);
#pragma GCC unroll 5
                    for (int x = 0; x < r; x++) tap[x] = v_fma(v_set1(g[j * r + x]), sum, tap[x]);
                }
#pragma GCC unroll 5
                for (int x = 0; x < r; x++) half[y][x] = tap[x];
            }
            v_store(squares, seen);
            all = v_add(all, lanes < FC_VL ? v_load_part(squares, lanes) : seen);
            for (int x = 0; x < r; x++) {
#pragma GCC unroll 5
                for (int k = 0; k < rows; k++) tap[k] = sides == 2 ? v_set1(0) : half[0][x];
                for (int y = 0; sides == 2 && y < alpha; y++)
#pragma GCC unroll 5
                    for (int k = 0; k < rows; k++) tap[k] = v_fma(v_set1(g[y * r + k]), half[y][x], tap[k]);
#pragma GCC unroll 5
                for (int k = 0; k < rows; k++) v_store(out + (k * r + x) * w->rows * FC_NR, tap[k]);
            }
        }
    return v_finite(all);
}

#define FC_WINOGRAD_GRAD(outputs, points)                                                                              \
    if (w->form.m == outputs && w->form.alpha == points) {                                                             \
        if (w->form.sides == 1) FC_NAME(winograd_grad_body)(w, outputs, points, 1);                                    \
        else FC_NAME(winograd_grad_body)(w, outputs, points, 2);                                                       \
    }
#define FC_WINOGRAD_TAPS(taps, points)                                                                                 \
    if (w->form.r == taps && w->form.alpha == points)                                                                  \
        return w->form.sides == 1 ? FC_NAME(winograd_grad_taps_body)(w, taps, points, 1)                               \
                                  : FC_NAME(winograd_grad_taps_body)(w, taps, points, 2);

void FC_NAME(winograd_grad)(const fc_winograd_tiles *w) {
    FC_WINOGRAD_GRAD(2, 4)
    FC_WINOGRAD_GRAD(3, 4)
    FC_WINOGRAD_GRAD(3, 5)
    FC_WINOGRAD_GRAD(4, 5)
    FC_WINOGRAD_GRAD(2, 6)
    FC_WINOGRAD_GRAD(4, 6)
    FC_WINOGRAD_GRAD(6, 8)
}

int FC_NAME(winograd_grad_taps)(const fc_winograd_taps *w) {
    FC_WINOGRAD_TAPS(2, 4)
    FC_WINOGRAD_TAPS(3, 4)
    FC_WINOGRAD_TAPS(2, 5)
    FC_WINOGRAD_TAPS(3, 5)
    FC_WINOGRAD_TAPS(3, 6)
    FC_WINOGRAD_TAPS(5, 6)
    FC_WINOGRAD_TAPS(3, 8)
    return 0;
}

#undef FC_WINOGRAD_GRAD
#undef FC_WINOGRAD_TAPS
