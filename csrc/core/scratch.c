// SPDX-License-Identifier: BSD-3-Clause
//
// scratch.c - memory: aligned, in large pages where it is large; a handful of small buffers that outlive a call, so that a
// call in a loop does not pay for fresh pages each time; and the memory of results and of large scratch, for those after
// them.
#define _DEFAULT_SOURCE // madvise, anonymous maps
#include "fastconv.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// Weights and scratch of megabytes are read in strides that would need an entry of the TLB each few lines.
#define LARGE_PAGE ((size_t)2 << 20)

enum { ALIGN = 64, SLOTS = FC_SCRATCH_KEPT / LARGE_PAGE }; // of smaller scratch

static size_t whole_pages(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) / page * page;
}

// Maps of their own, as malloc would in time carve them from a heap that falls to pieces between them; at large pages where
// whole ones are used: the rest of one that is touched would be memory too.
static void *map(size_t bytes) {
    if (bytes > SIZE_MAX / 2) return NULL;
    const size_t size = whole_pages(bytes), more = size >= LARGE_PAGE ? LARGE_PAGE : 0;
    char *base = mmap(NULL, size + more, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return NULL;
    if (!more) return base;
    char *start = base + (LARGE_PAGE - (uintptr_t)base % LARGE_PAGE) % LARGE_PAGE;
    if (start > base) (void)munmap(base, (size_t)(start - base));
    if (start < base + more) (void)munmap(start + size, (size_t)(base + more - start));
#ifdef MADV_HUGEPAGE
    (void)madvise(start, size / LARGE_PAGE * LARGE_PAGE, MADV_HUGEPAGE); // a wish: without it, it is slower
#endif
    return start;
}

static void unmap(void *memory, size_t bytes) { (void)munmap(memory, whole_pages(bytes)); }

void *fc_memory_acquire(size_t bytes) {
    return bytes < LARGE_PAGE ? aligned_alloc(ALIGN, bytes / ALIGN * ALIGN + ALIGN) : map(bytes);
}

void fc_memory_release(void *memory, size_t bytes) {
    if (bytes < LARGE_PAGE) free(memory);
    else if (memory) unmap(memory, bytes);
}

// ------------------------------------------------------------------------------------------------------------- waiting

typedef struct block {
    char *memory;
    size_t bytes;
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
    s->bytes -= b.bytes;
    memmove(&s->waiting[i], &s->waiting[i + 1], (s->count - i) * sizeof b);
    return b;
}

static void put(store *s, block b) {
    s->waiting[s->count++] = b;
    s->bytes += b.bytes;
}

static size_t bytes_of(const store *s) {
    lock();
    const size_t bytes = s->bytes;
    unlock();
    return bytes;
}

// The smallest of those that have room for so many bytes, and of equal ones the last, which caches may hold; `count` where
// there is none.
static size_t find(const store *s, size_t bytes) {
    size_t best = s->count;
    for (size_t i = s->count; i-- > 0;) {
        const size_t have = s->waiting[i].bytes;
        if (have >= bytes && (best == s->count || have < s->waiting[best].bytes)) best = i;
    }
    return best;
}

// ------------------------------------------------------------------------------------------------------------- results
//
// A step of training makes hundreds of arrays of megabytes and lets go of them.  The system fills each page with zeros
// before it hands it out, which took a quarter of a step of MobileNet.  So what is let go of waits for the next, as long as
// all of it, waiting or not, is at most half as much again as ever was in use at once.  It is cut to what is asked for, and
// joined with its neighbours when it comes back: blocks that only served their own size, or one up to four times as large,
// left VGG-11 with 130 MiB that waited, and half of what ResNet-18 had in use.

static struct {
    store store;
    size_t room, used, most;
} results;

// The end of a block; what is before it waits on in its place.
static block cut(store *s, size_t i, size_t bytes) {
    block *b = &s->waiting[i];
    if (b->bytes == bytes) return take(s, i);
    b->bytes -= bytes;
    s->bytes -= bytes;
    return (block){b->memory + b->bytes, bytes};
}

// A block and those that wait beside it, as one.
static block joined(store *s, block b) {
    for (size_t i = s->count; i-- > 0;) {
        const block other = s->waiting[i];
        if (other.memory + other.bytes == b.memory) b = (block){other.memory, other.bytes + b.bytes};
        else if (b.memory + b.bytes == other.memory) b.bytes += other.bytes;
        else continue;
        (void)take(s, i);
    }
    return b;
}

// Gives back what has waited longest until at most so many bytes wait.
static void give_back(size_t bytes) {
    for (;;) {
        block b = {NULL, 0};
        lock();
        store *s = &results.store;
        if (s->bytes > bytes) {
            const size_t more = s->bytes - bytes, oldest = s->waiting[0].bytes;
            b = cut(s, 0, more < oldest ? more : oldest);
        }
        unlock();
        if (!b.memory) return;
        unmap(b.memory, b.bytes);
    }
}

void *fc_result_acquire(size_t bytes) {
    if (bytes > SIZE_MAX / 4) return NULL;
    bytes = whole_pages(bytes);
    char *memory = NULL;
    lock();
    const size_t i = find(&results.store, bytes);
    if (i < results.store.count) memory = cut(&results.store, i, bytes).memory;
    const size_t before = results.most;
    results.used += bytes;
    if (results.used > results.most) results.most = results.used;
    const size_t left = whole_pages(results.most + results.most / 2) - results.used;
    unlock();
    if (memory) return memory;
    give_back(left);
    memory = map(bytes);
    if (!memory) {
        give_back(0);
        memory = map(bytes);
    }
    if (memory) return memory;
    lock();
    results.used -= bytes;
    results.most = before > results.used ? before : results.used;
    unlock();
    return NULL;
}

void fc_result_release(void *memory, size_t bytes) {
    if (!memory) return;
    block b = {memory, whole_pages(bytes)};
    int waits = 1;
    lock();
    results.used -= b.bytes;
    b = joined(&results.store, b);
    if (results.store.count == results.room) {
        const size_t room = 2 * results.room + SLOTS;
        block *more = realloc(results.store.waiting, room * sizeof *more);
        waits = more != NULL;
        if (more) results.store.waiting = more, results.room = room;
    }
    if (waits) put(&results.store, b);
    unlock();
    if (!waits) unmap(b.memory, b.bytes);
}

void fc_result_forget(void) {
    give_back(0);
    lock();
    results.most = results.used;
    unlock();
}

size_t fc_results_kept(void) { return bytes_of(&results.store); }

// ------------------------------------------------------------------------------------------------------------- scratch
//
// A buffer starts with its capacity, one cache line before what the caller sees.  One that second-level caches could hold
// waits for its like, in which they do; a larger one is as results are.

static block slots[SLOTS];
static store scratch = {.waiting = slots};

static size_t capacity_of(const char *base) { return *(const size_t *)(const void *)base; }

void *fc_scratch_acquire(size_t bytes) {
    char *base = NULL;
    if (bytes > SIZE_MAX - ALIGN) return NULL;
    bytes += ALIGN;
    if (bytes >= LARGE_PAGE) base = fc_result_acquire(bytes);
    else {
        lock();
        const size_t i = find(&scratch, bytes);
        const block found = i < scratch.count ? take(&scratch, i) : (block){NULL, 0};
        unlock();
        if (found.memory) return found.memory + ALIGN;
        base = fc_memory_acquire(bytes);
    }
    if (!base) return NULL;
    *(size_t *)(void *)base = bytes;
    return base + ALIGN;
}

// The one goes that has waited longest, where there is no room.
void fc_scratch_release(void *buffer) {
    if (!buffer) return;
    char *base = (char *)buffer - ALIGN;
    const block b = {base, capacity_of(base)};
    block oldest = {NULL, 0};
    if (b.bytes >= LARGE_PAGE) {
        fc_result_release(base, b.bytes);
        return;
    }
    lock();
    if (scratch.count == SLOTS) oldest = take(&scratch, 0);
    put(&scratch, b);
    unlock();
    fc_memory_release(oldest.memory, oldest.bytes);
}

size_t fc_scratch_kept(void) { return bytes_of(&scratch); }
