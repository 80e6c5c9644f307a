// SPDX-License-Identifier: BSD-3-Clause
//
// problem.h - what can be asked for: convolutions, pooling, stencils, elementwise maps, reductions, norms, resizing, matrix
// products and recurrent layers, as plain numbers.
//
// One equation covers every direction and every layout.  For each group g, image n, output channel o and output
// position (d, h, w):
//
//   dst[g,n,o,d,h,w] = activation( bias[g,o] + residual[g,n,o,d,h,w]
//       + sum over c,i,j,k of  wei[g,o,c,i,j,k] * src[g,n,c, d*sd - pd + i*ed, h*sh - ph + j*eh, w*sw - pw + k*ew] )
//
// where (s, p, e) are stride, padding and dilation of an axis and reads outside src are zero.  All three tensors are
// addressed through explicit strides, so NCHW, NHWC, sub-views, flipped and transposed weights are the same problem.
// The gradients are the same equation with the tensors' roles exchanged (grad/views.c).  1-D and 2-D convolutions
// are 3-D ones whose missing axes have size one.
#ifndef FC_PROBLEM_H
#define FC_PROBLEM_H

#include <stdint.h>

typedef enum fc_dtype {
    FC_F32 = 0,
    FC_F64,
    FC_DTYPES,         // so many are computed with; others are in memory only
    FC_F16 = FC_DTYPES // and float32 where they are computed with
} fc_dtype;

static inline int64_t fc_bytes(int32_t dtype) { return dtype == FC_F64 ? 8 : dtype == FC_F32 ? 4 : 2; }

// What the numbers of a convolution are, each an fc_dtype: the input, the weights, the sums of their products, and the
// output. A residual is as the output, and so is a bias.
typedef struct fc_types {
    int32_t source, weight, accumulator, destination;
} fc_types;

// Tensors of one dtype, summed in it, or float16 in float32.
static inline fc_types fc_types_of(int32_t dtype) {
    return (fc_types){dtype, dtype, dtype == FC_F16 ? FC_F32 : dtype, dtype};
}
static inline int fc_types_equal(fc_types a, fc_types b) {
    return a.source == b.source && a.weight == b.weight && a.accumulator == b.accumulator &&
           a.destination == b.destination;
}

typedef enum fc_isa { FC_SCALAR = 0, FC_AVX2, FC_AVX512, FC_NEON, FC_ISAS } fc_isa;

typedef enum fc_direction { FC_FORWARD, FC_BACKWARD_INPUT, FC_BACKWARD_WEIGHT, FC_DIRECTIONS } fc_direction;

enum { FC_AXES = 3 };

// One spatial axis.  `out` is given, so padding on the far side is implied: whatever a window reads past `in` is zero.
// `pad` may be negative (a crop); the gradients by phases need that.
typedef struct fc_axis {
    int64_t in, out, kernel, stride, dilation, pad;
} fc_axis;

// Strides in elements; any sign, up to 2^48.  For weights `outer` steps output channels, for src and dst it steps images.
typedef struct fc_view {
    int64_t group, outer, channel, axis[FC_AXES];
} fc_view;

typedef struct fc_problem {
    int64_t batch, groups;
    int64_t in_channels, out_channels; // per group
    fc_axis axis[FC_AXES];             // depth, height, width
    fc_view src, wei, dst;
    fc_types types;    // of one dtype (fc_types_of); float16 forward only, and without gaps
    int32_t direction; // fc_direction; for the gradients the fields describe the forward convolution
    // One of FC_ACTIVATION_LIST, an operation of maps: a clamp is applied as numbers are stored, the others to what was
    // stored (conv/activate.h).
    int32_t activation;
    double low, high; // of FC_MAP_CLAMP: (-inf, inf) none, (0, inf) relu, (0, 6) relu6; infinite for the others
    double alpha;     // the number of the others, if they have one
    // Whether dst has the maxima, as fc_pool has them, of each two rows and two columns of what the equation says, whose
    // numbers are even then: forward, clamped at most, without a residual.
    int32_t pooled;
} fc_problem;

