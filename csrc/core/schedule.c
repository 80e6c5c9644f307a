// SPDX-License-Identifier: BSD-3-Clause
#include "core/plan.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct fc_kept {
    struct fc_kept *next;
    _Alignas(16) char context[];
} fc_kept;

const void *fc_list_keep(fc_list *list, const void *context, size_t bytes) {
    if (list->status != FC_OK) return NULL;
    fc_kept *kept = malloc(sizeof *kept + bytes);
    if (!kept) {
        list->status = FC_NO_MEMORY;
        return NULL;
    }
    memcpy(kept->context, context, bytes);
    kept->next = list->schedule->kept;
    list->schedule->kept = kept;
    return kept->context;
}

void fc_list_stage(fc_list *list, const fc_plan *plan, fc_stage_fn run, int64_t count, const void *context) {
    fc_schedule *s = list->schedule;
    if (list->status != FC_OK || count == 0) return;
    if (s->stage_count == list->room) {
        const int64_t room = list->room ? 2 * list->room : 4;
        fc_stage *stages = realloc(s->stages, (size_t)room * sizeof *stages);
        if (!stages) {
            list->status = FC_NO_MEMORY;
            return;
        }
        s->stages = stages;
        list->room = room;
    }
    s->stages[s->stage_count++] =
        (fc_stage){.count = count, .run = run, .plan = plan, .context = context, .at = list->at, .order = list->order};
    list->order = FC_AFTER;
}

void fc_list_scratch(fc_list *list, size_t shared, size_t each) {
    fc_schedule *s = list->schedule;
    s->shared = (size_t)fc_max((int64_t)s->shared, (int64_t)fc_align(shared) + list->at.shared.offset);
    s->each = (size_t)fc_max((int64_t)s->each, (int64_t)fc_align(each));
}

fc_schedule *fc_schedule_new(int threads) {
    fc_schedule *s = calloc(1, sizeof *s);
    if (s) s->threads = threads;
    return s;
}

// Cuts the stages into waves, and numbers the tasks of each.
fc_status fc_schedule_finish(fc_list *list) {
    fc_schedule *s = list->schedule;
    if (list->status != FC_OK) return list->status;
    for (int64_t i = 0; i < s->stage_count; i++) s->wave_count += i == 0 || s->stages[i].order == FC_AFTER;
    s->wave_first = calloc((size_t)fc_max(1, 2 * s->wave_count), sizeof *s->wave_first);
    if (!s->wave_first) return FC_NO_MEMORY;
    s->wave_tasks = s->wave_first + s->wave_count;
    int64_t wave = -1;
    fc_stage *unit = NULL;
    for (int64_t i = 0; i < s->stage_count; i++) {
        fc_stage *stage = &s->stages[i];
        const int begins = i == 0 || stage->order == FC_AFTER;
        if (begins) s->wave_first[++wave] = i;
        if (begins || stage->order != FC_TOGETHER) {
            unit = stage;
            unit->first = s->wave_tasks[wave];
        }
        if (stage->count > unit->tasks) {
            s->wave_tasks[wave] += stage->count - unit->tasks;
            unit->tasks = stage->count;
        }
        unit->together++;
        stage->first = unit->first;
    }
    return FC_OK;
}

void fc_schedule_destroy(fc_schedule *s) {
    if (!s) return;
    while (s->kept) {
        fc_kept *next = s->kept->next;
        free(s->kept);
        s->kept = next;
    }
    free(s->stages);
    free(s->wave_first);
    free(s);
}

// ------------------------------------------------------------------------------------------------------------ running

static void run_unit(const fc_stage *unit, fc_call *call, int64_t task, int thread) {
    for (const fc_stage *stage = unit; stage < unit + unit->together; stage++)
        if (task < stage->count) stage->run(stage, call, task, thread);
}

// The table of a plan's call.
#define FC_TABLE(operands, scratch)                                                                                    \
    {[FC_BASE_SRC] = (char *)(operands)->src,                                                                          \
     [FC_BASE_WEI] = (char *)(operands)->wei,                                                                          \
     [FC_BASE_RESIDUAL] = (char *)(operands)->residual,                                                                \
     [FC_BASE_DST] = (operands)->dst,                                                                                  \
     [FC_BASE_FURTHER] = (operands)->further,                                                                          \
     [FC_BASE_INDEX] = (char *)(operands)->index,                                                                      \
     [FC_BASE_OTHER] = (char *)(operands)->other[0],                                                                   \
     [FC_BASE_OTHER + 1] = (char *)(operands)->other[1],                                                               \
     [FC_BASE_OTHER + 2] = (char *)(operands)->other[2],                                                               \
     [FC_BASE_SHARED] = (scratch)}

void fc_schedule_run_alone(const fc_schedule *s, const fc_operands *operands, void *scratch) {
    char *const base[FC_BASES] = FC_TABLE(operands, scratch);
    fc_call call = {.base = base, .own = (char *)scratch + s->shared, .each = s->each};
    for (int64_t i = 0; i < s->stage_count; i += s->stages[i].together)
        for (int64_t task = 0; task < s->stages[i].tasks && !fc_must_stop(); task++)
            run_unit(&s->stages[i], &call, task, 0);
}

typedef struct running {
    const fc_schedule *schedule;
    double *starts;
    fc_call call;
} running;

static double moment(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// The stage that begins the unit of a task, by bisection: a gradient may have thousands of them.
static const fc_stage *unit_of(const fc_schedule *s, int64_t wave, int64_t task) {
    int64_t low = s->wave_first[wave], high = wave + 1 < s->wave_count ? s->wave_first[wave + 1] : s->stage_count;
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (s->stages[middle].first <= task) low = middle;
        else high = middle;
    }
    while (s->stages[low].together == 0) low--;
    return &s->stages[low];
}

static void wave_task(void *context, int64_t wave, int64_t task, int thread) {
    running *r = context;
    const fc_stage *unit = unit_of(r->schedule, wave, task);
    if (r->starts && task == 0) r->starts[wave] = moment();
    run_unit(unit, &r->call, task - unit->first, thread);
}

size_t fc_schedule_scratch_bytes(const fc_schedule *s) { return s->shared + (size_t)s->threads * s->each; }

fc_status fc_schedule_run_over(const fc_schedule *s, char *const *base, void *own, double *starts) {
    running r = {s, starts, {.base = base, .own = own, .each = s->each}};
    for (int64_t w = 0; starts && w < s->wave_count; w++) starts[w] = -1;
    fc_parallel_waves(s->wave_tasks, s->wave_count, s->threads, s->exact, wave_task, &r);
    if (starts) starts[s->wave_count] = moment();
    for (int64_t w = s->wave_count - 1; starts && w >= 0; w--) // a wave without tasks takes no time
        if (starts[w] < 0) starts[w] = starts[w + 1];
    return (fc_status)atomic_load(&r.call.status);
}

fc_status fc_schedule_run(const fc_schedule *s, const fc_operands *operands, void *scratch) {
    char *const base[FC_BASES] = FC_TABLE(operands, scratch);
    return fc_schedule_run_over(s, base, (char *)scratch + s->shared, NULL);
}
