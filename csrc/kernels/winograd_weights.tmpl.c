// SPDX-License-Identifier: BSD-3-Clause
//
// winograd_weights.tmpl.c - U = G g G^T (one side: G g along rows) of one tile of output channels, in double and rounded
// once.  Lanes are output channels, in plain loops of fixed length: products and sums are rounded one by one, so that U
// is the same on every instruction set.

typedef double FC_NAME(taps)[FC_MAX_TAPS][FC_MAX_TAPS][FC_NR];

// One block of taps of one input channel, r to a side.
FC_INLINE void FC_NAME(winograd_block)(const fc_winograd_weights *work, FC_NAME(taps) g, T *out, const int r,
                                       const int sides) {
    const int64_t alpha = work->form.alpha;
    double half[FC_MAX_ALPHA][FC_MAX_TAPS][FC_NR];
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

// With its sizes as constants.
static void FC_NAME(winograd_weights_block)(const fc_winograd_weights *work, FC_NAME(taps) g, T *out) {
#define FC_WINOGRAD_WEIGHTS(taps)                                                                                      \
    if (work->form.r == taps) {                                                                                        \
        if (work->form.sides == 1) FC_NAME(winograd_block)(work, g, out, taps, 1);                                     \
        else FC_NAME(winograd_block)(work, g, out, taps, 2);                                                           \
    }
    FC_WINOGRAD_WEIGHTS(2)
    FC_WINOGRAD_WEIGHTS(3)
    FC_WINOGRAD_WEIGHTS(5)
#undef FC_WINOGRAD_WEIGHTS
}

enum { FC_NAME(winograd_taps) = 75 }; // of some channels, read at a time

// All input channels of a kernel that is one block, and whose taps lie one after the other: read by transposes.
static void FC_NAME(winograd_weights_whole)(const fc_winograd_weights *work) {
    const fc_problem *p = work->problem;
    const int64_t r = work->form.r, rows = work->form.sides == 2 ? r : 1, taps = rows * r;
    const int64_t channels = FC_NAME(winograd_taps) / taps;
    FC_NAME(taps) g;
    T *out = work->points, *tap = work->taps;
    for (int64_t c0 = 0; c0 < p->in_channels; c0 += channels) {
        const int64_t count = p->in_channels - c0 < channels ? p->in_channels - c0 : channels;
        // tap[j][o] = wei[o][j] for the channels o of a tile.
        FC_NAME(transposed)(tap, FC_NR, NULL, (const T *)work->wei + c0 * taps, p->wei.outer, work->channels,
                            count * taps);
        // The rows of a tile's channels are too many and too far apart to be foreseen: the next channels are asked for.
        const T *next = (const T *)work->wei + (c0 + channels) * taps;
        for (int64_t o = 0; o < work->channels; o++, next += p->wei.outer)
            for (int64_t i = 0; i < count * taps; i += 64 / (int64_t)sizeof(T)) __builtin_prefetch(next + i, 0, 2);
        for (int64_t c = 0; c < count; c++, out += FC_NR) {
            for (int64_t y = 0; y < rows; y++)
                for (int64_t x = 0; x < r; x++, tap += FC_NR)
                    for (int64_t o = 0; o < FC_NR; o++) g[y][x][o] = (double)tap[o];
            FC_NAME(winograd_weights_block)(work, g, out);
        }
    }
}

// Any kernel: block by block, tap by tap.
static void FC_NAME(winograd_weights_blocks)(const fc_winograd_weights *work) {
    const fc_problem *p = work->problem;
    const int64_t r = work->form.r, sides = work->form.sides;
    const fc_view *view = &p->wei;
    const int64_t height = p->axis[1].kernel, width = p->axis[2].kernel;
    const int64_t apart = work->form.stride, below = sides == 2 ? apart : 1; // from tap to tap
    T *out = work->points;
    FC_NAME(taps) g;
    for (int64_t z = 0; z < work->form.blocks[0]; z++)
        for (int64_t b = 0; b < work->form.blocks[1]; b++)
            for (int64_t a = 0; a < work->form.blocks[2]; a++) {
                const int64_t y = sides == 2 ? fc_winograd_tap(&work->form, b) : b;
                const int64_t x = fc_winograd_tap(&work->form, a);
                const T *first = (const T *)work->wei + z * view->axis[0] + y * view->axis[1] + x * view->axis[2];
                const int64_t left = (width - x + apart - 1) / apart, columns = left < r ? left : r;
                const int64_t most = sides == 2 ? r : 1, rest = (height - y + below - 1) / below;
                const int64_t rows = rest < most ? rest : most;
                memset(g, 0, sizeof g); // taps outside of the kernel, channels behind the last one
                for (int64_t c = 0; c < p->in_channels; c++, out += FC_NR) {
                    for (int64_t o = 0; o < work->channels; o++) {
                        const T *tap = first + c * view->channel + o * view->outer;
                        for (int64_t i = 0; i < rows; i++)
                            for (int64_t j = 0; j < columns; j++)
                                g[i][j][o] = (double)tap[i * below * view->axis[1] + j * apart * view->axis[2]];
                    }
                    T *taps = (T *)work->taps + (((c * work->form.blocks[0] + z) * height + y) * width + x) * FC_NR;
                    for (int64_t i = 0; i < rows; i++)
                        for (int64_t j = 0; j < columns; j++)
                            for (int64_t o = 0; o < FC_NR; o++)
                                taps[(i * below * width + j * apart) * FC_NR + o] = (T)g[i][j][o];
                    FC_NAME(winograd_weights_block)(work, g, out);
                }
            }
}

void FC_NAME(winograd_weights)(const fc_winograd_weights *work) {
    if (work->whole) FC_NAME(winograd_weights_whole)(work);
    else FC_NAME(winograd_weights_blocks)(work);
}
