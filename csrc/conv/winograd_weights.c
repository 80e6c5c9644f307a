// SPDX-License-Identifier: BSD-3-Clause
//
// winograd_weights.c - weights on their way to U = G g G^T, all of them before a plan runs or some in passing.
#include "conv/winograd_plan.h"
#include "kernels/winograd_points.h"

const double *fc_winograd_g(const fc_winograd_form *form) {
    static const double g23[] = FC_F2_3_G, g33[] = FC_F3_3_G, g43[] = FC_F4_3_G, g63[] = FC_F6_3_G;
    static const double g25[] = FC_F2_5_G, g32[] = FC_F3_2_G, g42[] = FC_F4_2_G;
    if (form->r == 5) return g25;
    if (form->r == 2) return form->m == 3 ? g32 : g42;
    return form->m == 2 ? g23 : form->m == 3 ? g33 : form->m == 4 ? g43 : g63;
}

int fc_winograd_whole(const fc_problem *p, const fc_winograd_form *form) {
    const int64_t step = p->wei.axis[2], down = form->sides == 2 ? form->r : 1;
    if (fc_winograd_blocks(form) > 1 || fc_taps(p) != down * form->r || (step != 1 && step != -1)) return 0;
    return down == 1 || p->wei.axis[1] == step * form->r ? (int)step : 0;
}

void fc_winograd_pack_part(const fc_plan *plan, const fc_winograd_packing *job) {
    const fc_winograd *w = fc_winograd_of(plan);
    fc_problem some = plan->problem;
    some.in_channels = job->channels;
    const int64_t first = job->part * w->gemm->nr;
    const fc_winograd_weights work = {
        .problem = &some,
        .wei = job->wei + first * some.wei.outer + job->channel * some.wei.channel,
        .channels = fc_min(w->gemm->nr, some.out_channels - first),
        .whole = fc_winograd_whole(&some, &w->form),
        .form = w->form,
        .g = fc_winograd_g(&w->form),
        .points = job->points,
        .point = job->point,
        .taps = job->taps,
    };
    plan->kernels->winograd_weights(&work);
}

// Where there is what in packed memory: the bias, [group][channel, padded], U [group][block of nr channels][point][k][nr], and
// the weights as they are [group][block][in channel][tap][nr].  In passing: the bias, and where the weights are.
typedef struct pack_job {
    const fc_plan *plan;
    const float *wei;
    float *weights, *taps;
} pack_job;

static void pack_task(void *context, int64_t task, int thread) {
    (void)thread;
    const pack_job *job = context;
    const fc_plan *plan = job->plan;
    const fc_winograd *w = fc_winograd_of(plan);
    const fc_winograd_packing packing = {
        .wei = job->wei + task / w->parts * plan->problem.wei.group,
        .part = task % w->parts,
        .channels = plan->problem.in_channels,
        .points = job->weights + task * fc_winograd_u_part(w),
        .point = fc_winograd_u_point(w, w->depth),
        .taps = job->taps + task * fc_winograd_taps_part(plan),
    };
    fc_winograd_pack_part(plan, &packing);
}

fc_status fc_winograd_pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    const fc_problem *p = &plan->problem;
    const fc_winograd *w = fc_winograd_of(plan);
    const int64_t row = w->parts * w->gemm->nr;
    float *padded = packed;
    for (int64_t g = 0; g < p->groups; g++)
        for (int64_t o = 0; o < row; o++)
            *padded++ = bias && o < p->out_channels ? ((const float *)bias)[g * p->out_channels + o] : 0.0f;
    if (w->passing) {
        memcpy(padded, &wei, sizeof wei);
        return FC_OK;
    }
    pack_job job = {plan, wei, padded, padded + p->groups * w->parts * fc_winograd_u_part(w)};
    const double seconds = 8e-9 * (double)(p->groups * row * w->depth);
    fc_parallel(p->groups * w->parts, fc_worthwhile_threads(seconds, threads), pack_task, &job);
    return FC_OK;
}
