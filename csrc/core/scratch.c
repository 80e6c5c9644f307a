// SPDX-License-Identifier: BSD-3-Clause
//
// scratch.c - memory: aligned, in large pages where it is large; a handful of buffers that outlive a call, so that a
// call in a loop does not pay for fresh pages each time; and the memory of results, for the results after them.
#ifdef __linux__
#define _DEFAULT_SOURCE // madvise, anonymous maps
#endif
#include "fastconv.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

enum { SLOTS = 8, ALIGN = 64 };

// Weights and scratch of megabytes are read in strides that would need an entry of the TLB each few lines.
static const size_t large_page = (size_t)2 << 20;

// Maps of their own, as malloc would in time carve them from a heap that falls to pieces between them; at large pages where
// whole ones are used: the rest of one that is touched would be memory too.
#ifdef __linux__
static size_t map_size(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) / page * page;
}

static void *map(size_t bytes) {
    if (bytes > SIZE_MAX / 2) return NULL;
    const size_t size = map_size(bytes), more = size >= large_page ? large_page : 0;
    char *base = mmap(NULL, size + more, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return NULL;
    if (!more) return base;
    char *start = base + (large_page - (uintptr_t)base % large_page) % large_page;
    if (start > base) (void)munmap(base, (size_t)(start - base));
    if (start < base + more) (void)munmap(start + size, (size_t)(base + more - start));
#ifdef MADV_HUGEPAGE
    (void)madvise(start, size / large_page * large_page, MADV_HUGEPAGE); // a wish: without it, it is slower
#endif
    return start;
}

static void unmap(void *memory, size_t bytes) { (void)munmap(memory, map_size(bytes)); }
#else
static void *map(size_t bytes) {
    return bytes > SIZE_MAX / 2 ? NULL : aligned_alloc(ALIGN, (bytes + ALIGN - 1) / ALIGN * ALIGN);
}
static void unmap(void *memory, size_t bytes) { (void)bytes, free(memory); }
#endif

void *fc_memory_acquire(size_t bytes) {
    return bytes < large_page ? aligned_alloc(ALIGN, bytes / ALIGN * ALIGN + ALIGN) : map(bytes);
}

void fc_memory_release(void *memory, size_t bytes) {
    if (bytes < large_page) free(memory);
    else if (memory) unmap(memory, bytes);
}

// ------------------------------------------------------------------------------------------------------------- waiting

typedef struct block {
    void *memory;
    size_t capacity;
} block;

// What nobody has in use, the block that has waited longest first.
typedef struct store {
    block *waiting;
    size_t count, bytes;
} store;

// Of both stores.  Whoever looks is done before another could fall asleep.
static atomic_flag busy = ATOMIC_FLAG_INIT;

static void lock(void) {
    while (atomic_flag_test_and_set_explicit(&busy, memory_order_acquire)) sched_yield();
}

static void unlock(void) { atomic_flag_clear_explicit(&busy, memory_order_release); }

// No other thread of the parent is halfway through when a child gets its copy.
__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(lock, unlock, unlock); }

static block take(store *s, size_t i) {
    const block b = s->waiting[i];
    s->count--;
    s->bytes -= b.capacity;
    memmove(&s->waiting[i], &s->waiting[i + 1], (s->count - i) * sizeof b);
    return b;
}

static void put(store *s, block b) {
    s->waiting[s->count++] = b;
    s->bytes += b.capacity;
}

static size_t bytes_of(const store *s) {
    lock();
    const size_t bytes = s->bytes;
    unlock();
    return bytes;
}

// Large blocks are left to large requests, which would have to allocate another.
static int suits(size_t capacity, size_t bytes) {
    const size_t small = (size_t)1 << 20;
    return capacity >= bytes && (capacity <= small || capacity / 4 <= bytes);
}

static int fits(size_t capacity, size_t bytes) { return capacity >= bytes && capacity - bytes <= bytes / 8; }

// The smallest of those that are `right` for so many bytes; of equal ones the last, which caches may hold.  A block of no
// memory where there is none.
static block find(store *s, size_t bytes, int (*right)(size_t, size_t)) {
    size_t best = SIZE_MAX;
    for (size_t i = s->count; i-- > 0;) {
        const size_t c = s->waiting[i].capacity;
        if (right(c, bytes) && (best == SIZE_MAX || c < s->waiting[best].capacity)) best = i;
    }
    return best == SIZE_MAX ? (block){NULL, bytes} : take(s, best);
}

