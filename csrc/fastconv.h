// SPDX-License-Identifier: BSD-3-Clause
//
// fastconv.h - the public C interface: problem -> plan -> pack -> execute.
//
// One equation covers every direction and every layout.  For each group g, image n, output channel o and output
// position (d, h, w):
//
//   dst[g,n,o,d,h,w] = clamp( bias[g,o] + residual[g,n,o,d,h,w]
//       + sum over c,i,j,k of  wei[g,o,c,i,j,k] * src[g,n,c, d*sd - pd + i*ed, h*sh - ph + j*eh, w*sw - pw + k*ew] )
//
// where (s, p, e) are stride, padding and dilation of an axis and reads outside src are zero.  All three tensors are
// addressed through explicit strides, so NCHW, NHWC, sub-views, flipped and transposed weights are the same problem.
// The gradients are the same equation with the tensors' roles exchanged (algo/backward.c).  1-D and 2-D convolutions
// are 3-D ones whose missing axes have size one.
#ifndef FASTCONV_H
#define FASTCONV_H

#include <stddef.h>
#include <stdint.h>

typedef enum fc_status {
    FC_OK = 0,
    FC_INVALID,     // the problem breaks a rule of fc_problem_check
    FC_UNSUPPORTED, // a valid problem that the algorithm asked for cannot serve
    FC_NO_MEMORY
} fc_status;

typedef enum fc_dtype { FC_F32 = 0, FC_F64 = 1, FC_DTYPES } fc_dtype;

typedef enum fc_isa { FC_SCALAR = 0, FC_AVX2, FC_AVX512, FC_NEON, FC_ISAS } fc_isa;

typedef enum fc_direction { FC_FORWARD = 0, FC_BACKWARD_INPUT, FC_BACKWARD_WEIGHT } fc_direction;

typedef enum fc_algo_id {
    FC_AUTO = -1,
    FC_DIRECT = 0,
    FC_IM2COL,
    FC_WINOGRAD_F2,
    FC_WINOGRAD_F3,
    FC_WINOGRAD_F4,
    FC_WINOGRAD_F6, // only when asked for: less accurate
    FC_POINTWISE,
    FC_DEPTHWISE,
    FC_REFERENCE,
    FC_ALGOS
} fc_algo_id;

enum { FC_AXES = 3, FC_MESSAGE = 160 };

// One spatial axis.  `out` is given, so padding on the far side is implied: whatever a window reads past `in` is zero.
// `pad` may be negative (a crop); the gradients by phases need that.
typedef struct fc_axis {
    int64_t in, out, kernel, stride, dilation, pad;
} fc_axis;

// Strides in elements; any sign.  For weights `outer` steps output channels, for src and dst it steps images.
typedef struct fc_view {
    int64_t group, outer, channel, axis[FC_AXES];
} fc_view;

typedef struct fc_problem {
    int64_t batch, groups;
    int64_t in_channels, out_channels; // per group
    fc_axis axis[FC_AXES];             // depth, height, width
    fc_view src, wei, dst;
    int32_t dtype;     // fc_dtype of all three tensors
    int32_t direction; // fc_direction; for the gradients the fields describe the forward convolution
    int32_t half;      // dtype is FC_F32, but in memory everything is float16: forward only, and without gaps
    double low, high;  // of what is written, as a clamp: (-inf, inf) none, (0, inf) relu, (0, 6) relu6
} fc_problem;

typedef struct fc_plan fc_plan;

// What the cost model rests on (algo/cost.c): seconds that each of these takes one thread.
#define FC_COSTS(X)                                                                                                    \
    X(mac)        /* a float32 multiply-add in a full tile */                                                          \
    X(weight_l2)  /* a byte of weights from the second-level cache, */                                                 \
    X(weight_l3)  /* the third, */                                                                                     \
    X(weight_far) /* and from memory */                                                                                \
    X(copied_run) /* starting a run of elements that are copied side by side, */                                       \
    X(copied)     /* and a vector of them */                                                                           \
    X(tile)       /* finding and storing a tile of the matrix product */                                               \
    X(row_unit)   /* addressing a block of rows where the image lies */                                                \
    X(product)    /* a tile of a Winograd point's product */                                                           \
    X(transform)  /* a vector of one point going through Winograd's transforms, */                                     \
    X(staged)     /* and a byte of it going through memory between stages */                                           \
    X(depthwise)  /* a vector multiply-add with its loads */                                                           \
    X(reference)  /* a multiply-add of the reference */                                                                \
    X(pack)       /* a weight on its way to where a matrix product wants it, */                                        \
    X(pack_point) /* or to one point of Winograd's */                                                                  \
    X(fixed)      /* a stage of any algorithm */

