// SPDX-License-Identifier: BSD-3-Clause
//
// winograd_weights.tmpl.c - U = G g G^T of one tile of output channels, in double and rounded once.  Lanes are output
// channels, in plain loops of fixed length: products and sums are rounded one by one, so that U is the same on every
// instruction set.

static void FC_NAME(winograd_weights)(const fc_winograd_weights *work) {
    const fc_view *view = &work->problem->wei;
    const int64_t alpha = work->alpha;
    double g[9][FC_NR], half[FC_MAX_ALPHA][3][FC_NR];
    memset(g, 0, sizeof g); // channels behind the last one
    T *out = work->points;
    for (int64_t c = 0; c < work->problem->in_channels; c++, out += FC_NR) {
        for (int64_t o = 0; o < work->channels; o++) {
            const T *tap = (const T *)work->wei + o * view->outer + c * view->channel;
            for (int64_t y = 0; y < 3; y++)
                for (int64_t x = 0; x < 3; x++) g[3 * y + x][o] = (double)tap[y * view->axis[1] + x * view->axis[2]];
        }
        for (int64_t i = 0; i < alpha; i++) {
            const double *m = work->g[i];
            for (int64_t x = 0; x < 3; x++)
                for (int64_t o = 0; o < FC_NR; o++)
                    half[i][x][o] = m[0] * g[x][o] + m[1] * g[3 + x][o] + m[2] * g[6 + x][o];
        }
        for (int64_t i = 0; i < alpha; i++)
            for (int64_t j = 0; j < alpha; j++) {
                const double *m = work->g[j];
                T *u = out + (i * alpha + j) * work->point;
                for (int64_t o = 0; o < FC_NR; o++)
                    u[o] = (T)(half[i][0][o] * m[0] + half[i][1][o] * m[1] + half[i][2][o] * m[2]);
            }
    }
}
