// SPDX-License-Identifier: BSD-3-Clause
//
// kernels.h - what the algorithms ask of an instruction set: one table of functions per ISA and dtype, with the tile
// sizes that go with them.  Kernels allocate nothing, start no threads and decide nothing.
//
// Terms, the same in every file:
//
//   pixel         a position (d, h, w) of an image, of its input or its output, with whatever channels it has
//   row, column   the pixels of one (d, h), and a position along it; of a matrix or a tile of one its i and its j
//   plane         the rows of one channel and one d
//   phase         every stride-th column of a row, every stride-th row of a plane: a phase plane is both
//   tap           a position of the kernel; k of a matrix product runs over taps and input channels
//   tile          what one call computes: m x nr of a matrix, m x m outputs of Winograd's
//   point         of a tile of Winograd's: where its polynomials are evaluated
//   panel         columns of the im2col matrix that have been copied
//   band          neighbouring output rows, with the input rows under them
//   vector, lane  a register, and an element of it
//   element       a number; all distances are in elements but where bytes are said
//   step, pitch   distance of neighbours: as the caller's arrays have them, and as scratch memory has its rows
//
// Two forms of each algorithm: over pixels the lanes of a vector are neighbours along a row, of one channel; over channels
// they are channels of one pixel.  What is named _pixels or _channels is of that form.
//
// The forms of a matrix product compute a tile C[m][columns] += A * B, the first two by broadcasting elements of A against
// vectors of B, the third by vectors of both along k:
//
//   over pixels    A = packed weights, [k][m];            B = pixels, contiguous along a row  -> dst contiguous in w (NCHW)
//   over channels  A = pixels, each a row contiguous in k; B = packed weights, [k][nr]        -> dst contiguous in c (NHWC)
//
//   along          A as over channels; B = the packed weights of one channel, [k]           -> the same, of few channels
//
// They differ only in how A and B are addressed; neither needs the image to be rearranged when it already lies right:
//   over pixels:   B of depth k starts at b + b_offset[k].
//   over channels: A of row i, segment s, depth k is a[a_segment[s] + i * a_row + k]; B runs on through the segments.
// That is all it takes to serve im2col panels, 1x1 convolutions in place and padded rows without im2col alike.
#ifndef FC_KERNELS_H
#define FC_KERNELS_H

#include "problem.h"

enum { FC_MAX_MR = 16, FC_MAX_NR = 64, FC_MAX_ALPHA = 8, FC_MAX_TAPS = 5 };

// `length` columns of a tile, from `column` on, that lie `offset` elements behind the tile's dst pointer.
typedef struct fc_run {
    int64_t column, length, offset;
} fc_run;

typedef struct fc_gemm_tile {
    int64_t m;       // rows, 1 .. mr
    int64_t columns; // of use, 1 .. nr; the others need to be readable all the same, but for gemm_few
    int64_t depth;   // of the k loop (over channels: of one segment)
    const void *a, *b;
    const int64_t *b_offset;  // over pixels: [depth]
    int64_t a_row;            // of a: over channels from row to row, over pixels from k to k
    int64_t segments;         // over channels
    const int64_t *a_segment; // over channels: [segments]

    // What later calls will read: two cache lines at ahead + k * ahead_step are asked for at each step k; over pixels as
    // many as nr elements fill.  Never NULL.
    const void *ahead;
    int64_t ahead_step;    // bytes
    int64_t ahead_segment; // over channels: further bytes behind each segment

    // Partial sums between blocks of k, [m][nr]: read unless `first`, written unless `last`.
    void *sums;
    int first, last;

    // On the last block: dst[row_offset[i] + run.offset + j * column_stride] for every run.
    void *dst;
    const void *residual; // as dst, or NULL
    const int64_t *row_offset;
    const fc_run *runs;
    int64_t run_count, column_stride;
    const void *bias; // of the first row (over pixels) or column (over channels)
    double low, high;
} fc_gemm_tile;

