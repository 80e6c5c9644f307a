// SPDX-License-Identifier: BSD-3-Clause
//
// winograd_weights.tmpl.c - U = G g G^T (one side: G g along rows) of one tile of output channels, in double and rounded
// once.  Lanes are output channels, in plain loops of fixed length: products and sums are rounded one by one, so that U
// is the same on every instruction set.

typedef double FC_NAME(lanes)[FC_NR];
typedef FC_NAME(lanes) FC_NAME(taps)[FC_MAX_TAPS][FC_MAX_TAPS];

#ifdef __clang__ // no element that a loop writes is read by it
#define FC_APART _Pragma("clang loop vectorize(assume_safety)")
#else
#define FC_APART _Pragma("GCC ivdep")
#endif

// G times r vectors, of which the first row of G reads the first, the last the last.  Between them lie the points, by
// pairs of p and -p where their count is even: what even and odd powers of p come to serves both.
#define FC_WINOGRAD_POINTS(T, in, out)                                                                                 \
    FC_APART for (int64_t o = 0; o < FC_NR; o++) {                                                                     \
        out(0)[o] = (T)(g[0] * in(0)[o]);                                                                              \
        out(alpha - 1)[o] = (T)in(r - 1)[o];                                                                           \
    }                                                                                                                  \
    for (int64_t i = 1; i + 1 < alpha; i += 2 - alpha % 2) {                                                           \
        const double *m = g + i * r;                                                                                   \
        FC_APART for (int64_t o = 0; o < FC_NR; o++) {                                                                 \
            double even = m[0] * in(0)[o], odd = m[1] * in(1)[o];                                                      \
            if (r > 2) even = even + m[2] * in(2)[o];                                                                  \
            if (r > 3) odd = odd + m[3] * in(3)[o];                                                                    \
            if (r > 4) even = even + m[4] * in(4)[o];                                                                  \
            out(i)[o] = (T)(even + odd);                                                                               \
            if (alpha % 2 == 0) out(i + 1)[o] = (T)(even - odd);                                                       \
        }                                                                                                              \
    }

// One block of taps of one input channel, r to a side.
FC_INLINE void FC_NAME(winograd_block)(const fc_winograd_weights *work, FC_NAME(taps) taps, T *points, const int r,
                                       const int sides) {
    const double *g = work->g;
    const int64_t alpha = work->form.alpha, point = work->point;
#define FC_TAP(i) taps[0][i]
#define FC_DOWN(i) taps[i][x]
#define FC_HALF(i) half[i][x]
#define FC_ACROSS(i) half[y][i]
#define FC_POINT(i) (points + (i) * point)
    if (sides == 1) {
        FC_WINOGRAD_POINTS(T, FC_TAP, FC_POINT)
        return;
    }
    FC_NAME(lanes) half[FC_MAX_ALPHA][FC_MAX_TAPS];
    for (int64_t x = 0; x < r; x++) {
        FC_WINOGRAD_POINTS(double, FC_DOWN, FC_HALF)
    }
    for (int64_t y = 0; y < alpha; y++, points += alpha * point) {
        FC_WINOGRAD_POINTS(T, FC_ACROSS, FC_POINT)
    }
#undef FC_TAP
#undef FC_DOWN
#undef FC_HALF
#undef FC_ACROSS
#undef FC_POINT
}
#undef FC_WINOGRAD_POINTS
#undef FC_APART

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

// All input channels of a kernel that is one block, and whose taps lie one after the other: read by transposes, of as
// many channels as adjoin.
static void FC_NAME(winograd_weights_whole)(const fc_winograd_weights *work) {
    const fc_problem *p = work->problem;
    const int64_t r = work->form.r, rows = work->form.sides == 2 ? r : 1, taps = rows * r;
    const int forwards = work->whole > 0;
    const int64_t channels = forwards && p->wei.channel == taps ? FC_NAME(winograd_taps) / taps : 1;
    FC_NAME(taps) g;
    T *out = work->points, *tap = work->taps, turned[FC_MAX_TAPS * FC_MAX_TAPS * FC_NR];
    for (int64_t c0 = 0; c0 < p->in_channels; c0 += channels) {
        const int64_t count = p->in_channels - c0 < channels ? p->in_channels - c0 : channels;
        const T *first = (const T *)work->wei + c0 * p->wei.channel, *next = first + channels * p->wei.channel;
        // tap[j][o] = wei[o][j] for the channels o of a tile.
        FC_NAME(transposed)(forwards ? tap : turned, FC_NR, NULL, forwards ? first : first - (taps - 1), p->wei.outer,
                            work->channels, count * taps);
        for (int64_t j = 0; !forwards && j < taps; j++)
            memcpy(tap + j * FC_NR, turned + (taps - 1 - j) * FC_NR, sizeof(T) * FC_NR);
        // The rows of a tile's channels are too many and too far apart to be foreseen: the next channels are asked for.
        for (int64_t o = 0; forwards && o < work->channels; o++, next += p->wei.outer)
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
