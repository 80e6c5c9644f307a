// SPDX-License-Identifier: BSD-3-Clause
//
// winograd_weights.tmpl.c - U = G g G^T of one tile of output channels, in double and rounded once.  Lanes are output
// channels, in plain loops of fixed length: products and sums are rounded one by one, so that U is the same on every
// instruction set.

FC_INLINE void FC_NAME(winograd_weights_body)(const fc_winograd_weights *work, const int taps) {
    const fc_view *view = &work->problem->wei;
    const int64_t alpha = work->alpha;
    double g[FC_MAX_TAPS][FC_MAX_TAPS][FC_NR], half[FC_MAX_ALPHA][FC_MAX_TAPS][FC_NR];
    memset(g, 0, sizeof g); // channels behind the last one
    T *out = work->points;
    for (int64_t c = 0; c < work->problem->in_channels; c++, out += FC_NR) {
        for (int64_t o = 0; o < work->channels; o++) {
            const T *tap = (const T *)work->wei + o * view->outer + c * view->channel;
            for (int64_t y = 0; y < taps; y++)
                for (int64_t x = 0; x < taps; x++) g[y][x][o] = (double)tap[y * view->axis[1] + x * view->axis[2]];
        }
        for (int64_t i = 0; i < alpha; i++) {
            const double *m = work->g + i * taps;
            for (int64_t x = 0; x < taps; x++)
                for (int64_t o = 0; o < FC_NR; o++) {
                    double sum = m[0] * g[0][x][o];
#pragma GCC unroll 5
                    for (int y = 1; y < taps; y++) sum = sum + m[y] * g[y][x][o];
                    half[i][x][o] = sum;
                }
        }
        for (int64_t i = 0; i < alpha; i++)
            for (int64_t j = 0; j < alpha; j++) {
                const double *m = work->g + j * taps;
                T *u = out + (i * alpha + j) * work->point;
                for (int64_t o = 0; o < FC_NR; o++) {
                    double sum = half[i][0][o] * m[0];
#pragma GCC unroll 5
                    for (int x = 1; x < taps; x++) sum = sum + half[i][x][o] * m[x];
                    u[o] = (T)sum;
                }
            }
    }
}

static void FC_NAME(winograd_weights)(const fc_winograd_weights *work) {
    if (work->problem->axis[2].kernel == 3) FC_NAME(winograd_weights_body)(work, 3);
    else FC_NAME(winograd_weights_body)(work, 5);
}
