// SPDX-License-Identifier: BSD-3-Clause
//
// plan.h - the inside of a plan, for the kinds only.
#ifndef FC_PLAN_H
#define FC_PLAN_H

#include "core/kind.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FC_ALIGN = 64, FC_CHOICES = 6 };

// A problem that does a part of another, and where its packed weights begin or how many bytes they take.
typedef struct fc_part {
    fc_plan *plan;
    size_t packed;
} fc_part;

struct fc_plan {
    const fc_kind *kind;
    const fc_kernels *kernels;
    fc_machine machine;
    fc_family family;
    union {
#define FC_FAMILY(id, type, name, ...) type name;
        FC_FAMILY_LIST(FC_FAMILY)
#undef FC_FAMILY
    };
    fc_algo_id id;
    double seconds; // predicted, one thread
    size_t packed_bytes;
    int64_t packing[FC_CHOICES]; // what the kind chose that says where packed weights lie, beside sizes and strides
    uint64_t tag;                // of all that says it
    void *state;                 // of the kind
    fc_part *parts;              // the problems that this one falls apart into
    int64_t part_count;
    _Atomic(fc_schedule *) schedules;
};

// "Packed" by a kind that reads weights where they lie: their addresses.  They have to stay until the plan has run.
typedef struct fc_borrowed {
    const void *wei, *bias;
} fc_borrowed;

// The verb, and what a stage finds.
fc_status fc_borrow(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads);
fc_borrowed fc_borrowed_by(const fc_stage *stage, const fc_call *call);

static inline int64_t fc_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t fc_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t fc_clamp(int64_t low, int64_t value, int64_t high) { return fc_max(low, fc_min(value, high)); }
static inline int64_t fc_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
// The last digit, below `count`, of an index that numbers the parts of a task in mixed radix; it is taken off the index.
// Most digits of small work have one value: that is seen sooner than divided.
static inline int64_t fc_digit(int64_t *index, int64_t count) {
    if (count == 1) return 0;
    const int64_t digit = *index % count;
    *index /= count;
    return digit;
}
// Where part `at` of `count` begins, when `whole` is cut as evenly as can be.
static inline int64_t fc_share(int64_t whole, int64_t at, int64_t count) {
    return count == 1 ? at * whole : at * whole / count;
}
// The largest part when `whole` is cut evenly into as few parts of at most `most` as possible.
static inline int64_t fc_even(int64_t whole, int64_t most) {
    return whole ? fc_ceil_div(whole, fc_ceil_div(whole, most)) : 0;
}
static inline int64_t fc_round_up(int64_t a, int64_t b) { return fc_ceil_div(a, b) * b; }
static inline size_t fc_align(size_t bytes) { return (bytes + FC_ALIGN - 1) / FC_ALIGN * FC_ALIGN; }
static inline int64_t fc_taps(const fc_problem *p) { return p->axis[0].kernel * p->axis[1].kernel * p->axis[2].kernel; }
// Whether each output along an axis sees the input at its own place, and no other.
static inline int fc_is_pointwise(const fc_axis *a) {
    return a->kernel == 1 && a->stride == 1 && a->pad == 0 && a->in == a->out;
}
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
// A tag that goes on with a value: a bijection of the tag for each value, and of the value for each tag.
static inline uint64_t fc_tag(uint64_t tag, int64_t value) {
    tag = (tag ^ (uint64_t)value) * UINT64_C(0x9e3779b97f4a7c15);
    tag = (tag ^ tag >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return tag ^ tag >> 29;
}
// Whether kernels, which read, sum and write one dtype, can work on the tensors where they lie.
static inline int fc_is_plain(const fc_problem *p) {
    return fc_types_equal(p->types, fc_types_of(p->types.accumulator));
}
static inline const void *fc_at(const void *base, int64_t elements, int32_t dtype) {
    return (const char *)base + elements * fc_bytes(dtype);
}

// ------------------------------------------------------------------------------------------------------ core/cost.c

// Predicted seconds of one thread: arithmetic at what the kernels reach, plus bytes at what the caches give.
double fc_cost_gemm(const fc_problem *problem, const fc_kernels *kernels, const fc_options *options, int over_channels,
                    double copy_seconds);
// Whether a product over channels leaves out the half of a vector that it has no columns for, and saves time by it.
// Whether there are 32 registers of vectors, as kernels tell by FC_MR * FC_NV.
static inline int fc_many_registers(const fc_kernels *kernels) {
    return kernels->gemm_pixels.mr * kernels->gemm_pixels.nr >= 24 * kernels->vl;
}

static inline int fc_gemm_halves(const fc_kernels *kernels, const fc_machine *machine) {
    return machine->in_halves && kernels->dtype == FC_F32;
}
// Lanes that a tile's kernels multiply for `columns` columns of a matrix.
double fc_cost_lanes(int64_t columns, const fc_gemm_kernel *gemm, const fc_kernels *kernels, const fc_machine *machine);
double fc_cost_macs(double macs, const fc_kernels *kernels, const fc_costs *costs);
// By what factor a product takes longer whose rows, `bytes` apart, are more than L1 has ways in the sets that they share:
// each step throws out what the next one wants.
double fc_cost_aliases(const fc_machine *machine, int64_t bytes, int64_t rows);
// Copying `elements` in runs of `run`.
double fc_cost_runs(double elements, int64_t run, const fc_kernels *kernels, const fc_costs *costs);
// Copying them one by one.
double fc_cost_elements(double elements, const fc_costs *costs);
// How much of a cache line there is from column to column, if they are no neighbours.
double fc_cost_apart(const fc_view *view);
// Transposing so many vectors, whether all their lanes are of use or not.
double fc_cost_turned(double vectors, const fc_costs *costs);
// Reading `bytes` of weights, from the cache level that holds that many.
double fc_cost_weights(double bytes, const fc_options *options);
// What images of so many bytes, results included, take on their way from and to memory where no multiplications hide it.
double fc_cost_images(double bytes, const fc_options *options);
// What of so many bytes the third level cannot hold, and goes to memory and comes back.
double fc_cost_beyond(double bytes, const fc_options *options);
// Packing: each tap of each pair of an input and an output channel by itself.
double fc_cost_packing(const fc_request *request);

#endif
