// SPDX-License-Identifier: BSD-3-Clause
//
// call.c - what tells one array from another, so that a call can be known again, and where arrays lie in memory.
#include "core/team.h"
#include "fastconv.h"

#include <stdatomic.h>
#include <string.h>

int fc_array_describe(const fc_array *a, int indices, int64_t out[FC_DESCRIPTION]) {
    const char kind = a->format && a->format[0] && !a->format[1] ? a->format[0] : 0;
    const int is_index = (kind == 'l' || kind == 'q') && a->itemsize == 8; // int64 has either letter
    if (indices ? !is_index : kind != 'e' && kind != 'f' && kind != 'd') return 0;
    if (a->ndim > FC_RANK || (uintptr_t)a->data % (size_t)a->itemsize) return 0;
    int empty = 0, n = 0;
    for (int i = 0; i < a->ndim; i++) empty |= a->shape[i] == 0;
    out[n++] = (indices ? 'q' : kind) << 8 | a->ndim;
    for (int i = 0; i < a->ndim; i++) {
        // The stride of an axis of one element says nothing, and NumPy does not keep it.
        const int64_t stride = empty || a->shape[i] == 1 ? 0 : a->strides[i];
        if (stride % a->itemsize) return 0;
        out[n++] = a->shape[i];
        out[n++] = stride;
    }
    return n;
}

// First byte, and the one behind the last.
static void extent(const fc_array *a, uintptr_t *first, uintptr_t *end) {
    *first = *end = (uintptr_t)a->data;
    for (int i = 0; i < a->ndim; i++) {
        if (a->shape[i] == 0) return;
        const ptrdiff_t reach = (a->shape[i] - 1) * a->strides[i];
        if (reach < 0) *first += (uintptr_t)reach;
        else *end += (uintptr_t)reach;
    }
    *end += (uintptr_t)a->itemsize;
}

int fc_arrays_apart(const fc_array *a, const fc_array *b) {
    uintptr_t a0, a1, b0, b1;
    extent(a, &a0, &a1);
    extent(b, &b0, &b1);
    return a1 <= b0 || b1 <= a0;
}

enum { FC_MARK_LANES = 8, FC_MARK_PART = 1 << 18 }; // independent multiplications; bytes of a task

// A bijection of `word` for every `state` and the other way round.  Multiplication carries differences upwards only, so
// that the highest bits, where signs of floats are, are brought down first.
static inline uint64_t mark(uint64_t state, uint64_t word) {
    state ^= word;
    return (state << 29 | state >> 35) * 0x9e3779b97f4a7c15u;
}

typedef struct mark_job {
    const char *memory;
    size_t bytes;
    _Atomic uint64_t sum;
} mark_job;

static void mark_task(void *context, int64_t task, int thread) {
    (void)thread;
    mark_job *job = context;
    const size_t start = (size_t)task * FC_MARK_PART, left = job->bytes - start;
    const size_t bytes = left < FC_MARK_PART ? left : FC_MARK_PART;
    const char *at = job->memory + start;
    uint64_t lane[FC_MARK_LANES], word[FC_MARK_LANES] = {0};
#pragma GCC unroll 8
    for (int i = 0; i < FC_MARK_LANES; i++) lane[i] = (uint64_t)i + 1;
    size_t done = 0;
    for (; done + sizeof word <= bytes; done += sizeof word)
#pragma GCC unroll 8
        for (int i = 0; i < FC_MARK_LANES; i++) {
            uint64_t next;
            memcpy(&next, at + done + (size_t)i * sizeof next, sizeof next);
            lane[i] = mark(lane[i], next);
        }
    memcpy(word, at + done, bytes - done);
    for (int i = 0; i < FC_MARK_LANES; i++) lane[i] = mark(lane[i], word[i]);
    uint64_t all = mark((uint64_t)task, bytes);
    for (int i = 0; i < FC_MARK_LANES; i++) all = mark(all, lane[i]);
    atomic_fetch_add(&job->sum, mark(all, all >> 32)); // parts in any order
}

uint64_t fc_fingerprint(const void *memory, size_t bytes, int threads) {
    mark_job job = {.memory = memory, .bytes = bytes};
    const int worthwhile = fc_worthwhile_threads(0.05e-9 * (double)bytes, threads);
    fc_parallel_exact((int64_t)((bytes + FC_MARK_PART - 1) / FC_MARK_PART), worthwhile, mark_task, &job);
    return job.sum;
}
