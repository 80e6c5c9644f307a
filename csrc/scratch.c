// SPDX-License-Identifier: BSD-3-Clause
//
// scratch.c - memory: aligned, in large pages where it is large, and a handful of buffers that outlive a call, so that a
// call in a loop does not pay for fresh pages each time.  Each slot is taken and put back by one atomic exchange; what
// finds no slot is freed.
#ifdef __linux__
#define _DEFAULT_SOURCE // madvise
#endif
#include "fastconv.h"

#include <stdatomic.h>
#include <stdlib.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

enum { SLOTS = 4, ALIGN = 64 };

// Weights and scratch of megabytes are read in strides that would need an entry of the TLB each few lines.
static const size_t large_page = (size_t)2 << 20;

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

// The largest buffer kept, so that one outsized call does not hold memory for ever.
static const size_t keep = (size_t)64 << 20;

static _Atomic(void *) slots[SLOTS];

// A buffer starts with its capacity, one cache line before what the caller sees.
static size_t capacity_of(void *buffer) { return *(size_t *)((char *)buffer - ALIGN); }

static void destroy(void *buffer) {
    if (buffer) fc_memory_release((char *)buffer - ALIGN);
}

void *fc_scratch_acquire(size_t bytes) {
    for (int i = 0; i < SLOTS; i++) {
        void *buffer = atomic_exchange(&slots[i], NULL);
        if (!buffer) continue;
        if (capacity_of(buffer) >= bytes) return buffer;
        destroy(buffer); // too small: the one allocated now takes its place
        break;
    }
    char *base = bytes < SIZE_MAX - ALIGN ? fc_memory_acquire(bytes + ALIGN) : NULL;
    if (!base) return NULL;
    *(size_t *)base = bytes;
    return base + ALIGN;
}

void fc_scratch_release(void *buffer) {
    if (!buffer) return;
    if (capacity_of(buffer) <= keep)
        for (int i = 0; i < SLOTS; i++) {
            void *empty = NULL;
            if (atomic_compare_exchange_strong(&slots[i], &empty, buffer)) return;
        }
    destroy(buffer);
}
