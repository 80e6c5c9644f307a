// SPDX-License-Identifier: BSD-3-Clause
//
// call.c - what tells one array from another, so that a call can be known again, and where arrays lie in memory.
#include "fastconv.h"

int fc_array_describe(const fc_array *a, int64_t out[FC_DESCRIPTION]) {
    const char kind = a->format && a->format[0] && !a->format[1] ? a->format[0] : 0;
    if ((kind != 'e' && kind != 'f' && kind != 'd') || a->ndim > FC_RANK || (uintptr_t)a->data % (size_t)a->itemsize)
        return 0;
    int empty = 0, n = 0;
    for (int i = 0; i < a->ndim; i++) empty |= a->shape[i] == 0;
    out[n++] = kind << 8 | a->ndim;
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