// All gradients of a layer in one call (grad/layer.c): both problems are of the same convolution, the first in direction
// FC_BACKWARD_WEIGHT and the second FC_BACKWARD_INPUT.  src and wei of the call are those of the first, the input and the
// output's gradient, and other[0] the weights; dst is the gradient of the input and `further` that of the weights,
// `second` elements behind which the gradient of the bias lies side by side, unless `second` is negative.
typedef struct fc_layer_gradient {
    fc_problem weight, input;
    int64_t second;
} fc_layer_gradient;

// Pooling (pool/pool.c): the same axes.  A window is cut to the input, so padding is never a maximum and adds nothing to
// a sum; `out` is given here too, and whoever rounds it up makes sure that each window starts before the end of the
// input.  A window of a maximum may step over all of it: minus infinity, at -1.
typedef enum fc_pool_kind { FC_POOL_MAX = 0, FC_POOL_AVG } fc_pool_kind;

typedef struct fc_pool {
    int64_t batch, channels;
    fc_axis axis[FC_AXES];
    fc_view src, dst, index; // group unused; of the gradients when running backwards
    int32_t dtype, kind;
    int32_t direction;         // forward, or FC_BACKWARD_INPUT: from the gradient of dst to that of src
    int32_t indexed;           // maximum, forward: indices are wanted
    int32_t adaptive;          // window i is [floor(i * in / out), ceil((i + 1) * in / out)); kernel .. pad unused
    int32_t count_include_pad; // average: the padding counts too, `pad` before the input and `pad_after` behind it
    int64_t pad_after[FC_AXES];
    int64_t divisor; // average: what to divide by, or 0 for the number of elements
} fc_pool;

// Forward, `index` of a maximum gets positions in the flat input plane (d, h, w in row-major order); the first among
// equals wins, and the last NaN over everything.  Backward, src of the call is the gradient of the output, and all of dst
// is written.

// Stencils (stencil/stencil.c): one channel, any number of axes up to FC_RANK, borders as image filters have them:
//
//   dst[o] = sum over k of wei[k] * ext(src)[o + offset + k],  o, offset and k one number per axis
//
// where ext continues src beyond its borders, axis by axis: by `fill`, by its last element, mirrored about its edge or
// about the centre of its last element, or periodically.
typedef enum fc_border {
    FC_BORDER_CONSTANT = 0,
    FC_BORDER_NEAREST,
    FC_BORDER_REFLECT,
    FC_BORDER_MIRROR,
    FC_BORDER_WRAP,
    FC_BORDERS
} fc_border;

enum { FC_RANK = 8 };

typedef struct fc_stencil_axis {
    int64_t in, out, kernel, offset;
    int64_t src, dst; // strides in elements; of the last axis dst must be 1
    int32_t border;
} fc_stencil_axis;

typedef struct fc_stencil {
    int32_t rank, dtype;
    // The kernel is an outer product over the last two axes and has one tap along the others; the weights are those of
    // the last but one axis, then those of the last.  Rows are summed first; what lies beyond the columns of sums is the
    // fill times the sum of the last axis' weights, if the whole is to be the dense sum, or whatever else is asked for.
    int32_t separable;
    int32_t unfused;        // float64 alone: round products before they are added
    double fill, fill_rows; // fill_rows: of the sums, separable only
    fc_stencil_axis axis[FC_RANK];
} fc_stencil;

// Weights are given contiguous; there is no bias.  dst must not overlap src.

