// SPDX-License-Identifier: BSD-3-Clause
//
// fastconv.h - the public C interface: problem -> plan -> pack -> schedule -> run.
#ifndef FASTCONV_H
#define FASTCONV_H

#include "problem.h"

#include <stddef.h>

_Static_assert(sizeof(size_t) == sizeof(int64_t), "sizes are counted in int64_t and cast to size_t");

typedef enum fc_status {
    FC_OK = 0,
    FC_INVALID,     // the problem breaks a rule of fc_op_check
    FC_UNSUPPORTED, // a valid problem that the algorithm asked for cannot serve
    FC_NO_MEMORY
} fc_status;

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

enum { FC_MESSAGE = 160 };

// The families of problems: an enumerator FC_..., the struct that describes one, the name by which plans hold it and
// core/family.c finds its check and its kinds, and the member that tells with which fc_dtype it is computed.
#define FC_FAMILY_LIST(X)                                                                                              \
    X(CONV, fc_problem, problem, types.accumulator)                                                                    \
    X(LAYER_GRADIENT, fc_layer_gradient, layer_gradient, weight.types.accumulator)                                     \
    X(POOL, fc_pool, pool, dtype)                                                                                      \
    X(STENCIL, fc_stencil, stencil, dtype)                                                                             \
    X(MAP, fc_map, map, dtype)                                                                                         \
    X(REDUCE, fc_reduce, reduce, dtype)                                                                                \
    X(NORM, fc_norm, norm, dtype)                                                                                      \
    X(BATCH_NORM, fc_batch_norm, batch_norm, dtype)                                                                    \
    X(LRN, fc_lrn, lrn, dtype)                                                                                         \
    X(RESIZE, fc_resize, resize, dtype)                                                                                \
    X(PRODUCT, fc_product, product, dtype)                                                                             \
    X(RECURRENT, fc_recurrent, recurrent, dtype)

typedef enum fc_family {
#define FC_FAMILY(id, ...) FC_##id,
    FC_FAMILY_LIST(FC_FAMILY)
#undef FC_FAMILY
        FC_FAMILIES
} fc_family;

// What is to be done: a problem of some family.
typedef struct fc_op {
    fc_family family;
    const void *problem; // the struct of the family
} fc_op;

typedef struct fc_plan fc_plan;
typedef struct fc_schedule fc_schedule;

// What the cost model rests on (core/cost.c): seconds that each of these takes one thread.
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

// What blocking rests on: the data caches as one core sees them, in bytes, and the ways of the first.
#define FC_CACHES(X) X(l1) X(l1_ways) X(l2) X(l3)

typedef struct fc_machine {
    fc_isa isa;
    int in_halves; // whether the widest vectors are computed in two halves, one after the other
#define FC_CACHE(name) int64_t name;
    FC_CACHES(FC_CACHE)
#undef FC_CACHE
} fc_machine;

// How to plan: for which machine, by which algorithm (or FC_AUTO), whether the error is to stay within the bound of
// direct summation, which no Winograd keeps, whether packed weights will be used once, so that packing counts, whether an
// image's bits are to be the same in a batch of any size (but for FC_BACKWARD_WEIGHT, which sums over images), and whether
// weights and bias stay where they are from fc_plan_pack until the plan has run, so that they need not be packed.
typedef struct fc_options {
    fc_machine machine;
    fc_algo_id algorithm;
    int strict, once, batch_invariant, borrows;
    fc_costs costs;
} fc_options;

// The constants of a nominal core with this machine's vectors, and their names in the order of the struct, NULL behind the
// last.
fc_costs fc_costs_default(const fc_machine *machine);
extern const char *const fc_cost_names[];

// What one algorithm has to say about a problem.
typedef struct fc_verdict {
    const char *name;
    const char *refusal; // NULL when it can serve
    double cost;         // predicted seconds on one thread; infinite when refused
    double packing;      // and what packing the weights takes before
} fc_verdict;

// Checks everything that memory safety rests on.  On FC_INVALID `message` says which rule is broken.
fc_status fc_op_check(const fc_op *op, char message[FC_MESSAGE]);

// Chooses an algorithm (or takes the one asked for) and lays out weights and scratch.  On failure *plan is NULL and
// `message` holds the reason.
fc_status fc_plan_create(const fc_op *op, const fc_options *options, fc_plan **plan, char message[FC_MESSAGE]);
void fc_plan_destroy(fc_plan *plan);

// Fills verdicts[FC_ALGOS] for a convolution.
void fc_plan_explain(const fc_problem *problem, const fc_options *options, fc_verdict verdicts[FC_ALGOS]);

fc_algo_id fc_plan_algorithm(const fc_plan *plan);
const char *fc_plan_form(const fc_plan *plan);    // which of its forms, in words; "" where it has but one
size_t fc_plan_packed_bytes(const fc_plan *plan); // 0: weights are read where they lie
uint64_t fc_plan_tag(const fc_plan *plan);        // plans with the same one pack the same weights to the same bytes
double fc_plan_flops(const fc_plan *plan);   // of direct sums of products, a multiply-add counting two; 0 without such
double fc_plan_seconds(const fc_plan *plan); // predicted, on one thread

// Packs weights (laid out by problem.wei) and bias ([groups * out_channels], or NULL) into memory of the caller, which
// must be 64-byte aligned.  FC_BACKWARD_INPUT is a transposed convolution: its bias is [groups * in_channels].  For
// FC_BACKWARD_WEIGHT the "weights" are the output's gradient.  FC_NO_MEMORY for float16 only, which is widened first.
fc_status fc_plan_pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads);

