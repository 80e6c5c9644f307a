// SPDX-License-Identifier: BSD-3-Clause
//
// gemm.h - convolution as matrix multiplication, shared by im2col, pointwise and direct:
//
//   C[out channel][pixel] += sum over k = (input channel, tap) of  W[out channel][k] * X[k][pixel]
//
//   layout.c  how k is cut into blocks, and the packed weights      split.c  how the work is cut into tasks
//   pack.c    weights into tiles                                    loop.c   the loop nest of a task
//   flat.c    columns that are output pixels in flat order
//
// Terms: a *tile* is what one kernel call covers, a *strip* the columns of one task, a *unit* what a source counts its
// columns in: pixels (im2col, pointwise) or rows flat over (image, d, h) (direct).
#ifndef FC_GEMM_H
#define FC_GEMM_H

#include "core/plan.h"

enum { FC_BLOCK_K = 256 }; // of k, unless a source wishes otherwise

// The state of a plan.
typedef struct fc_gemm {
    const struct fc_gemm_source *source; // where the columns come from
    const fc_gemm_kernel *kernel;        // what multiplies
    int over_channels;                   // vectors run over channels (NHWC) rather than pixels (NCHW)
    int64_t depth, block, blocks;        // of k: all, per block at most, number of blocks
    int64_t span;                        // no block goes beyond a multiple of it
    int at_lines;                        // tiles of pixels begin at cache lines of the source, but for the first
    int in_passing;                      // weights stay where they are: a task packs each tile when it comes to it
    int64_t order;                       // fc_weight_order.block
    int64_t out_tile, out_tiles;         // output channels per tile
    int64_t pixels;                      // flat output positions over (image, d, h, w)
    int64_t contiguous;                  // how many flat positions in a row lie side by side in dst
    int64_t group_packed;                // packed elements per group
    int64_t segments;
    double load;       // time to load a tile of columns, in multiplications by a tile of weights
    const void *shape; // of the source
    int64_t *table;    // over pixels: [block] offsets of B; over channels: [segments] offsets of A
} fc_gemm;

static inline const fc_gemm *fc_gemm_of(const fc_plan *plan) { return plan->state; }

// What a source asks for: 0 for the default of order, block and span, NULL for the kernel of the form.
typedef struct fc_gemm_wish {
    const struct fc_gemm_source *source;
    const fc_gemm_kernel *kernel;
    int over_channels, at_lines, borrows;
    int64_t order, block, span;
    int64_t table; // elements
    double load;
    const void *shape;
    size_t shape_bytes;
} fc_gemm_wish;

typedef struct fc_gemm_strip {
    const fc_plan *plan;
    const void *src; // of the group
    void *panel;
    int64_t first, count; // units
    int64_t tiles;
    int64_t missing; // columns that the first tile of all has less than others, so that these begin at lines
    int64_t k0, k1;  // the block of k at hand
} fc_gemm_strip;

// Where a tile comes from, and where it goes in dst.
typedef struct fc_gemm_target {
    int64_t pixels; // in the tile: its rows (over channels) or columns (over pixels)
    int64_t at;     // elements from the start of what is read
    int from;       // which of the two fc_gemm_columns; 1 is pointwise's panel
    int64_t run_count;
    int64_t row_offset[FC_MAX_MR];
    fc_run runs[]; // as many as a tile over pixels has columns
} fc_gemm_target;

// A tile's columns lie target->at elements behind `base`; `offset` is fc_gemm_tile's b_offset.  Of columns in the image
// itself, which may have to come from memory: the bytes from step to step of k by which a tile of them can be asked for.
typedef struct fc_gemm_columns {
    const void *base;
    const int64_t *offset;
    int64_t step;
} fc_gemm_columns;

typedef struct fc_gemm_targets {
    char *base;
    int64_t step; // bytes
} fc_gemm_targets;

static inline fc_gemm_target *fc_gemm_target_at(fc_gemm_targets targets, int64_t tile) {
    return (fc_gemm_target *)(targets.base + tile * targets.step);
}

// What tells im2col, pointwise and direct apart.
typedef struct fc_gemm_source {
    int64_t (*units)(const fc_plan *plan);                         // in all
    int64_t (*unit_columns)(const fc_plan *plan);                  // columns per unit
    int64_t (*panel_elements)(const fc_plan *plan, int64_t units); // scratch of a strip
    int64_t (*tiles)(const fc_plan *plan, int64_t first, int64_t count);
    void (*targets)(const fc_gemm_strip *strip, fc_gemm_targets targets); // of all tiles
    void (*load)(const fc_gemm_strip *strip);
    // What all tiles of a block of k share: depth, segments, and where their columns start.
    void (*begin)(const fc_gemm_strip *strip, fc_gemm_tile *tile, fc_gemm_columns columns[2]);
} fc_gemm_source;