typedef struct fc_costs {
#define FC_COST(name) double name;
    FC_COSTS(FC_COST)
#undef FC_COST
} fc_costs;

// How to plan: for which instruction set, by which algorithm (or FC_AUTO), whether the error is to stay within the bound
// of direct summation, which no Winograd keeps, and whether packed weights will be used once, so that packing counts.
typedef struct fc_options {
    fc_isa isa;
    fc_algo_id algorithm;
    int strict, once;
    fc_costs costs;
} fc_options;

// The constants of a nominal machine, and their names in the order of the struct, NULL behind the last.
fc_costs fc_costs_default(fc_isa isa);
extern const char *const fc_cost_names[];

// What one algorithm has to say about a problem.
typedef struct fc_verdict {
    const char *name;
    const char *refusal; // NULL when it can serve
    double cost;         // predicted seconds on one thread; infinite when refused
    double packing;      // and what packing the weights takes before
} fc_verdict;

// Checks everything that memory safety rests on.  On FC_INVALID `message` says which rule is broken.
fc_status fc_problem_check(const fc_problem *problem, char message[FC_MESSAGE]);

// Chooses an algorithm (or takes the one asked for) and lays out weights and scratch.  On failure *plan is NULL and
// `message` holds the reason.
fc_status fc_plan_create(const fc_problem *problem, const fc_options *options, fc_plan **plan,
                         char message[FC_MESSAGE]);
void fc_plan_destroy(fc_plan *plan);

// Fills verdicts[FC_ALGOS] for a problem.
void fc_plan_explain(const fc_problem *problem, const fc_options *options, fc_verdict verdicts[FC_ALGOS]);

fc_algo_id fc_plan_algorithm(const fc_plan *plan);
size_t fc_plan_packed_bytes(const fc_plan *plan);
size_t fc_plan_scratch_bytes(const fc_plan *plan, int threads);
double fc_plan_flops(const fc_plan *plan); // of direct convolution, a multiply-add counting two

// Packs weights (laid out by problem.wei) and bias ([groups * out_channels], or NULL) into memory of the caller, which
// must be 64-byte aligned.  FC_BACKWARD_INPUT is a transposed convolution: its bias is [groups * in_channels].  For
// FC_BACKWARD_WEIGHT the "weights" are the output's gradient.  FC_NO_MEMORY for float16 only, which is widened first.
fc_status fc_plan_pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads);

// Runs the plan on packed weights.  residual is NULL or laid out exactly as dst.  scratch is 64-byte aligned and holds
// fc_plan_scratch_bytes(plan, threads).  Allocates nothing, touches nothing but dst and scratch; thread-safe.
void fc_plan_execute(const fc_plan *plan, const void *src, const void *packed, const void *residual, void *dst,
                     void *scratch, int threads);

// Pooling (algo/pool.c): the same axes.  A window is cut to the input, so padding is never a maximum and adds nothing to
// a sum; `out` is given here too, and whoever rounds it up makes sure that each window holds an element.
typedef enum fc_pool_kind { FC_POOL_MAX = 0, FC_POOL_AVG } fc_pool_kind;

typedef struct fc_pool {
    int64_t batch, channels;
    fc_axis axis[FC_AXES];
    fc_view src, dst, index; // group unused; of the gradients when running backwards
    int32_t dtype, kind;
    int32_t adaptive;          // window i is [floor(i * in / out), ceil((i + 1) * in / out)); kernel .. pad unused
    int32_t count_include_pad; // average: the padding counts too, `pad` before the input and `pad_after` behind it
    int64_t pad_after[FC_AXES];
    int64_t divisor; // average: what to divide by, or 0 for the number of elements
} fc_pool;