// How the plan is carried out by up to `threads` threads; belongs to the plan, which keeps one for each number of them.
fc_status fc_plan_schedule(const fc_plan *plan, int threads, const fc_schedule **schedule);
size_t fc_schedule_scratch_bytes(const fc_schedule *schedule);

// The arrays of a call; those that the problem does not have are NULL.
typedef struct fc_operands {
    const void *src, *wei;        // wei: packed, or as they are where a plan packs nothing
    const void *residual;         // NULL, or laid out exactly as dst
    const void *other[FC_OTHERS]; // what src is combined with, in the order and layout that the family says
    void *dst;
    void *further;  // a result beside dst, where the family has one
    int64_t *index; // of pooling: written forward, read backward
} fc_operands;

extern const char *const fc_map_names[]; // of the operations of maps, in their order, NULL behind the last
int fc_is_activation(int32_t code);      // whether convolutions apply that operation to what they have just stored

// Scratch is 64-byte aligned.  Allocates nothing, touches nothing but dst, further, index and scratch; thread-safe.  FC_INVALID
// when an index lies outside the plane; dst then lacks its share.
fc_status fc_schedule_run(const fc_schedule *schedule, const fc_operands *operands, void *scratch);

// The machine at hand (machine.c), with the instruction set that is to be used; a cache of which the CPU says nothing is
// that of a nominal machine.
fc_machine fc_machine_here(fc_isa isa);
extern const char *const fc_cache_names[]; // in the order of the struct, NULL behind the last
// Where an operand lies: so many bytes behind an array of a table, or nowhere (NULL) where the table lacks either that
// array or the one that `given` names.
typedef struct fc_place {
    int32_t base, given;
    int64_t offset;
} fc_place;

typedef struct fc_places {
    fc_place src, wei, residual, dst, further, index, other[FC_OTHERS], shared;
} fc_places;

// Networks (net/net.c): plans that run one after the other, in one call and one parallel region.  Their operands lie
// behind the arrays of a table, of which the first is NULL and the second scratch memory; `at.shared` is the net's own.
enum { FC_NET_SCRATCH = 1, FC_NET_ARRAYS };
typedef struct fc_step {
    const fc_plan *plan;
    fc_places at;
} fc_step;
typedef struct fc_net fc_net;
// The plans have to outlive the net.  Steps read what earlier ones wrote; nobody checks here that they may.
fc_status fc_net_create(const fc_step *steps, int64_t count, int threads, fc_net **net);
void fc_net_destroy(fc_net *net);
size_t fc_net_scratch_bytes(const fc_net *net);
int fc_net_threads(const fc_net *net);
// Steps may wait for each other several times; so many parts they have.
int64_t fc_net_waves(const fc_net *net);
// All steps.  With `starts`, room for one more number than there are waves, `seconds` gets how long each step took.
fc_status fc_net_run(const fc_net *net, char *const *arrays, double *starts, double *seconds);

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

// Losses and their gradients (loss/).  Returns the number of the first row whose index is out of range, and then does
// nothing, or else -1.
int64_t fc_cross_entropy_run(fc_cross_entropy *work, fc_isa isa, int threads);

// running = (1 - momentum) running + momentum factor fresh, of numbers of channels (fold/batch_norm.c).
void fc_blend(fc_dtype dtype, void *running, const void *fresh, int64_t count, double momentum, double factor);

// A step of an optimiser on all of these arrays (update.c), in one parallel region.
void fc_update(fc_update_arrays *arrays, int64_t count, fc_isa isa, int threads);

// Seconds that `threads` threads took for `rounds` rounds of independent multiply-adds; *flops gets their number.
double fc_fma_burn(fc_isa isa, fc_dtype dtype, int threads, int64_t rounds, double *flops);
// Seconds that a line of memory takes from one thread to another, of so many rounds; 0 where no other thread comes.
double fc_handover(int64_t rounds);

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
// array that takes preparation: not of native floats (of int64, for `indices`), or not at multiples of their size.
int fc_array_describe(const fc_array *array, int indices, int64_t out[FC_DESCRIPTION]);
// Whether one array ends before the other begins.
int fc_arrays_apart(const fc_array *a, const fc_array *b);
// 64 bits that tell memory with other contents: every word goes through a bijection that depends on all before it in its
// part of the memory.  Not against an adversary.
uint64_t fc_fingerprint(const void *memory, size_t bytes, int threads);

// Memory at 64-byte boundaries, in large pages where that pays; NULL when there is none (scratch.c).
void *fc_memory_acquire(size_t bytes);
void fc_memory_release(void *memory, size_t bytes); // as many as were acquired
// Scratch memory that survives from call to call: a few small buffers, of FC_SCRATCH_KEPT bytes together at most; large
// ones are as results are.
#define FC_SCRATCH_KEPT ((size_t)16 << 20)
void *fc_scratch_acquire(size_t bytes); // NULL when there is no memory
void fc_scratch_release(void *buffer);
size_t fc_scratch_kept(void); // bytes that wait for the next call
// Memory of results, whole pages, which may be that of earlier ones; NULL when there is none.  It goes back with its size,
// and then waits, until it is forgotten or others take its place.
void *fc_result_acquire(size_t bytes);
void fc_result_release(void *memory, size_t bytes);
void fc_result_forget(void);
size_t fc_results_kept(void); // bytes that wait

#endif
