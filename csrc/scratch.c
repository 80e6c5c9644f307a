// SPDX-License-Identifier: BSD-3-Clause
//
// scratch.c - a handful of buffers that outlive a call, so that a call in a loop does not pay for fresh pages each time.
// Each slot is taken and put back by one atomic exchange; what finds no slot is freed.
#include "fastconv.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { SLOTS = 4, ALIGN = 64 };

// The largest buffer kept, so that one outsized call does not hold memory for ever.
static const size_t keep = (size_t)64 << 20;

static _Atomic(void *) slots[SLOTS];

// A buffer starts with its capacity, one cache line before what the caller sees.
static size_t capacity_of(void *buffer) { return *(size_t *)((char *)buffer - ALIGN); }

static void destroy(void *buffer) {
    if (buffer) free((char *)buffer - ALIGN);
}

void *fc_scratch_acquire(size_t bytes) {
    for (int i = 0; i < SLOTS; i++) {
        void *buffer = atomic_exchange(&slots[i], NULL);
        if (!buffer) continue;
        if (capacity_of(buffer) >= bytes) return buffer;
        destroy(buffer); // too small: the one allocated now takes its place
        break;
    }
    if (bytes > SIZE_MAX / 2) return NULL;
    const size_t rounded = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    char *base = aligned_alloc(ALIGN, rounded + ALIGN);
    if (!base) return NULL;
    *(size_t *)base = rounded;
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