// Weights [out][k] into tiles of `tile` output channels: [k][m] each, m = tile but for the last; `padded` fills the last
// with zeros.  The order of k is (c / block, tap, c % block): block = 1 is channel-major, block = channels tap-major.
typedef struct fc_weight_order {
    int64_t out_channels, channels, block;
    int64_t taps[FC_AXES];
    fc_view view; // strides of the source, elements
    int64_t tile, padded;
    int in_order; // k runs through the weights of an output channel as they lie in memory
    // Or NULL: k does so although the order is another one, and the m of each k go to packed + places[k - k0].
    const int64_t *places;
} fc_weight_order;

// Rows of src times all rows of a matrix, which lies as it is: dst[i][o] = sum over k of src[i][k] * wei[o][k], finished.
// Elements of src are neighbours, and those of wei along k (dot_along) or along o (dot_across).
typedef struct fc_dot {
    int64_t rows, outs, depth;
    const void *src, *wei, *bias, *residual; // bias, one for each output, and residual, laid out as dst, may be NULL
    void *dst;
    int64_t src_row, wei_out, wei_in, dst_row, dst_out;
    double low, high;
} fc_dot;

// A range of output pixels, flat over (image, d, h, w), and the depth range [k0, k1) of its im2col panel.
typedef struct fc_im2col {
    const fc_problem *problem;
    const void *src; // of the group
    int64_t pixel, count;
    int64_t k0, k1;
    void *panel;
    int64_t pitch;      // in the panel, over channels from pixel to pixel, over pixels from k to k
    int64_t panel_step; // over pixels: from the panel of `pitch` pixels to that of the next
} fc_im2col;

// Rows of the input, zero-padded, and over pixels split into the phases of the stride (conv/padded.c gives the layout).
typedef struct fc_pad_copy {
    const fc_problem *problem;
    const void *src; // of the group and image
    int64_t d, h;    // first output row
    int64_t c0, channels;
    int64_t rows, width; // of a plane (over pixels: of a phase plane)
    int bordered;        // over pixels: the padding is zero already
    void *planes;
} fc_pad_copy;

// F(m, r) along rows alone (one side), or along rows and columns (two): m outputs, r taps and alpha = m + r - 1 points
// to a side.  A kernel of more taps is cut into blocks of r to a side, some of which may be filled up with zeros; along the
// other axes every tap is a block.  Where outputs are several inputs apart the taps of a block are, too, and so each block
// sees one phase of the image.
typedef struct fc_winograd_form {
    int64_t m, r, alpha, sides, stride;
    int64_t points;          // of a tile: alpha for each side
    int64_t blocks[FC_AXES]; // of taps
} fc_winograd_form;

// The first tap of a block along a side.
static inline int64_t fc_winograd_tap(const fc_winograd_form *form, int64_t block) {
    return block % form->stride + block / form->stride * form->r * form->stride;
}

typedef struct fc_winograd_tiles {
    const fc_problem *problem;
    fc_winograd_form form;
    const void *src; // of the group; of the weight gradient's output side: the gradient of dst
    void *dst;
    const void *residual, *bias;
    int64_t tiles_h, tiles_w;  // per plane
    int64_t tile, count;       // range of tiles, flat over (image, d, th, tw)
    int64_t channel, channels; // range of channels
    int64_t shift[FC_AXES];    // input: from the first tap of the kernel to that of the block
    const void *wei;           // output: [in channel][tap][nr], the weights of this range as they are
    void *points;              // [point][tile][channel], of input: all channels; of output: this range
    int64_t point, pitch;      // from point to point and from tile to tile
} fc_winograd_tiles;

// Winograd's weights of one tile of output channels, of which `channels` exist: [point][block of taps][in channels][nr].
typedef struct fc_winograd_weights {
    const fc_problem *problem;
    fc_winograd_form form;
    const void *wei; // of the first channel
    int64_t channels;
    int whole;       // 1 or -1: the kernel is one block without zeros, whose taps adjoin forwards or backwards
    const double *g; // [alpha][r]
    void *points;
    int64_t point; // from point to point
    void *taps;    // and as they are: [in channels][tap][nr]
} fc_winograd_weights;

