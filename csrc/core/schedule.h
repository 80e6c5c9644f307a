// SPDX-License-Identifier: BSD-3-Clause
//
// schedule.h - how a plan is carried out by a number of threads: stages of tasks, in order, and where the operands of
// each lie.
//
//   list     a kind of problem appends its stages, and those of its children, for so many threads
//   run      one loop (team.c) goes through the stages of a call, whatever they are, and waits only where one asks for it
#ifndef FC_SCHEDULE_H
#define FC_SCHEDULE_H

#include "fastconv.h"

#include <stdatomic.h>

// The arrays of a plan's call, in the order of its table.  A network has a table of its own (fc_step).
typedef enum fc_base {
    FC_BASE_NONE = 0,
    FC_BASE_SRC,
    FC_BASE_WEI,
    FC_BASE_RESIDUAL,
    FC_BASE_DST,
    FC_BASE_FURTHER,
    FC_BASE_INDEX,
    FC_BASE_OTHER,                              // and as many more as there are others
    FC_BASE_SHARED = FC_BASE_OTHER + FC_OTHERS, // scratch that all threads share
    FC_BASES
} fc_base;

static inline fc_place fc_place_in(int32_t base) { return (fc_place){base, base, 0}; }
static inline fc_place fc_behind(fc_place place, int64_t bytes) {
    place.offset += bytes;
    return place;
}

// A schedule at work.  `own` is scratch that no two threads share, `each` bytes for every one.
typedef struct fc_call {
    char *const *base; // the arrays; the first is NULL
    char *own;
    size_t each;
    atomic_int status; // fc_status, the first that is not FC_OK
} fc_call;

typedef struct fc_stage fc_stage;
typedef void (*fc_stage_fn)(const fc_stage *stage, fc_call *call, int64_t task, int thread);

// Whether a stage begins when all before it have ended, or its tasks may run beside theirs, or each of them is to be run
// together with the task of the same number of the stage before: parts that touch the same cache lines.
typedef enum fc_order { FC_AFTER = 0, FC_BESIDE, FC_TOGETHER } fc_order;

// Tasks that may run in any order and write disjoint memory, so that results do not depend on who runs which.
struct fc_stage {
    int64_t count;
    fc_stage_fn run;
    const fc_plan *plan;
    const void *context; // of the schedule
    fc_places at;
    fc_order order;
    // Filled in by the schedule.  A unit is a stage and those that run together with it.
    int64_t first;    // of the unit's tasks among those of the wave
    int64_t tasks;    // of the unit
    int64_t together; // stages of the unit; 0 for all but its first
};

struct fc_schedule {
    fc_schedule *next; // of the same plan
    int threads;
    int exact;           // floating point as the caller has it, rather than without numbers below the normal range
    size_t shared, each; // bytes of scratch
    int64_t stage_count, wave_count;
    fc_stage *stages;
    // Waves: stages none of which waits for another.  The first stage of each, and how many tasks it has.
    int64_t *wave_first, *wave_tasks;
    struct fc_kept *kept; // contexts
};

static inline void *fc_operand(const fc_call *call, fc_place place) {
    char *base = call->base[place.base];
    return base && call->base[place.given] ? base + place.offset : NULL;
}

static inline void *fc_own_scratch(const fc_call *call, int thread) { return call->own + (size_t)thread * call->each; }

// ------------------------------------------------------------------------------------------------------------ listing

// A schedule while stages are appended.  The first failure is kept, and what follows it does nothing.
typedef struct fc_list {
    fc_schedule *schedule;
    fc_places at;   // of the stages to come
    fc_order order; // of the next stage; those behind it come after it
    int64_t room;
    fc_status status;
} fc_list;

// A copy of a context that lives as long as the schedule; NULL when there is no memory.
const void *fc_list_keep(fc_list *list, const void *context, size_t bytes);
void fc_list_stage(fc_list *list, const fc_plan *plan, fc_stage_fn run, int64_t count, const void *context);
// Scratch that stages to come need: behind list->at.shared, and for each thread.
void fc_list_scratch(fc_list *list, size_t shared, size_t each);

// An empty schedule, or NULL; what is listed is then completed, after which it does not change.
fc_schedule *fc_schedule_new(int threads);
fc_status fc_schedule_finish(fc_list *list);
void fc_schedule_destroy(fc_schedule *schedule);

// ------------------------------------------------------------------------------------------------------------ running

// As fc_schedule_run, over a table of arrays; `own` is scratch for the threads.  With `starts`, the moments at which the
// waves begin, in seconds of some clock, and the one behind the last at which all have ended.
fc_status fc_schedule_run_over(const fc_schedule *schedule, char *const *base, void *own, double *starts);
// As fc_schedule_run, of a schedule for one thread, from within a task of another.
void fc_schedule_run_alone(const fc_schedule *schedule, const fc_operands *operands, void *scratch);

#endif