// Maps (map/map.c): a chain of operations on each element of an array, up to three more of which may take part,
//
//   x = src[i];  x = op_k(x, other[with[0]][i], other[with[1]][i]) for each k in turn;  dst[i] = x
//
// where i runs over `rank` axes, along each of which every operand has a stride of its own: of any sign, and 0 where it is
// repeated.  Without operations a map is a copy, whatever the order of its axes.  dst may be src, but overlap nothing else.
//
// Operations are listed with the number of operands that they take; a and b are numbers of theirs.
#define FC_MAP_LIST(X)                                                                                                 \
    X(CLAMP, clamp, 1)   /* max(a, min(b, x)); NaN stays */                                                            \
    X(AFFINE, affine, 1) /* a * x + b */                                                                               \
    X(ABS, abs, 1)                                                                                                     \
    X(NEG, neg, 1)   /* -x */                                                                                          \
    X(SIGN, sign, 1) /* -1, 0 or 1 */                                                                                  \
    X(SQUARE, square, 1)                                                                                               \
    X(SQRT, sqrt, 1)                                                                                                   \
    X(RSQRT, rsqrt, 1) /* 1 / sqrt(x) */                                                                               \
    X(RECIPROCAL, reciprocal, 1)                                                                                       \
    X(FLOOR, floor, 1)                                                                                                 \
    X(CEIL, ceil, 1)                                                                                                   \
    X(ROUND, round, 1) /* to the nearest, of two the even one */                                                       \
    X(EXP, exp, 1)                                                                                                     \
    X(LOG, log, 1)                                                                                                     \
    X(ERF, erf, 1)                                                                                                     \
    X(TANH, tanh, 1)                                                                                                   \
    X(SIGMOID, sigmoid, 1)                 /* 1 / (1 + exp(-x)) */                                                     \
    X(SILU, silu, 1)                       /* x * sigmoid(x) */                                                        \
    X(SILU_SLOPE, silu_slope, 1)           /* its derivative */                                                        \
    X(HARDSWISH, hardswish, 1)             /* x * min(max(x + 3, 0), 6) / 6 */                                         \
    X(HARDSWISH_SLOPE, hardswish_slope, 1) /* its derivative, 0 at -3 and 1 at 3 */                                    \
    X(LEAKY_RELU, leaky_relu, 1)           /* x where positive, else a * x */                                          \
    X(ELU, elu, 1)                         /* x where positive, else a * (exp(x) - 1) */                               \
    X(GELU, gelu, 1)                       /* x / 2 * (1 + erf(x / sqrt(2))) */                                        \
    X(GELU_TANH, gelu_tanh, 1)             /* x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) */               \
    X(SOFTPLUS, softplus, 1)               /* log(1 + exp(x)) */                                                       \
    X(MISH, mish, 1)                       /* x * tanh(softplus(x)) */                                                 \
    X(ADD, add, 2)                         /* x + y */                                                                 \
    X(SUB, sub, 2)                         /* x - y */                                                                 \
    X(RSUB, rsub, 2)                       /* y - x */                                                                 \
    X(MUL, mul, 2)                         /* x * y */                                                                 \
    X(DIV, div, 2)                         /* x / y */                                                                 \
    X(RDIV, rdiv, 2)                       /* y / x */                                                                 \
    X(MIN, min, 2)                         /* NaN if either is */                                                      \
    X(MAX, max, 2)                         /* NaN if either is */                                                      \
    X(PRELU, prelu, 2)                     /* x where positive, else y * x */                                          \
    X(WHERE_ABOVE, where_above, 2)         /* x where y > a or NaN, else 0 */                                          \
    X(WHERE_BELOW, where_below, 2)         /* x where y < a or NaN, else 0 */                                          \
    X(LEAKY_SLOPE, leaky_slope, 2)         /* x where y > 0 or NaN, else a * x */                                      \
    X(FMA, fma, 3)                         /* x * y + z */

typedef enum fc_map_code {
#define FC_MAP(id, name, operands) FC_MAP_##id,
    FC_MAP_LIST(FC_MAP)
#undef FC_MAP
        FC_MAP_CODES
} fc_map_code;

