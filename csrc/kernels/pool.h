// SPDX-License-Identifier: BSD-3-Clause
//
// pool.h - what the pooling kernels are asked, and where windows lie.
#ifndef FC_POOL_H
#define FC_POOL_H

#include "problem.h"

// Elements of the line that is pooled in one go: with what belongs to it, it stays in the first-level cache and on the
// stack, of which some systems give a thread but 128 KiB.  And those that are summed in one go, where none is copied.
enum { FC_POOL_LINE = 512, FC_POOL_SPAN = 1024 };

// Input rows of a band, output rows of one whose windows share none, and input rows of one whose lanes are channels unless
// windows are high: images that come from memory took up to twice as long by 31 rows in turns.
enum { FC_POOL_BAND = 32, FC_POOL_ALONE = 8, FC_POOL_FEW = 7 };
// The widest windows that bands of columns are for; elements of a window that is searched without branches.
enum { FC_POOL_TAPS = 32, FC_POOL_SMALL = 32 };

// A range of output rows, flat over (d, h), in a range of channels of one image; in kernels for windows of any size also
// a range of columns, since a row of those may take seconds.  The pointers are the whole arrays'.
typedef struct fc_pool_work {
    const fc_pool *pool;
    const void *src;
    void *dst;
    int64_t *indices;
    int64_t image, channel, channels, row, rows, column, columns;
} fc_pool_work;

// Lines of outputs that pool_gather keeps: those whose windows share an input row.
enum { FC_POOL_OVER = 16 };

// All of a range of channels of one image, whose d_src nobody else writes.  Those of averages that spread are called for
// a range of outputs at a time, the first of which finds nothing in d_src yet; pool_gather for a range of rows of inputs,
// with scratch of fc_pool_gather_scratch().
typedef struct fc_pool_grad {
    const fc_pool *pool;
    const void *d_dst;
    const int64_t *indices;
    void *d_src, *scratch;
    int64_t image, channel, channels, row, rows, column, columns;
} fc_pool_grad;

typedef void fc_pool_fn(const fc_pool_work *work);
typedef int fc_pool_max_grad_fn(const fc_pool_grad *work); // whether all indices lay in the plane
typedef void fc_pool_avg_grad_fn(const fc_pool_grad *work);

// The inputs start, start + step, ... under one window, along one axis.
typedef struct fc_window {
    int64_t start, taps, step;
} fc_window;

static inline fc_window fc_pool_window(const fc_pool *pool, int axis, int64_t i) {
    const fc_axis *a = &pool->axis[axis];
    if (pool->adaptive) {
        const int64_t start = i * a->in / a->out, stop = ((i + 1) * a->in + a->out - 1) / a->out;
        return (fc_window){start, stop - start, 1};
    }
    fc_window w = {i * a->stride - a->pad, a->kernel, a->dilation};
    if (w.start < 0) {
        const int64_t skipped = (-w.start + w.step - 1) / w.step;
        w.start += skipped * w.step;
        w.taps -= skipped;
    }
    if (w.start + (w.taps - 1) * w.step >= a->in) w.taps = (a->in - w.start + w.step - 1) / w.step;
    return w;
}

// The windows that hold an input, along one axis: first <= i < end.
typedef struct fc_over {
    int64_t first, end;
} fc_over;

// Of windows without dilation.
static inline fc_over fc_pool_over(const fc_pool *pool, int axis, int64_t x) {
    const fc_axis *a = &pool->axis[axis];
    if (pool->adaptive) return (fc_over){x * a->out / a->in, ((x + 1) * a->out - 1) / a->in + 1};
    const int64_t behind = x + a->pad - a->kernel, last = (x + a->pad) / a->stride;
    return (fc_over){behind < 0 ? 0 : behind / a->stride + 1, last < a->out ? last + 1 : a->out};
}

// How many they are at most.
static inline int64_t fc_pool_overlap(const fc_pool *pool, int axis) {
    const fc_axis *a = &pool->axis[axis];
    const int64_t most = !pool->adaptive                          ? (a->kernel - 1) / a->stride + 1
                         : a->in >= a->out && a->in % a->out == 0 ? 1
                                                                  : (a->out - 1) / a->in + 2;
    return most < a->out ? most : a->out;
}

// Whether every input lies in just one window.
static inline int fc_pool_tiles(const fc_pool *pool) {
    for (int i = 0; i < FC_AXES; i++) {
        const fc_axis *a = &pool->axis[i];
        if (fc_pool_overlap(pool, i) > 1) return 0;
        if (pool->adaptive) continue;
        if (a->dilation > 1 || (a->out > 1 && a->kernel < a->stride)) return 0;
        if ((a->out - 1) * a->stride - a->pad + a->kernel < a->in) return 0;
    }
    return 1;
}

// Elements of scratch that pool_gather needs for so many channels.
static inline int64_t fc_pool_gather_scratch(const fc_pool *pool, int64_t channels) {
    return fc_pool_overlap(pool, 0) * fc_pool_overlap(pool, 1) * pool->axis[2].out * channels;
}

// Whether a window holds an element: a wide dilation can step over the input, from padding to padding.
static inline int fc_pool_sees(const fc_window w[FC_AXES]) { return w[0].taps && w[1].taps && w[2].taps; }

// Whether that is so of all windows along an axis.  Of those that start in the padding the first reaches least far.
static inline int fc_pool_hits(const fc_pool *pool, int axis) {
    const fc_axis *a = &pool->axis[axis];
    for (int64_t i = 0; i < (a->dilation > a->in ? a->out : 1) && i * a->stride < a->pad; i++)
        if (!fc_pool_window(pool, axis, i).taps) return 0;
    return 1;
}

// Whether windows have rows in common, and not too many of them for a band.
static inline int fc_pool_shares_rows(const fc_pool *pool) {
    const fc_axis *d = &pool->axis[0], *h = &pool->axis[1];
    return !pool->adaptive && h->kernel > h->stride && (h->kernel - 1) * h->dilation < FC_POOL_BAND / d->kernel;
}

// Output rows that a band has at most, with no more than so many input rows of each depth.
static inline int64_t fc_pool_band_rows(const fc_pool *pool, int64_t most) {
    const fc_axis *h = &pool->axis[1];
    const int64_t room = FC_POOL_BAND / pool->axis[0].kernel;
    if (!fc_pool_shares_rows(pool)) return FC_POOL_ALONE;
    return ((most < room ? most : room) - 1 - (h->kernel - 1) * h->dilation) / h->stride + 1;
}

// What a window adds to the divisor of an average, as a factor per axis.
static inline int64_t fc_pool_count(const fc_pool *pool, int axis, int64_t i) {
    const fc_axis *a = &pool->axis[axis];
    if (pool->divisor) return axis == 0 ? pool->divisor : 1;
    if (pool->adaptive || !pool->count_include_pad) return fc_pool_window(pool, axis, i).taps;
    const int64_t start = i * a->stride - a->pad, room = a->in + pool->pad_after[axis] - start;
    return (a->kernel - 1) * a->dilation < room ? a->kernel : (room + a->dilation - 1) / a->dilation;
}

#endif
