// SPDX-License-Identifier: BSD-3-Clause
//
// scratch.c - memory: aligned, in large pages where it is large, and a handful of buffers that outlive a call, so that a
// call in a loop does not pay for fresh pages each time.
#ifdef __linux__
#define _DEFAULT_SOURCE // madvise
#endif
#include "fastconv.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

enum { SLOTS = 8, ALIGN = 64 };

// Weights and scratch of megabytes are read in strides that would need an entry of the TLB each few lines.
static const size_t large_page = (size_t)2 << 20, small = (size_t)1 << 20;

void *fc_memory_acquire(size_t bytes) {
    if (bytes > SIZE_MAX / 2) return NULL;
    const int large = bytes >= large_page;
    const size_t align = large ? large_page : ALIGN;
    const size_t rounded = (bytes + align - 1) / align * align;
    void *memory = aligned_alloc(align, rounded ? rounded : align);
#ifdef MADV_HUGEPAGE
    if (memory && large) (void)madvise(memory, rounded, MADV_HUGEPAGE); // a wish: without it, it is slower
#endif
    return memory;
}

void fc_memory_release(void *memory) { free(memory); }

// A buffer starts with its capacity, one cache line before what the caller sees.
static size_t capacity_of(const void *buffer) { return *(const size_t *)((const char *)buffer - ALIGN); }

static void destroy(void *buffer) {
    if (buffer) fc_memory_release((char *)buffer - ALIGN);
}

// The buffers that wait, the one that has waited longest first.  Whoever looks is done before another could fall asleep.
static void *waiting[SLOTS];
static int count;
static size_t kept;
static atomic_flag busy = ATOMIC_FLAG_INIT;

static void lock(void) {
    while (atomic_flag_test_and_set_explicit(&busy, memory_order_acquire)) sched_yield();
}

static void unlock(void) { atomic_flag_clear_explicit(&busy, memory_order_release); }

// No other thread of the parent is halfway through when a child gets its copy.
__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(lock, unlock, unlock); }

static void *take(int i) {
    void *buffer = waiting[i];
    kept -= capacity_of(buffer);
    count--;
    memmove(&waiting[i], &waiting[i + 1], (size_t)(count - i) * sizeof *waiting);
    return buffer;
}

// Large buffers are left to large requests, which would have to allocate another.
static int suits(size_t capacity, size_t bytes) {
    return capacity >= bytes && (capacity <= small || capacity / 4 <= bytes);
}

void *fc_scratch_acquire(size_t bytes) {
    int best = -1;
    lock();
    for (int i = 0; i < count; i++) {
        const size_t capacity = capacity_of(waiting[i]);
        if (suits(capacity, bytes) && (best < 0 || capacity < capacity_of(waiting[best]))) best = i;
    }
    void *buffer = best < 0 ? NULL : take(best);
    unlock();
    if (buffer) return buffer;
    char *base = bytes < SIZE_MAX - ALIGN ? fc_memory_acquire(bytes + ALIGN) : NULL;
    if (!base) return NULL;
    *(size_t *)base = bytes;
    return base + ALIGN;
}

void fc_scratch_release(void *buffer) {
    if (!buffer) return;
    const size_t capacity = capacity_of(buffer);
    if (capacity > FC_SCRATCH_KEPT) {
        destroy(buffer);
        return;
    }
    void *old[SLOTS];
    int olds = 0;
    lock();
    while (count == SLOTS || kept > FC_SCRATCH_KEPT - capacity) old[olds++] = take(0);
    waiting[count++] = buffer;
    kept += capacity;
    unlock();
    while (olds) destroy(old[--olds]);
}

size_t fc_scratch_kept(void) {
    lock();
    const size_t bytes = kept;
    unlock();
    return bytes;
}
