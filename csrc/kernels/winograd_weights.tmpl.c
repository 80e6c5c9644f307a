// SPDX-License-Identifier: BSD-3-Clause
//
// winograd_weights.tmpl.c - U = G g G^T (one side: G g along rows) of one tile of output channels, in double and rounded
// once.  Lanes are output channels, in plain loops of fixed length: products and sums are rounded one by one, so that U
// is the same on every instruction set.

// One block of taps of one input channel: r to a side, `rows` x `columns` of which lie inside the kernel.
FC_INLINE void FC_NAME(winograd_weights_block)(const fc_winograd_weights *work, const T *taps, int64_t rows,
                                               int64_t columns, double g[FC_MAX_TAPS][FC_MAX_TAPS][FC_NR], T *out,
                                               const int r, const int sides) {
    const fc_view *view = &work->problem->wei;
    const int64_t alpha = work->form.alpha;
    double half[FC_MAX_ALPHA][FC_MAX_TAPS][FC_NR];
    for (int64_t o = 0; o < work->channels; o++)
        for (int64_t y = 0; y < rows; y++)
            for (int64_t x = 0; x < columns; x++)
                g[y][x][o] = (double)taps[o * view->outer + y * view->axis[1] + x * view->axis[2]];
    double (*lines)[FC_MAX_TAPS][FC_NR] = sides == 2 ? half : g;
    if (sides == 2) {
        for (int64_t i = 0; i < alpha; i++) {
            const double *m = work->g + i * r;
            for (int64_t x = 0; x < r; x++)
                for (int64_t o = 0; o < FC_NR; o++) {
                    double sum = m[0] * g[0][x][o];
#pragma GCC unroll 5
                    for (int y = 1; y < r; y++) sum = sum + m[y] * g[y][x][o];
                    half[i][x][o] = sum;
                }
        }
    }
    for (int64_t i = 0; i < (sides == 2 ? alpha : 1); i++)
        for (int64_t j = 0; j < alpha; j++) {
            const double *m = work->g + j * r;
            T *u = out + (i * alpha + j) * work->point;
            for (int64_t o = 0; o < FC_NR; o++) {
                double sum = lines[i][0][o] * m[0];
#pragma GCC unroll 5
                for (int x = 1; x < r; x++) sum = sum + lines[i][x][o] * m[x];
                u[o] = (T)sum;
            }
        }
}

FC_INLINE void FC_NAME(winograd_weights_body)(const fc_winograd_weights *work, const int r, const int sides) {
    const fc_problem *p = work->problem;
    const int64_t down = sides == 2 ? r : 1, height = p->axis[1].kernel, width = p->axis[2].kernel;
    double g[FC_MAX_TAPS][FC_MAX_TAPS][FC_NR];
    T *out = work->points;
    for (int64_t z = 0; z < work->form.blocks[0]; z++)
        for (int64_t y = 0; y < work->form.blocks[1] * down; y += down)
            for (int64_t x = 0; x < work->form.blocks[2] * r; x += r) {
                const T *taps = (const T *)work->wei + z * p->wei.axis[0] + y * p->wei.axis[1] + x * p->wei.axis[2];
                const int64_t rows = height - y < down ? height - y : down, columns = width - x < r ? width - x : r;
                memset(g, 0, sizeof g); // taps outside of the kernel, channels behind the last one
                for (int64_t c = 0; c < p->in_channels; c++, out += FC_NR)
                    FC_NAME(winograd_weights_block)(work, taps + c * p->wei.channel, rows, columns, g, out, r, sides);
            }
}

#define FC_WINOGRAD_WEIGHTS(taps, count)                                                                               \
    if (work->form.r == taps && work->form.sides == count) FC_NAME(winograd_weights_body)(work, taps, count);

static void FC_NAME(winograd_weights)(const fc_winograd_weights *work) {
    FC_WINOGRAD_WEIGHTS(2, 1)
    FC_WINOGRAD_WEIGHTS(3, 1)
    FC_WINOGRAD_WEIGHTS(5, 1)
    FC_WINOGRAD_WEIGHTS(2, 2)
    FC_WINOGRAD_WEIGHTS(3, 2)
    FC_WINOGRAD_WEIGHTS(5, 2)
}

#undef FC_WINOGRAD_WEIGHTS
