// SPDX-License-Identifier: BSD-3-Clause
//
// plan.h - the inside of a plan, for the algorithms only.
#ifndef FC_PLAN_H
#define FC_PLAN_H

#include "algo/algo.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FC_ALIGN = 64 };

// Zero-padded rows, split into the phases of the stride (algo/padded.c): what direct and depthwise read instead of the
// image in their pixels forms.
typedef struct fc_padded {
    int64_t rows;       // output rows that they serve
    int64_t rows_extra; // further rows of a phase plane
    int64_t width;      // of a phase plane
    int64_t pixel;      // elements from column to column
    int64_t plane;      // elements of a phase plane
    int64_t elements;   // of all planes, and of `slack` elements that a last vector may read on
} fc_padded;

// A unit of direct convolution: a block of output rows of one (image, depth), and what they read.
typedef struct fc_direct_pixels {
    fc_padded padded;
    int64_t channels; // per block of k
    int64_t bytes;    // of the planes and of the sums between blocks
} fc_direct_pixels;

typedef struct fc_direct_channels {
    int in_place;              // the image's own rows, else a copy
    int64_t rows;              // of output
    int64_t rows_in, width;    // of the copy
    int64_t pixel, row, plane; // distances in elements, of the copy or of the image
    int64_t segment, taps;     // steps of k that are neighbours in memory, and the taps that they join
    int64_t block, span;       // of fc_gemm_layout
} fc_direct_channels;

// The GEMM view of a convolution (algo/gemm.c).
typedef struct fc_gemm_layout {
    const struct fc_gemm_source *source; // where the columns come from
    int channels_form;                   // vectors over channels (NHWC) rather than pixels (NCHW)
    int64_t depth, block, blocks;        // of k: all, per block at most, number of blocks
    int64_t span;                        // no block goes beyond a multiple of it
    int64_t order;                       // fc_weight_order.block
    int64_t out_tile, out_tiles;         // output channels per tile
    int64_t pixels;                      // flat output positions over (image, d, h, w)
    int64_t contiguous;                  // how many flat positions in a row lie side by side in dst
    int64_t group_packed;                // packed elements per group
    int64_t segments;
    double load; // time to load a tile of columns, in multiplications by a tile of weights
    union {
        fc_direct_pixels pixels;
        fc_direct_channels channels;
    } direct;
} fc_gemm_layout;

typedef struct fc_winograd_layout {
    fc_winograd_form form;
    int64_t depth; // of the products: blocks of taps times input channels
    int64_t tiles_h, tiles_w, tiles;
    int64_t row;   // of V: depth, padded
    int64_t parts; // blocks of nr output channels
    int64_t most;  // tiles per chunk at most
    int fused;     // a thread takes a chunk through all stages, or all threads share each stage
} fc_winograd_layout;

// float16 in blocks (algo/half.c): some images, some groups of one image, or a band of rows of one image.
typedef struct fc_half_blocks {
    int64_t images, groups, group_blocks, bands, blocks; // of a block; per image; per image; in all
    int64_t src, dst;                                    // elements of a block in float32
    int64_t axis, rows, in_rows;                         // of a band: along the outermost axis of more than one element
    int64_t src_row, src_planes, dst_row, dst_planes;    // an image is [planes][axis][row] without gaps
} fc_half_blocks;

// A forward problem that does a part of a gradient: offsets in elements, of packed in bytes.
typedef struct fc_part {
    fc_plan *plan;
    int64_t wei, dst;
    size_t packed;
} fc_part;

struct fc_plan {
    fc_problem problem;
    const fc_kernels *kernels;
    const fc_algorithm *algorithm;
    fc_algo_id id;
    fc_costs costs;
    double seconds; // predicted, one thread
    size_t packed_bytes;
    int64_t *table; // GEMM, pixels form: [block] offsets of B; channels form: [segments] offsets of A
    union {
        fc_gemm_layout gemm;
        fc_winograd_layout winograd;
        fc_half_blocks half;
    } layout;
    fc_part *parts; // the problems that gradients fall apart into (algo/backward.c); the float32 one of float16
    int64_t part_count;
};

