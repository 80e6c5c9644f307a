// SPDX-License-Identifier: BSD-3-Clause
#include "parallel.h"

#include <pthread.h>
#include <stdatomic.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

// Denormals cost a hundred cycles each on many machines.  Results and operands below the normal range count as zero
// while a task runs; the caller's mode is restored behind it.
static unsigned long flush_begin(void) {
#if defined(__x86_64__)
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040); // flush to zero, denormals are zero
    return mode;
#elif defined(__aarch64__)
    unsigned long mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    __asm__ volatile("msr fpcr, %0" : : "r"(mode | 1ul << 24));
    return mode;
#else
    return 0;
#endif
}

static void flush_end(unsigned long mode) {
#if defined(__x86_64__)
    _mm_setcsr((unsigned)mode);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
#else
    (void)mode;
#endif
}

int fc_worthwhile_threads(double seconds, int threads) { return seconds < 20e-6 || threads < 1 ? 1 : threads; }

static void run_serial(int64_t count, int flush, fc_task_fn task, void *context) {
    const unsigned long mode = flush ? flush_begin() : 0;
    for (int64_t i = 0; i < count; i++) task(context, i, 0);
    if (flush) flush_end(mode);
}

#ifdef _OPENMP
// GNU OpenMP's threads do not survive fork(), and its next parallel region in the child would wait for them for ever.
static atomic_int forked;

static void in_child(void) { atomic_store(&forked, 1); }

static void watch_forks(void) { pthread_atfork(NULL, NULL, in_child); }

static void run(int64_t count, int threads, int flush, fc_task_fn task, void *context) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (count < threads) threads = (int)count;
    if (threads <= 1 || atomic_load(&forked)) {
        run_serial(count, flush, task, context);
        return;
    }
    pthread_once(&once, watch_forks);
    _Atomic int64_t next = 0;
#pragma omp parallel num_threads(threads)
    {
        const unsigned long mode = flush ? flush_begin() : 0;
        for (int64_t i; (i = atomic_fetch_add(&next, 1)) < count;) task(context, i, omp_get_thread_num());
        if (flush) flush_end(mode);
    }
}
#else
static void run(int64_t count, int threads, int flush, fc_task_fn task, void *context) {
    (void)threads;
    run_serial(count, flush, task, context);
}
#endif

void fc_parallel(int64_t count, int threads, fc_task_fn task, void *context) { run(count, threads, 1, task, context); }

void fc_parallel_exact(int64_t count, int threads, fc_task_fn task, void *context) {
    run(count, threads, 0, task, context);
}