// What convolutions finish their results with.
#define FC_ACTIVATION_LIST(X)                                                                                          \
    X(CLAMP)                                                                                                           \
    X(SIGMOID)                                                                                                         \
    X(SILU)                                                                                                            \
    X(HARDSWISH)                                                                                                       \
    X(LEAKY_RELU)                                                                                                      \
    X(ELU)                                                                                                             \
    X(GELU)                                                                                                            \
    X(GELU_TANH)                                                                                                       \
    X(TANH)                                                                                                            \
    X(SOFTPLUS)                                                                                                        \
    X(MISH)

enum { FC_OTHERS = 3, FC_MAP_MOST = 8 };

typedef struct fc_map_op {
    int32_t code;    // fc_map_code
    int32_t with[2]; // which of the others y and z are
    double a, b;
} fc_map_op;

typedef struct fc_map_axis {
    int64_t size, src, dst, other[FC_OTHERS]; // strides in elements
} fc_map_axis;

typedef struct fc_map {
    int32_t dtype, rank, others, count; // of operations
    fc_map_axis axis[FC_RANK];
    fc_map_op op[FC_MAP_MOST];
} fc_map;

// Arrays of any axes, some of which are folded (fold/): axes in any order, at most FC_RANK of them.
typedef struct fc_fold_axis {
    int64_t count;
    int64_t src, dst, wei; // strides in elements; 0 where a tensor has but one entry for all of the axis
    int32_t folded;
} fc_fold_axis;

// Reductions (fold/reduce.c): one number of all elements along the folded axes, in dst, whose strides along those are not
// used.  An extreme that meets NaN is NaN; of no elements a sum is 0 and a product 1, and extremes are refused.
//
// FC_REDUCE_THROUGH is the gradient below a clamp whose result is other[0], laid out by `wei`: dst, of the size of src,
// takes src where that result is NaN or above `low` and, if it is finite, below `high`, and else 0; and `second` elements
// behind dst lie side by side the sums of what it took, of each channel, the one axis that is not folded.
typedef enum fc_reduce_kind {
    FC_REDUCE_SUM = 0,
    FC_REDUCE_MEAN,
    FC_REDUCE_MAX,
    FC_REDUCE_MIN,
    FC_REDUCE_PRODUCT,
    FC_REDUCE_SQUARES, // sum of x^2
    FC_REDUCE_L1,      // sum of |x|
    FC_REDUCE_L2,      // sqrt of the sum of x^2
    FC_REDUCE_LOG_SUM_EXP,
    FC_REDUCE_MOMENTS, // the mean, and `second` elements behind it the mean of (x - mean)^2
    FC_REDUCE_THROUGH,
    FC_REDUCES
} fc_reduce_kind;

typedef struct fc_reduce {
    int32_t rank, dtype, kind;
    int64_t second;
    double low, high;
    fc_fold_axis axis[FC_RANK];
} fc_reduce;

// Normalisation (fold/norm.c) over the folded axes: with m the mean, v the mean of (x - m)^2 and q that of x^2,
//
//   FC_NORM_STANDARD     dst = (src - m) / sqrt(v + eps) * scale + shift
//   FC_NORM_RMS          dst = src / sqrt(q + eps) * scale + shift
//   FC_NORM_SOFTMAX      dst = exp(src - max) / sum of exp(src - max)
//   FC_NORM_LOG_SOFTMAX  dst = src - max - log(sum of exp(src - max))
//
// Except of softmax, scale and shift are the call's other[0] and other[1], both or neither, laid out by `wei`.  dst may be
// src if it is laid out alike.
typedef enum fc_norm_kind {
    FC_NORM_STANDARD = 0,
    FC_NORM_RMS,
    FC_NORM_SOFTMAX,
    FC_NORM_LOG_SOFTMAX,
    FC_NORMS
} fc_norm_kind;

typedef struct fc_norm {
    int32_t rank, dtype, kind;
    double eps;
    fc_fold_axis axis[FC_RANK];
} fc_norm;