// ------------------------------------------------------------------------------------------------------------ layout.c

// Whether vectors should run over channels, for the strides of dst.
int fc_gemm_over_channels(const fc_problem *problem, const fc_kernels *kernels);
// What multiplies over pixels up to so many output channels as few, or more.
const fc_gemm_kernel *fc_gemm_over_pixels(const fc_problem *problem, const fc_kernels *kernels, int64_t few);
// Whether over channels each output channel is better summed by itself, along k, which lies in `segments` of so many steps:
// that of few channels.  Nothing else enters, so that an image's bits are the same in bands, in batches and by itself.
int fc_gemm_along(const fc_problem *problem, const fc_kernels *kernels, const fc_machine *machine, int64_t segments,
                  int64_t steps);
// Predicted seconds of that product.
double fc_gemm_along_cost(const fc_request *request, int64_t segments, int64_t steps);
// By what factor a 1x1 product over pixels of planes so many elements apart takes longer: planes that do not begin at a cache
// line share lines with the columns beside a tile, and where those of a block of k are more than L1 holds, they come from L2
// for each tile of output channels, which tiles of few multiplications wait for.
double fc_gemm_read_again(const fc_request *request, int64_t plane);
// Whether two plans of one algorithm add the same products in the same order.
int fc_gemm_sums_alike(const fc_gemm *a, const fc_gemm *b);
// Lays out k, the tiles and the packed weights; the caller fills in `table` behind it.
fc_status fc_gemm_layout(fc_plan *plan, const fc_gemm_wish *wish);
int64_t fc_gemm_packed_channels(const fc_plan *plan);
// The depths [k0, k1) of a block, and blocks of a span.
void fc_gemm_block(const fc_gemm *gemm, int64_t block, int64_t *k0, int64_t *k1);
int64_t fc_gemm_blocks_per_span(const fc_gemm *gemm);
// Bytes from the start of what is packed to the weights, or to their address; the bias comes first.
size_t fc_gemm_bias_bytes(const fc_plan *plan);

// ------------------------------------------------------------------------------------------------- verbs of the kinds

fc_status fc_gemm_pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads); // pack.c
// A tile of the weights of a group, by the depths [k0, k1).
void fc_gemm_pack_tile(const fc_plan *plan, const void *wei, int64_t tile, int64_t k0, int64_t k1,
                       void *packed); // pack.c
// Within a call instead: a stage that packs the weights at list->at.other[0], without a bias, to list->at.wei.
void fc_gemm_pack_stage(const fc_plan *plan, fc_list *list);          // pack.c
void fc_gemm_stages(const fc_plan *plan, int threads, fc_list *list); // loop.c
const char *fc_gemm_form(const fc_plan *plan);                        // layout.c

// ------------------------------------------------------------------------------------------------------------- split.c

// How the work of a plan is cut into tasks.
typedef struct fc_gemm_split {
    int64_t all, step, steps;     // units; units that fill a tile; steps in all
    int64_t strips;               // which share the steps evenly
    int64_t channel_parts;        // parts of the output channels
    int64_t tiles, tile_elements; // at most, per strip
    int64_t target;               // bytes of an fc_gemm_target
    size_t panel_bytes, sums_bytes, targets_bytes, weights_bytes;
    // Neighbouring tasks are parts of a strip, so that a thread has pixels of its own, which it finds in its cache in the
    // next layer, and every thread reads all weights; or strips of a part, where these are more than caches hold.
    int pixels_first;
} fc_gemm_split;

fc_gemm_split fc_gemm_split_for(const fc_plan *plan, int threads);
// First unit of a strip: strips end with full tiles, and differ by one step at most.
static inline int64_t fc_gemm_strip_start(const fc_gemm_split *s, int64_t strip) {
    return fc_min(s->all, strip * s->steps / s->strips * s->step);
}

// -------------------------------------------------------------------------------------------------------------- flat.c

int64_t fc_gemm_flat_units(const fc_plan *plan);
int64_t fc_gemm_flat_unit_columns(const fc_plan *plan);
int64_t fc_gemm_flat_tiles(const fc_plan *plan, int64_t first, int64_t count);
// All but `at` and `from`.
void fc_gemm_flat_targets(const fc_gemm_strip *strip, fc_gemm_targets targets);
// First pixel and number of pixels of a tile.
void fc_gemm_flat_tile(const fc_gemm_strip *strip, int64_t tile, int64_t *first, int64_t *count);
// All columns of a strip, for panels of the kernel's tiles over pixels.
fc_im2col fc_gemm_flat_columns(const fc_gemm_strip *strip);

#endif
