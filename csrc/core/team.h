// SPDX-License-Identifier: BSD-3-Clause
//
// team.h - the only place that starts threads.
#ifndef FC_TEAM_H
#define FC_TEAM_H

#include <stdint.h>

// One task of many; `thread` (0 .. threads - 1) selects private scratch.  Tasks write disjoint memory, so that results
// do not depend on who runs which.
typedef void (*fc_task_fn)(void *context, int64_t task, int thread);

// How many threads `seconds` of predicted work deserve: waking one costs about 10 us, so each gets no less.
int fc_worthwhile_threads(double seconds, int threads);

// Runs tasks 0 .. count - 1 on up to `threads` threads: each begins with a part of them, and helps others when it is done.
// Numbers below the normal range count as zero.
void fc_parallel(int64_t count, int threads, fc_task_fn task, void *context);

// The same in the caller's floating-point mode, for tasks that compare and copy rather than compute.
void fc_parallel_exact(int64_t count, int threads, fc_task_fn task, void *context);

// Tasks in waves, counts[w] of them in wave w: none begins before those of the wave before have ended.  The threads stay
// together from the first wave to the last.  `exact`: in the caller's floating-point mode.
typedef void (*fc_wave_fn)(void *context, int64_t wave, int64_t task, int thread);
void fc_parallel_waves(const int64_t *counts, int64_t waves, int threads, int exact, fc_wave_fn task, void *context);

// For tasks that may take more than a tenth of a second: whether to leave the rest of this one undone, since nobody
// waits for the result any more.  It costs some ten nanoseconds.
int fc_must_stop(void);

#endif
