// SPDX-License-Identifier: BSD-3-Clause
//
// reference.c - the equation of problem.h as it stands, summed in double: the oracle of the C tests and what remains
// when nothing else serves.
#include "conv/activate.h"

static const char *refuse(const fc_request *r) {
    (void)r;
    return NULL;
}

static double cost(const fc_request *r) {
    const fc_costs *c = &r->options->costs;
    return c->fixed + c->reference * fc_macs(r->op->problem);
}

// Packed: the bias, then the weights [group][out channel][channel][tap].
static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    (void)r, (void)message;
    const fc_problem *p = &plan->problem;
    const int64_t out = p->groups * p->out_channels;
    plan->packed_bytes = (size_t)((out + out * p->in_channels * fc_taps(p)) * plan->kernels->element);
    return FC_OK;
}

typedef struct reference_job {
    const fc_problem *problem;
    const void *src, *packed, *residual;
    void *dst;
} reference_job;

static double activated(const fc_problem *p, double v) {
    if (p->activation == FC_MAP_CLAMP) return v < p->low ? p->low : v > p->high ? p->high : v;
    fc_activate_run(fc_kernels_for(FC_SCALAR, FC_F64), p, &v, 1, 1);
    return v;
}

// One plane of the output: group, image and output channel.
#define FC_REFERENCE(T, S)                                                                                             \
    static void pack_##S(const fc_problem *p, const T *wei, const T *bias, T *packed) {                                \
        const int64_t out = p->groups * p->out_channels;                                                               \
        for (int64_t i = 0; i < out; i++) *packed++ = bias ? bias[i] : 0;                                              \
        for (int64_t i = 0; i < out; i++)                                                                              \
            for (int64_t c = 0; c < p->in_channels; c++)                                                               \
                for (int64_t d = 0; d < p->axis[0].kernel; d++)                                                        \
                    for (int64_t h = 0; h < p->axis[1].kernel; h++)                                                    \
                        for (int64_t w = 0; w < p->axis[2].kernel; w++)                                                \
                            *packed++ = wei[i / p->out_channels * p->wei.group + i % p->out_channels * p->wei.outer +  \
                                            c * p->wei.channel + d * p->wei.axis[0] + h * p->wei.axis[1] +             \
                                            w * p->wei.axis[2]];                                                       \
    }                                                                                                                  \
    static double sum_##S(const fc_problem *p, const T *src, const T *wei, const int64_t out[FC_AXES]) {               \
        double sum = 0;                                                                                                \
        int64_t at[FC_AXES];                                                                                           \
        for (int64_t c = 0; c < p->in_channels; c++)                                                                   \
            for (int64_t d = 0; d < p->axis[0].kernel; d++)                                                            \
                for (int64_t h = 0; h < p->axis[1].kernel; h++)                                                        \
                    for (int64_t w = 0; w < p->axis[2].kernel; w++, wei++) {                                           \
                        const int64_t tap[FC_AXES] = {d, h, w};                                                        \
                        int inside = 1;                                                                                \
                        for (int i = 0; i < FC_AXES; i++) {                                                            \
                            const fc_axis *a = &p->axis[i];                                                            \
                            at[i] = out[i] * a->stride - a->pad + tap[i] * a->dilation;                                \
                            inside &= at[i] >= 0 && at[i] < a->in;                                                     \
                        }                                                                                              \
                        if (inside)                                                                                    \
                            sum += (double)*wei * (double)src[c * p->src.channel + at[0] * p->src.axis[0] +            \
                                                              at[1] * p->src.axis[1] + at[2] * p->src.axis[2]];        \
                    }                                                                                                  \
        return sum;                                                                                                    \
    }                                                                                                                  \
    static void plane_##S(const reference_job *job, int64_t group, int64_t image, int64_t channel) {                   \
        const fc_problem *p = job->problem;                                                                            \
        const int64_t index = group * p->out_channels + channel, depth = p->in_channels * fc_taps(p);                  \
        const T *src = (const T *)job->src + group * p->src.group + image * p->src.outer;                              \
        const T *bias = job->packed, *wei = bias + p->groups * p->out_channels + index * depth;                        \
        const int64_t base = group * p->dst.group + image * p->dst.outer + channel * p->dst.channel;                   \
        int64_t at[FC_AXES];                                                                                           \
        for (at[0] = 0; at[0] < p->axis[0].out; at[0]++)                                                               \
            for (at[1] = 0; at[1] < p->axis[1].out; at[1]++)                                                           \
                for (at[2] = 0; at[2] < p->axis[2].out && !fc_must_stop(); at[2]++) {                                  \
                    int64_t offset = base;                                                                             \
                    for (int i = 0; i < FC_AXES; i++) offset += at[i] * p->dst.axis[i];                                \
                    double v = sum_##S(p, src, wei, at) + (double)bias[index];                                         \
                    if (job->residual) v += (double)((const T *)job->residual)[offset];                                \
                    v = activated(p, v);                                                                               \
                    ((T *)job->dst)[offset] = (T)(v == v ? v : NAN); /* one of them, as in every kernel */             \
                }                                                                                                      \
    }

FC_REFERENCE(float, f32)
FC_REFERENCE(double, f64)

static fc_status pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    (void)threads;
    if (plan->problem.types.accumulator == FC_F32) pack_f32(&plan->problem, wei, bias, packed);
    else pack_f64(&plan->problem, wei, bias, packed);
    return FC_OK;
}

static void task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    (void)thread;
    const fc_problem *p = &stage->plan->problem;
    const reference_job job = {
        .problem = p,
        .src = fc_operand(call, stage->at.src),
        .packed = fc_operand(call, stage->at.wei),
        .residual = fc_operand(call, stage->at.residual),
        .dst = fc_operand(call, stage->at.dst),
    };
    const int64_t channel = fc_digit(&index, p->out_channels), image = fc_digit(&index, p->batch);
    (p->types.accumulator == FC_F32 ? plane_f32 : plane_f64)(&job, index, image, channel);
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    (void)threads;
    const fc_problem *p = &plan->problem;
    fc_list_stage(list, plan, task, p->groups * p->batch * p->out_channels, NULL);
}

const fc_kind fc_kind_reference = {
    .name = "reference",
    .traits = FC_SERVES_FORWARD,
    .rows = 1,
    .refuse = refuse,
    .cost = cost,
    .packing = fc_cost_packing,
    .layout = layout,
    .pack = pack,
    .stages = stages,
};
