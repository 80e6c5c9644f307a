// SPDX-License-Identifier: BSD-3-Clause
//
// cpus.h - which CPUs the threads of a region run on.
#ifndef FC_CPUS_H
#define FC_CPUS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

enum { FC_MOST_CPUS = 1024, FC_MOST_THREADS = 256 };

// The CPUs on which threads of a region have been found, a bit each; the thread that started it, and what it knows of the
// others.
typedef struct fc_cpus {
    _Alignas(64) _Atomic uint64_t taken[FC_MOST_CPUS / 64];
    pthread_t caller;
    _Atomic int *last; // of each thread: the CPU on which it began its last region, plus one
    int meets;         // whether another one was last where the caller is now
} fc_cpus;

// By the thread that starts a region of so many, before the others.
void fc_cpus_begin(fc_cpus *cpus, int threads);

// By each thread as it begins: one that is on the CPU of another moves to one that is free.
void fc_cpus_take(fc_cpus *cpus, int thread, int threads);

// Nanoseconds of a clock that is read in five, and advances every few milliseconds.
int64_t fc_moment(void);

#endif