// The end of a weight gradient: r taps to a side of the pairs of `rows` output channels and `columns` input channels, from
// the sums over tiles of each point, [rows][nr], `point` apart, to taps [tap][rows][nr].
typedef struct fc_winograd_taps {
    fc_winograd_form form;
    int64_t rows, columns;
    const double *g; // [alpha][r]
    const void *points;
    int64_t point;
    int64_t slices, slice; // sums of so many, so far apart, are added up
    void *taps;
} fc_winograd_taps;

// Output rows [h, h + rows) of one image and depth; dst and residual point to that image, and over pixels to the channel.
typedef struct fc_depthwise_rows {
    const fc_problem *problem;
    const void *src; // over channels: the image; in place: the first group in it; else the padded rows of the group
    void *dst;
    const void *residual;
    const void *weights, *bias; // packed by conv/depthwise.c
    int64_t d, h, rows;
    int64_t channel, taps; // over pixels: output channel; number of taps of an input channel
    int64_t planes;        // in place: output channels from there on, and elements from one to the next
    int64_t src_plane, dst_plane;
    int64_t pitch; // from padded row to padded row; of tall kernels all rows of a last tile of six can be read
    const int64_t *tap_offset; // where the input of each tap lies in them
} fc_depthwise_rows;

// What output rows [row, end), flat over (image, d, h), add to the sums of the weights' gradient.  src and grad point to the
// channels in question of the first image; over channels there are `channels` of them, and as many inputs to a group.
typedef struct fc_depthwise_grad {
    const fc_problem *problem;
    const void *src, *grad;
    int64_t row, end, channels;
    void *sums;          // added to: [tap][lane] over pixels, [vector of channels][tap][input of the group][lane]
    int64_t tap, vector; // from tap to tap, and from vector to vector
} fc_depthwise_grad;

// All gradients between single channels of the kernels of fc_depthwise_has_steps: inputs of the rows of steps [row, end) of an
// image, and what those add to the sums of the weights' gradient and of the bias'.  src, grad and dst point to the first of
// `channels` in it.
typedef struct fc_depthwise_steps {
    const fc_problem *problem; // of the weights' gradient; strides of 1 or 2
    const fc_view *result;     // the input's gradient
    const void *src, *grad, *weights;
    void *dst;
    int64_t row, end, channels;
    void *sums, *totals; // [vector of channels][tap][lane], as the weights, and [channel]
} fc_depthwise_steps;

// A few output rows of a stencil from extended input rows, each readable up to the whole vectors of `columns`, and
// width - 1 beyond.  Output row r sees rows[t * (height + count - 1) + r + i] of plane t by weights[(t * width + j) *
// height + i].
enum { FC_STENCIL_ROWS = 6 };
typedef struct fc_stencil_rows {
    const void *const *rows;
    const void *weights;
    int64_t depth, height, width; // taps; depth counts planes
    int64_t count, columns;       // output rows, 1 .. FC_STENCIL_ROWS and at most height; output columns
    void *dst;
    int64_t dst_row; // elements from row to row
    int unfused;     // of float64: products are rounded before they are added
} fc_stencil_rows;

// One operation of a map on rows of elements.  Each operand has a first element, elements from row to row, and 1 or 0 from
// column to column; x may be dst.  What comes out is clamped.
typedef struct fc_map_operand {
    const void *at;
    int64_t row, column;
} fc_map_operand;

typedef struct fc_map_rows {
    fc_map_code code;
    double a, b, low, high;
    int64_t rows, columns;
    void *dst; // its columns follow each other
    int64_t dst_row;
    fc_map_operand x, y, z;
} fc_map_rows;

// One step of a recurrent layer (problem.h has its equations) of `count` sequences: input and product are [count][gates]
// [hidden], the others [count][hidden]; memory, of LSTM, is c before and after.
typedef struct fc_cells {
    fc_recurrence kind;
    int64_t count, hidden;
    const void *input, *product, *last;
    void *memory, *dst;
} fc_cells;

// A rectangle of elements copied from anywhere to anywhere, which do not overlap.  All strides are elements.
typedef struct fc_rectangle {
    const void *src;
    void *dst;
    int64_t rows, columns;
    int64_t src_row, src_column, dst_row, dst_column;
} fc_rectangle;

