// SPDX-License-Identifier: BSD-3-Clause
//
// cpus.c - a thread of a team keeps off the CPUs of the others.
//
// Linux wakes a thread on the CPU of the one that wakes it where the CPU that it had seems busy, and to a virtual machine
// under KVM each CPU that sleeps does.  Two threads of a team then share a CPU while another has nothing to do: the one
// that waits spins, and when it gives up the other runs, waits and spins.  As long as nobody spins for a whole time slice
// the scheduler sees no need to part them, and each call takes two such waits, half a millisecond where it takes 24 us.
// So a thread that finds itself where another of its region is leaves that CPU, and is not woken there again.
#ifdef __linux__
#define _GNU_SOURCE // cpu_set_t, sched_getcpu, syscall
#endif
#include "core/cpus.h"
#include "fastconv.h"

#include <time.h>

#ifdef __linux__
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

static int64_t nanoseconds(struct timespec t) { return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec; }

int64_t fc_moment(void) {
    struct timespec now;
#ifdef CLOCK_MONOTONIC_COARSE
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
#else
    clock_gettime(CLOCK_MONOTONIC, &now);
#endif
    return nanoseconds(now);
}

#ifdef __linux__
int fc_process_cpus(void) {
    static _Thread_local int64_t asked;
    static _Thread_local int cpus;
    const int64_t now = fc_moment();
    if (now - asked < 10000000) return cpus;
    unsigned long mask[256];
    const long bytes = syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
    asked = now;
    cpus = 0;
    for (long i = 0; i < bytes / (long)sizeof *mask; i++) cpus += __builtin_popcountl(mask[i]);
    return cpus;
}

// Whether another thread had been found there.
static int take(fc_cpus *cpus, int cpu) {
    const uint64_t bit = (uint64_t)1 << cpu % 64;
    return (atomic_fetch_or_explicit(&cpus->taken[cpu / 64], bit, memory_order_relaxed) & bit) != 0;
}

void fc_cpus_begin(fc_cpus *cpus, int threads) {
    static _Thread_local _Atomic int last[FC_MOST_THREADS];
    for (int i = 0; i < FC_MOST_CPUS / 64; i++) atomic_init(&cpus->taken[i], 0);
    cpus->caller = pthread_self();
    cpus->last = last;
    cpus->meets = 0;
    const int cpu = sched_getcpu();
    if (cpu < 0 || cpu >= FC_MOST_CPUS) return;
    take(cpus, cpu);
    for (int i = 1; i < threads && i < FC_MOST_THREADS; i++)
        cpus->meets |= atomic_load_explicit(&last[i], memory_order_relaxed) == cpu + 1;
}

// Away from here, to where the caller may run and nobody was found yet.  Where all CPUs are busy threads meet again and
// again: each moves at most once in so many nanoseconds.
static void move(const fc_cpus *cpus, int threads) {
    enum { REST = 250000 };
    static _Thread_local int64_t moved;
    struct timespec clock;
    clock_gettime(CLOCK_MONOTONIC, &clock);
    const int64_t now = nanoseconds(clock);
    cpu_set_t set;
    if (now - moved < REST || pthread_getaffinity_np(cpus->caller, sizeof set, &set) != 0) return;
    if (CPU_COUNT(&set) < threads) return;
    for (int i = 0; i < FC_MOST_CPUS; i++)
        if (atomic_load_explicit(&cpus->taken[i / 64], memory_order_relaxed) >> i % 64 & 1) CPU_CLR(i, &set);
    if (CPU_COUNT(&set) == 0) return;
    moved = now;
    pthread_setaffinity_np(pthread_self(), sizeof set, &set); // refused: it stays
}

// The caller lets a thread that waits for its CPU go first, and away: if it slept till the other is done, it would be
// woken on the other's new CPU.
void fc_cpus_take(fc_cpus *cpus, int thread, int threads) {
    if (thread == 0) {
        if (cpus->meets) sched_yield();
        return;
    }
    int cpu = sched_getcpu();
    if (cpu < 0 || cpu >= FC_MOST_CPUS) return;
    if (take(cpus, cpu)) {
        move(cpus, threads);
        cpu = sched_getcpu();
    }
    _Atomic int *last = &cpus->last[thread % FC_MOST_THREADS];
    if (atomic_load_explicit(last, memory_order_relaxed) != cpu + 1)
        atomic_store_explicit(last, cpu + 1, memory_order_relaxed);
}
#else
int fc_process_cpus(void) { return 0; }

void fc_cpus_begin(fc_cpus *cpus, int threads) { (void)cpus, (void)threads; }

void fc_cpus_take(fc_cpus *cpus, int thread, int threads) { (void)cpus, (void)thread, (void)threads; }
#endif