static inline int64_t fc_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t fc_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t fc_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
// The largest part when `whole` is cut evenly into as few parts of at most `most` as possible.
static inline int64_t fc_even(int64_t whole, int64_t most) {
    return whole ? fc_ceil_div(whole, fc_ceil_div(whole, most)) : 0;
}
static inline int64_t fc_round_up(int64_t a, int64_t b) { return fc_ceil_div(a, b) * b; }
static inline size_t fc_align(size_t bytes) { return (bytes + FC_ALIGN - 1) / FC_ALIGN * FC_ALIGN; }
static inline int64_t fc_taps(const fc_problem *p) { return p->axis[0].kernel * p->axis[1].kernel * p->axis[2].kernel; }
// Whether the weights of an output channel lie in memory as [channel][tap], without gaps.
static inline int fc_weights_adjoin(const fc_problem *p) {
    int64_t stride = 1;
    for (int i = FC_AXES - 1; i >= 0; stride *= p->axis[i].kernel, i--)
        if (p->axis[i].kernel > 1 && p->wei.axis[i] != stride) return 0;
    return p->in_channels == 1 || p->wei.channel == stride;
}
// Of one group.
static inline int64_t fc_weights(const fc_problem *p) { return p->out_channels * p->in_channels * fc_taps(p); }
static inline int64_t fc_positions(const fc_problem *p) { return p->axis[0].out * p->axis[1].out * p->axis[2].out; }
// Multiply-adds of the direct sum.
static inline double fc_macs(const fc_problem *p) {
    return (double)p->batch * (double)p->groups * (double)p->out_channels * (double)p->in_channels *
           (double)fc_taps(p) * (double)fc_positions(p);
}
static inline const void *fc_at(const void *base, int64_t elements, const fc_kernels *kernels) {
    return (const char *)base + elements * kernels->element;
}

// Plans a problem that has been checked, or that was derived from such a one.
fc_status fc_plan_make(const fc_problem *problem, const fc_options *options, fc_plan **plan, char message[FC_MESSAGE]);

// ---------------------------------------------------------------------------------------------------- algo/padded.c

// Whether one output row of one channel takes at most `bytes`: to be asked first, since what follows would overflow.
int fc_padded_fits(const fc_problem *problem, const fc_kernels *kernels, int64_t bytes);
fc_padded fc_padded_rows(const fc_problem *problem, int64_t rows, int64_t channels, int64_t pixel, int64_t slack);
// Where the input of each tap of each plane of channels lies: offsets[channels * taps].
void fc_padded_offsets(const fc_problem *problem, const fc_padded *padded, int64_t channels, int64_t *offsets);

// ------------------------------------------------------------------------------------------------------ algo/gemm.c

// Where the columns of the GEMM come from: what tells im2col, pointwise and direct apart.  A strip is the columns of
// one task; a tile is what one kernel call covers.
typedef struct fc_gemm_strip {
    const fc_plan *plan;
    const void *src; // of the group
    void *panel;
    int64_t first, count; // pixels (im2col, pointwise) or rows flat over (image, d, h) (direct)
    int64_t tiles;
    int64_t k0, k1; // the block of k at hand
} fc_gemm_strip;

// Where a tile comes from, and where it goes in dst.
typedef struct fc_gemm_target {
    int64_t pixels; // in the tile: its rows (channels form) or columns (pixels form)
    int64_t at;     // elements from the start of what is read
    int from;       // which of the two fc_gemm_columns; 1 is pointwise's panel
    int64_t run_count;
    int64_t row_offset[FC_MAX_MR];
    fc_run runs[]; // as many as a tile of the pixels form has columns
} fc_gemm_target;

// A tile's columns lie target->at elements behind `base`; `offset` is fc_gemm_tile's b_offset.
typedef struct fc_gemm_columns {
    const void *base;
    const int64_t *offset;
} fc_gemm_columns;