// A row of some channels, summed of rows of every stride-th column and interleaved:
//
//   dst[r + stride * j] = bias + sum over the taps t of phase r with low <= j < high of src[from + j], + residual
//
// and clamped. Channels are src_channel and dst_channel elements apart; a residual lies as dst, and may be dst.
typedef struct fc_weave_tap {
    int64_t from, low, high; // in elements, behind src or before it; which j it has
} fc_weave_tap;

typedef struct fc_weave {
    int64_t channels, stride, columns;
    const int64_t *first; // of `taps`, those of each phase, and behind the last
    const fc_weave_tap *taps;
    const void *src, *bias, *residual;
    void *dst;
    int64_t src_channel, dst_channel;
    double low, high;
} fc_weave;

typedef void fc_weave_fn(const fc_weave *work);
typedef void fc_map_rows_fn(const fc_map_rows *work);
typedef void fc_cells_fn(const fc_cells *work);
typedef void fc_rectangle_fn(const fc_rectangle *work);
typedef void fc_gemm_fn(const fc_gemm_tile *tile);
typedef void fc_pack_weights_fn(const fc_weight_order *order, const void *weights, void *packed, int64_t k0, int64_t k1,
                                int64_t tile);
typedef void fc_dot_fn(const fc_dot *work);
typedef void fc_im2col_fn(const fc_im2col *work);
typedef void fc_pad_copy_fn(const fc_pad_copy *work);
typedef void fc_winograd_fn(const fc_winograd_tiles *work);
typedef void fc_winograd_weights_fn(const fc_winograd_weights *work);
// Whether all sums are finite, and not near to overflowing.
typedef int fc_winograd_taps_fn(const fc_winograd_taps *work);
typedef void fc_depthwise_fn(const fc_depthwise_rows *work);
typedef void fc_depthwise_grad_fn(const fc_depthwise_grad *work);
typedef void fc_depthwise_steps_fn(const fc_depthwise_steps *work);
typedef void fc_stencil_fn(const fc_stencil_rows *work);
typedef void fc_widen_fn(const uint16_t *in, float *out, int64_t count);
typedef void fc_narrow_fn(const float *in, uint16_t *out, int64_t count);
typedef double fc_burn_fn(int64_t rounds);

// One of the forms of the matrix product: what it reads and writes, its tile, and what packs its weights.
typedef struct fc_gemm_kernel {
    fc_types types;
    int64_t mr, nr; // rows and columns of a tile
    int64_t kr; // steps of k that lie together in packed operands, [k / kr][tile][kr]; blocks of k are multiples of it
    fc_gemm_fn *run;
    fc_pack_weights_fn *pack;
} fc_gemm_kernel;

#include "kernels/fold.h"
#include "kernels/pool.h"
#include "kernels/train.h"

typedef struct fc_kernels {
    fc_isa isa;
    fc_dtype dtype;      // that is read, computed with and written
    int64_t element, vl; // its bytes, and lanes of a vector
#define FC_KERNEL(type, name) type *name;
#define FC_SINGLE_KERNEL FC_KERNEL
#define FC_GEMM_KERNEL(name, ...) fc_gemm_kernel name;
#include "kernels/kernels.inc"
#undef FC_GEMM_KERNEL
#undef FC_SINGLE_KERNEL
#undef FC_KERNEL
} fc_kernels;

static inline const fc_gemm_kernel *fc_gemm_kernel_of(const fc_kernels *kernels, int over_channels) {
    return over_channels ? &kernels->gemm_channels : &kernels->gemm_pixels;
}

// NULL where the ISA is not built.
const fc_kernels *fc_kernels_for(fc_isa isa, fc_dtype dtype);

#define FC_TABLES(isa) extern const fc_kernels fc_f32_kernels_##isa, fc_f64_kernels_##isa;
FC_TABLES(scalar)
FC_TABLES(avx2)
FC_TABLES(avx512)
FC_TABLES(neon)
#undef FC_TABLES

#endif
