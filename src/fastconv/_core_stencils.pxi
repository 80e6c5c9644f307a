# SPDX-License-Identifier: BSD-3-Clause
# Stencils.

cdef class Stencil:
    """A stencil on arrays of given sizes. ``axes`` has (in, out, kernel, offset, border) of each axis, two or more.

    ``fill`` are those of the input and of the rows of sums; of a separable stencil the weights are those of the last
    but one axis, then those of the last.
    """
    cdef fc_stencil stencil
    cdef int isa
    cdef Py_ssize_t taps
    cdef readonly double seconds  #: predicted, on one thread of a nominal machine

    def __cinit__(self, int isa, int dtype, bint separable, bint unfused, tuple fill, tuple axes):
        cdef int i
        if not 2 <= len(axes) <= FC_RANK:
            raise ValueError(f"a stencil has {len(axes)} axes; it needs 2 to {FC_RANK}")
        self.isa, self.stencil.rank, self.stencil.dtype = isa, len(axes), dtype
        self.stencil.separable, self.stencil.unfused = separable, unfused
        self.stencil.fill, self.stencil.fill_rows = fill
        self.taps = 0 if separable else 1
        for i in range(self.stencil.rank):
            a = &self.stencil.axis[i]
            a.in_, a.out, a.kernel, a.offset, a.border = axes[i]
            a.src = a.dst = 1
            if not separable:
                self.taps *= a.kernel
            elif i >= self.stencil.rank - 2:
                self.taps += a.kernel
        cdef fc_plan *plan = self.plan(&self.stencil)
        self.seconds = fc_plan_seconds(plan)
        fc_plan_destroy(plan)

    cdef fc_plan *plan(self, const fc_stencil *stencil) except NULL:
        return plan_of(FC_STENCIL, stencil, self.isa)

    cdef int take(self, object array, Py_buffer *buffer, bint writable, str name) except -1:
        """Opens a buffer of the stencil's sizes and notes its strides; the caller releases it."""
        look(array, buffer, PyBUF_STRIDED_RO | (PyBUF_WRITABLE if writable else 0))
        cdef int i
        cdef bint whole = buffer.ndim == self.stencil.rank and buffer.itemsize == (8 if self.stencil.dtype else 4)
        for i in range(buffer.ndim if whole else 0):
            a = &self.stencil.axis[i]
            whole = whole and buffer.strides[i] % buffer.itemsize == 0
            whole = whole and buffer.shape[i] == (a.out if writable else a.in_)
        if not whole:
            release(buffer)
            raise ValueError(f"{name} does not have the shape and dtype that the stencil was made for")
        return 0

    cdef int work(self, const fc_plan *plan, const void *src, const void *weights, void *dst, int threads) except -1:
        cdef fc_operands operands = operands_of(src, dst)
        cdef void *packed = acquire(fc_plan_packed_bytes(plan))
        operands.wei = packed
        try:
            fc_plan_pack(plan, weights, NULL, packed, threads)
            run_plan(plan, &operands, threads)
        finally:
            fc_scratch_release(packed)
        return 0

    def run(self, src, weights, dst, int threads):
        """dst from src; weights are contiguous, and dst is along its last axis."""
        cdef fc_stencil s = self.stencil
        cdef fc_plan *plan = NULL
        cdef Py_buffer x, w, y
        cdef int i
        x.buf = w.buf = y.buf = NULL
        try:
            self.take(src, &x, False, "input")
            self.take(dst, &y, True, "output")
            look(weights, &w, 0)
            if w.len != self.taps * x.itemsize:
                raise ValueError("weights do not have the size that the stencil was made for")
            for i in range(s.rank):
                s.axis[i].src = x.strides[i] // x.itemsize
                s.axis[i].dst = y.strides[i] // y.itemsize
            plan = self.plan(&s)
            self.work(plan, x.buf, w.buf, y.buf, threads)
        finally:
            fc_plan_destroy(plan)
            release(&x)
            release(&w)
            release(&y)