typedef struct fc_gemm_targets {
    char *base;
    int64_t step; // bytes
} fc_gemm_targets;

static inline fc_gemm_target *fc_gemm_target_at(fc_gemm_targets targets, int64_t tile) {
    return (fc_gemm_target *)(targets.base + tile * targets.step);
}

typedef struct fc_gemm_source {
    int64_t (*units)(const fc_plan *plan);                         // pixels or rows in all
    int64_t (*unit_columns)(const fc_plan *plan);                  // columns per unit
    int64_t (*panel_elements)(const fc_plan *plan, int64_t units); // scratch of a strip
    int64_t (*tiles)(const fc_plan *plan, int64_t first, int64_t count);
    void (*targets)(const fc_gemm_strip *strip, fc_gemm_targets targets); // of all tiles
    void (*load)(const fc_gemm_strip *strip);
    // What all tiles of a block of k share: depth, segments, and where their columns start.
    void (*begin)(const fc_gemm_strip *strip, fc_gemm_tile *tile, fc_gemm_columns columns[2]);
} fc_gemm_source;

// Lays out k, the tiles and the packed weights; `order`, `block` and `span` as in fc_gemm_layout, 0 for the default.
fc_status fc_gemm_layout_make(fc_plan *plan, const fc_gemm_source *source, int channels_form, int64_t order,
                              int64_t block, int64_t span, int64_t table);
size_t fc_gemm_scratch(const fc_plan *plan, int threads);
void fc_gemm_pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads);
void fc_gemm_execute(const fc_plan *plan, const void *src, const void *packed, const void *residual, void *dst,
                     void *scratch, int threads);

// Columns that are output pixels in flat order: shared by im2col and pointwise.
int64_t fc_gemm_flat_units(const fc_plan *plan);
int64_t fc_gemm_flat_unit_columns(const fc_plan *plan);
int64_t fc_gemm_flat_tiles(const fc_plan *plan, int64_t first, int64_t count);
// All but `at` and `from`.
void fc_gemm_flat_targets(const fc_gemm_strip *strip, fc_gemm_targets targets);
// First pixel and number of pixels of a tile.
void fc_gemm_flat_tile(const fc_gemm_strip *strip, int64_t tile, int64_t *first, int64_t *count);

// Which GEMM form suits the strides of dst.
int fc_gemm_channels_form(const fc_problem *problem, const fc_kernels *kernels);
// ------------------------------------------------------------------------------------------------------ algo/cost.c

// Predicted seconds of one thread: arithmetic at what the kernels reach, plus bytes at what the caches give.
double fc_cost_gemm(const fc_problem *problem, const fc_kernels *kernels, const fc_costs *costs, int channels_form,
                    double copy_seconds);
double fc_cost_macs(double macs, const fc_kernels *kernels, const fc_costs *costs);
// Copying `elements` in runs of `run`.
double fc_cost_runs(double elements, int64_t run, const fc_kernels *kernels, const fc_costs *costs);
// Copying them one by one.
double fc_cost_elements(double elements, const fc_costs *costs);
// Reading `bytes` of weights, from the cache level that holds that many.
double fc_cost_weights(double bytes, const fc_costs *costs);

// -------------------------------------------------------------------------------------------------- algo/backward.c

// The sums of its parts.
void fc_backward_explain(const fc_problem *problem, const fc_options *options, fc_verdict verdicts[FC_ALGOS]);
// Splits a gradient into forward problems and plans each.
fc_status fc_backward_layout(fc_plan *plan, const fc_options *options, char message[FC_MESSAGE]);

// ------------------------------------------------------------------------------------------------------ algo/half.c

// Plans the float32 problem of a block by the plan's algorithm, which serves the whole one.
fc_status fc_half_layout(fc_plan *plan, const fc_options *options, char message[FC_MESSAGE]);
// `count` float16 numbers as float32.
void fc_half_widen(const fc_kernels *kernels, const void *in, void *out, int64_t count, int threads);

#endif