// ------------------------------------------------------------------------------------------------------------- scratch

static block slots[SLOTS];
static store scratch = {.waiting = slots};

// A buffer starts with its capacity, one cache line before what the caller sees.
static size_t capacity_of(const void *buffer) { return *(const size_t *)((const char *)buffer - ALIGN); }

static void destroy(void *buffer) { fc_memory_release((char *)buffer - ALIGN, capacity_of(buffer) + ALIGN); }

void *fc_scratch_acquire(size_t bytes) {
    lock();
    void *buffer = find(&scratch, bytes, suits).memory;
    unlock();
    if (buffer) return buffer;
    char *base = bytes < SIZE_MAX - ALIGN ? fc_memory_acquire(bytes + ALIGN) : NULL;
    if (!base) return NULL;
    *(size_t *)base = bytes;
    return base + ALIGN;
}

// Those go that have waited longest, until there is room.
void fc_scratch_release(void *buffer) {
    if (!buffer) return;
    const block b = {buffer, capacity_of(buffer)};
    int waits = 0;
    while (!waits && b.capacity <= FC_SCRATCH_KEPT) {
        block oldest = {NULL, 0};
        lock();
        waits = scratch.count < SLOTS && scratch.bytes <= FC_SCRATCH_KEPT - b.capacity;
        if (waits) put(&scratch, b);
        else oldest = take(&scratch, 0);
        unlock();
        if (oldest.memory) destroy(oldest.memory);
    }
    if (!waits) destroy(buffer);
}

size_t fc_scratch_kept(void) { return bytes_of(&scratch); }

// ------------------------------------------------------------------------------------------------------------- results
//
// A step of training makes hundreds of arrays of megabytes and lets go of them.  The system fills each page with zeros
// before it hands it out, which took a quarter of a step of MobileNet.  So what is let go of waits for a request of its
// size, as long as all of it, waiting or not, is at most half as much again as ever was in use at once.  A chain of
// layers, which uses little at once and each time another size, has it for smaller ones: half of the time of DenseNet.

static struct {
    store store;
    size_t room, used, most;
} results;

// Gives back what has waited longest until at most so many bytes wait.
static void give_back(size_t bytes) {
    for (;;) {
        lock();
        const block b = results.store.bytes > bytes ? take(&results.store, 0) : (block){NULL, 0};
        unlock();
        if (!b.memory) return;
        unmap(b.memory, b.capacity);
    }
}

// What all may take, waiting or not, once `used` bytes are in use.
static size_t most_of_all(size_t used) {
    const size_t most = used > results.most ? used : results.most;
    return most + most / 2;
}

void *fc_result_acquire(size_t bytes, size_t *capacity) {
    lock();
    block found = find(&results.store, bytes, fits);
    const size_t used = results.used + bytes;
    // A larger one rather than a new one for which others would have to go.
    if (!found.memory && used + results.store.bytes > most_of_all(used)) found = find(&results.store, bytes, suits);
    results.used += found.capacity;
    const size_t left = most_of_all(results.used) - results.used;
    if (results.used > results.most) results.most = results.used;
    unlock();
    *capacity = found.capacity;
    if (found.memory) return found.memory;
    give_back(left);
    found.memory = map(bytes);
    if (!found.memory) {
        give_back(0);
        found.memory = map(bytes);
    }
    if (found.memory) return found.memory;
    lock();
    results.used -= bytes;
    unlock();
    return NULL;
}

void fc_result_release(void *memory, size_t capacity) {
    int waits = 1;
    if (!memory) return;
    lock();
    results.used -= capacity;
    if (results.store.count == results.room) {
        const size_t room = 2 * results.room + SLOTS;
        block *more = realloc(results.store.waiting, room * sizeof *more);
        waits = more != NULL;
        if (more) results.store.waiting = more, results.room = room;
    }
    if (waits) put(&results.store, (block){memory, capacity});
    unlock();
    if (!waits) unmap(memory, capacity);
}

void fc_result_forget(void) {
    give_back(0);
    lock();
    results.most = results.used;
    unlock();
}

size_t fc_results_kept(void) { return bytes_of(&results.store); }
