// SPDX-License-Identifier: BSD-3-Clause
//
// net.c - networks: the stages of all steps, one schedule.
#include "core/plan.h"

struct fc_net {
    fc_schedule *schedule;
    int64_t count;
    int64_t *waves; // [count + 1], where those of each step begin
};

// Threads that are awake already are worth having for less than those that have to be woken; but at the end of a step
// they wait for each other, which takes as long as half of this.
static const double step_seconds = 2e-6;

static int threads_of(const fc_plan *plan, int threads) {
    return (int)fc_clamp(1, (int64_t)(fc_plan_seconds(plan) / (step_seconds / 2)), threads);
}

static int threads_for(const fc_step *steps, int64_t count, int threads) {
    double seconds = 0;
    for (int64_t i = 0; i < count; i++) seconds += fmax(0, fc_plan_seconds(steps[i].plan) - step_seconds);
    return fc_worthwhile_threads(seconds, threads);
}

void fc_net_destroy(fc_net *net) {
    if (!net) return;
    fc_schedule_destroy(net->schedule);
    free(net->waves);
    free(net);
}

fc_status fc_net_create(const fc_step *steps, int64_t count, int threads, fc_net **out) {
    *out = NULL;
    fc_net *net = calloc(1, sizeof *net);
    if (!net) return FC_NO_MEMORY;
    threads = threads_for(steps, count, threads);
    net->count = count;
    net->schedule = fc_schedule_new(threads);
    net->waves = calloc((size_t)count + 1, sizeof *net->waves);
    fc_list list = {.schedule = net->schedule, .status = net->schedule && net->waves ? FC_OK : FC_NO_MEMORY};
    for (int64_t i = 0; i < count && list.status == FC_OK; i++) {
        const fc_plan *plan = steps[i].plan;
        list.at = steps[i].at;
        list.at.shared = fc_place_in(FC_NET_SCRATCH);
        list.order = FC_AFTER;
        const int64_t first = net->schedule->stage_count;
        plan->kind->stages(plan, threads_of(plan, threads), &list);
        net->waves[i + 1] = net->waves[i];
        for (int64_t s = first; s < net->schedule->stage_count; s++)
            net->waves[i + 1] += net->schedule->stages[s].order == FC_AFTER;
    }
    const fc_status status = list.status == FC_OK ? fc_schedule_finish(&list) : list.status;
    if (status != FC_OK) {
        fc_net_destroy(net);
        return status;
    }
    net->schedule->exact = 0; // what is below the normal range, no later layer sees
    *out = net;
    return FC_OK;
}

size_t fc_net_scratch_bytes(const fc_net *net) { return fc_schedule_scratch_bytes(net->schedule); }

int fc_net_threads(const fc_net *net) { return net->schedule->threads; }

int64_t fc_net_waves(const fc_net *net) { return net->schedule->wave_count; }

fc_status fc_net_run(const fc_net *net, char *const *arrays, double *starts, double *seconds) {
    const fc_schedule *s = net->schedule;
    const fc_status status = fc_schedule_run_over(s, arrays, arrays[FC_NET_SCRATCH] + s->shared, starts);
    for (int64_t i = 0; starts && i < net->count; i++) seconds[i] = starts[net->waves[i + 1]] - starts[net->waves[i]];
    return status;
}