// Batch norm in training (fold/batch_norm.c): one axis is kept, the channels, the others are folded.  With d = x - mean and
// n = d * scale + shift of each channel,
//
//   FC_BATCH_MOMENTS  dst[0], dst[1] = the mean of x, and that of d^2
//   FC_BATCH_FORWARD  dst = clamp(n + r)
//   FC_BATCH_SUMS     dst[0], dst[1] = the sum of m, and that of m * d, where m is g where the clamp left n as it was, else 0
//   FC_BATCH_BACKWARD dst = a * m + b * d + c
//   FC_BATCH_TRAIN    MOMENTS, then FORWARD with mean, and scale = gain / sqrt(mean of d^2 + eps)
//   FC_BATCH_GRADIENT SUMS, then BACKWARD with a = gain * q, b = -a * q * q * (sum of m * d) / n, c = -a * (sum of m) / n
//
// where src is x, other[0] is r (or NULL) or g, laid out by `wei`, and other[1] is [6][channels]: mean, scale, shift, a, b, c.
// Of dst, which may be other[0] if it is laid out alike, MOMENTS' and SUMS' results lie `second` elements apart.  The last two
// kinds, of n > 0 numbers a channel, have these vectors in `further`, and three behind them: the mean of d^2, the sum of m,
// and q * (sum of m * d), with q = 1 / sqrt(mean of d^2 + eps), which are the gradients of shift and gain.  TRAIN reads shift
// and writes mean, scale and the mean of d^2; GRADIENT reads those, and writes the others.  There other[1] is gain, or NULL: 1.
typedef enum fc_batch_kind {
    FC_BATCH_MOMENTS = 0,
    FC_BATCH_FORWARD,
    FC_BATCH_SUMS,
    FC_BATCH_BACKWARD,
    FC_BATCH_TRAIN,
    FC_BATCH_GRADIENT,
    FC_BATCH_KINDS
} fc_batch_kind;

enum { FC_BATCH_VECTORS = 6, FC_BATCH_ROWS = 9 };

typedef struct fc_batch_norm {
    int32_t rank, dtype, kind;
    int64_t second;
    double low, high; // of the clamp; infinite: none
    double eps;       // of FC_BATCH_TRAIN and FC_BATCH_GRADIENT
    fc_fold_axis axis[FC_RANK];
} fc_batch_norm;

// Local response normalisation (lrn/lrn.c) along the one axis that is folded, the channels:
// dst[c] = src[c] / (k + share * sum of src[j]^2)^beta, over c - before <= j <= c + after where there are such channels.
// dst must not overlap src.  With s[c] the sum of shares and k, the gradient, of g, other[0], which is laid out by `wei`, is
//
//   dst[c] = g[c] / s[c]^beta - 2 * share * beta * src[c] * sum of g[j] * src[j] / s[j]^(beta + 1)
//
// over c - after <= j <= c + before; there dst may be other[0] if it is laid out alike.
typedef struct fc_lrn {
    int32_t rank, dtype, gradient;
    int64_t before, after;
    double share, beta, k;
    fc_fold_axis axis[FC_RANK];
} fc_lrn;

// Resizing (resize/resize.c): of each axis, output i is the sum over t < taps of weight[t * out + i] * src[index[t * out +
// i]].  Tables are copied into the plan; a weight of zero leaves out its term, and weights that are NULL are one tap of 1.
// dst must not overlap src.
typedef struct fc_resize_axis {
    int64_t in, out, taps;
    const int32_t *index;
    const double *weight;
} fc_resize_axis;

typedef struct fc_resize {
    int32_t dtype;
    int64_t batch, channels;
    fc_view src, dst; // group unused
    fc_resize_axis axis[FC_AXES];
} fc_resize;

// Matrix products (product/product.c) of pairs of matrices that a call hands over, src and other[0]:
//
//   dst[b, i, j] = sum over k of  src[b, i, k] * other[0][b, k, j]
//
// Strides are those of the pairs, the rows and the columns of each.  dst must not overlap what is read.
typedef struct fc_product {
    int32_t dtype;
    int64_t pairs, rows, depth, columns;
    int64_t src[3], other[3], dst[3];
} fc_product;