// Checks everything that memory safety rests on, but for the strides.
fc_status fc_pool_check(const fc_pool *pool, char message[FC_MESSAGE]);
// Maximum: `indices` gets positions in the flat input plane (d, h, w in row-major order) unless it is NULL; the first
// among equals wins, and the last NaN over everything.
void fc_pool_forward(const fc_pool *pool, fc_isa isa, const void *src, void *dst, int64_t *indices, int threads);
// Writes all of d_src.  FC_INVALID when an index lies outside the plane; d_src then lacks its share.
fc_status fc_pool_backward(const fc_pool *pool, fc_isa isa, const void *d_dst, const int64_t *indices, void *d_src,
                           int threads);

// Stencils (algo/stencil.c): one channel, any number of axes up to FC_RANK, borders as image filters have them:
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
    int32_t unfused;        // round products before they are added
    double fill, fill_rows; // fill_rows: of the sums, separable only
    fc_stencil_axis axis[FC_RANK];
} fc_stencil;

// Checks everything that memory safety rests on, but for the strides.
fc_status fc_stencil_check(const fc_stencil *stencil, char message[FC_MESSAGE]);
double fc_stencil_cost(const fc_stencil *stencil, fc_isa isa); // predicted seconds on one thread
size_t fc_stencil_scratch_bytes(const fc_stencil *stencil, fc_isa isa, int threads);
// scratch is 64-byte aligned.  dst must not overlap src.
void fc_stencil_run(const fc_stencil *stencil, fc_isa isa, const void *src, const void *wei, void *dst, void *scratch,
                    int threads);

// The machine (cpu.c).
int fc_isa_built(fc_isa isa);     // compiled in
int fc_isa_supported(fc_isa isa); // compiled in and usable on this CPU under this operating system
fc_isa fc_isa_best(void);
const char *fc_isa_name(fc_isa isa);
int fc_openmp(void); // the OpenMP date macro, or 0
const char *fc_compiler(void);

// Processes (parallel.c).  Whether this one was forked, without exec(), before the library was loaded; and whether it may
// be an orphan: its OpenMP threads stayed behind in its parent.  Then regions of its main thread take some 0.1 ms more.
int fc_process_forked(void);
int fc_process_orphaned(void);
int fc_process_cpus(void); // that the calling thread may run on, as of a moment ago; 0: unknown
// Calls that take long are cut short by `ask`, which the main thread calls about twenty times a second: when it returns
// other than 0, what is left to do is left undone.
void fc_process_interrupt(int (*ask)(void));
int fc_process_interrupted(void); // whether that has befallen the calling thread since it last asked

// Seconds that `threads` threads took for `rounds` rounds of independent multiply-adds; *flops gets their number.
double fc_fma_burn(fc_isa isa, fc_dtype dtype, int threads, int64_t rounds, double *flops);

// An array of a caller (call.c), as the buffer protocol has it: strides in bytes, format as Python's struct module.
enum { FC_DESCRIPTION = 1 + 2 * FC_RANK };
typedef struct fc_array {
    const void *data;
    const char *format;
    ptrdiff_t itemsize;
    int ndim;
    const ptrdiff_t *shape, *strides;
} fc_array;

// Type, sizes and strides as numbers that are equal for arrays that can be treated alike; returns how many.  0 for an
// array that takes preparation: not of native floats, or not at multiples of their size.
int fc_array_describe(const fc_array *array, int64_t out[FC_DESCRIPTION]);
// Whether one array ends before the other begins.
int fc_arrays_apart(const fc_array *a, const fc_array *b);
// 64 bits that tell memory with other contents: every word goes through a bijection that depends on all before it in its
// part of the memory.  Not against an adversary.
uint64_t fc_fingerprint(const void *memory, size_t bytes, int threads);

// Memory at 64-byte boundaries, in large pages where that pays; NULL when there is none (scratch.c).
void *fc_memory_acquire(size_t bytes);
void fc_memory_release(void *memory);
// Scratch memory that survives from call to call: a few buffers, of FC_SCRATCH_KEPT bytes together at most.
#define FC_SCRATCH_KEPT ((size_t)64 << 20)
void *fc_scratch_acquire(size_t bytes); // NULL when there is no memory
void fc_scratch_release(void *buffer);
size_t fc_scratch_kept(void); // bytes that wait for the next call

#endif