// Recurrent layers (recurrent/recurrent.c): with h and c the state of each of `batch` sequences, from step to step, x[t] of
// src and r = the packed weights times h plus their bias,
//
//   FC_LSTM  i, o, f = sigmoid(x + r) and g = tanh(x + r), the four gates;  c = f * c + i * g;  h = o * tanh(c)
//   FC_GRU   z, s = sigmoid(x + r) and n = tanh(x + s * r), the three gates;  h = (1 - z) * n + z * h
//
// All arrays are without gaps: src [directions][steps][batch][gates][hidden], weights [directions][gates * hidden][hidden],
// other[0] the h before the first step and other[1] the c, [directions][batch][hidden]; and dst, the h of all steps,
// [steps][directions][batch][hidden], of LSTM with the last c behind it, [directions][batch][hidden].
typedef enum fc_recurrence { FC_LSTM = 0, FC_GRU, FC_RECURRENCES } fc_recurrence;

typedef struct fc_recurrent {
    int32_t dtype, kind;
    int64_t steps, directions, batch, hidden;
    int64_t backward; // of the bits of this number, those of the directions that go from the last step to the first
} fc_recurrent;

// Softmax cross-entropy with indices of classes (loss/cross_entropy.c) of rows (n, i) of numbers src[n][c][i], with the
// weight w of each class, or 1, the smoothing s, and t the index of a row:
//
//   W[c] = w[c] * ((c == t ? 1 - s : 0) + s / classes);  loss = sum of W[c] * (log of the sum of exp(src) - src[c])
//   d[c] = g * (softmax(src)[c] * (sum of W) - W[c])
//
// where classes of which W is 0 count for nothing, whatever their numbers are.  Rows whose index is `ignore` have W = 0.
typedef struct fc_cross_entropy {
    int32_t dtype;
    int64_t outer, classes, inner, step[3]; // the strides of src
    const void *src;
    const int64_t *target; // [outer][inner]
    const void *weight;    // [classes], or NULL
    int64_t ignore;
    double smoothing;
    double *loss;       // [outer][inner], or NULL
    void *d;            // [outer][classes][inner], or NULL
    const double *grad; // g: of each row, or if not `each` of all
    int each, mean;     // mean: g is divided by `divisor`; of nothing it is 0
    // Filled in: the sum of losses, and that of w over the rows that count.
    double total, divisor;
} fc_cross_entropy;

// A step of an optimiser (update/update.c) on parameters p with gradient g and what is remembered of each, in `state`.
//
//   FC_UPDATE_SGD   d = g + decay * p;  v = momentum * v + keep * d, or d where it is fresh;
//                   p -= rate * v, or rate * (d + momentum * v) if nesterov; without v, rate * d
//   FC_UPDATE_ADAM  p *= shrink;  d = g + decay * p;  m = momentum * m + (1 - momentum) * d;
//                   v = square * v + (1 - square) * d^2;  w = max(w, v), or v without w;  p -= rate * m / (sqrt(w) * root + eps)
typedef enum fc_update_kind { FC_UPDATE_SGD = 0, FC_UPDATE_ADAM, FC_UPDATES } fc_update_kind;

typedef struct fc_update_rule {
    int32_t kind, nesterov;
    double rate, decay, momentum, keep, shrink, square, root, eps;
} fc_update_rule;

enum { FC_UPDATE_STATES = 3 };

// Arrays of as many elements without gaps, in one order, none of which overlaps another.
typedef struct fc_update_arrays {
    const fc_update_rule *rule;
    int32_t dtype, fresh;
    int64_t count; // elements
    void *p;
    const void *g;
    void *state[FC_UPDATE_STATES]; // v; m, v, w; or NULL
    int64_t task;                  // of fc_update: its first
} fc_update_arrays;

#endif
