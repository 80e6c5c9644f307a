# SPDX-License-Identifier: BSD-3-Clause
# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The binding: hands arrays to the C core and turns its status into exceptions. No arithmetic, no policy."""

from cpython.buffer cimport PyBUF_STRIDED_RO, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, int32_t

cdef extern from "fastconv.h" nogil:
    ctypedef enum fc_status:
        FC_OK
        FC_INVALID
        FC_UNSUPPORTED
        FC_NO_MEMORY
    ctypedef int fc_isa
    ctypedef int fc_dtype
    ctypedef int fc_algo_id
    enum:
        FC_ALGOS
        FC_ISAS
        FC_MESSAGE
    ctypedef struct fc_axis:
        int64_t in_ "in"
        int64_t out, kernel, stride, dilation, pad
    ctypedef struct fc_view:
        int64_t group, outer, channel
        int64_t axis[3]
    ctypedef struct fc_problem:
        int64_t batch, groups, in_channels, out_channels
        fc_axis axis[3]
        fc_view src, wei, dst
        int32_t dtype, direction
        double low, high
    ctypedef struct fc_plan:
        pass
    ctypedef struct fc_verdict:
        const char *name
        const char *refusal
        double cost
    fc_status fc_problem_check(const fc_problem *, char *)
    fc_status fc_plan_create(const fc_problem *, fc_isa, fc_algo_id, int, fc_plan **, char *)
    void fc_plan_destroy(fc_plan *)
    void fc_plan_explain(const fc_problem *, fc_isa, int, fc_verdict *)
    fc_algo_id fc_plan_algorithm(const fc_plan *)
    size_t fc_plan_packed_bytes(const fc_plan *)
    size_t fc_plan_scratch_bytes(const fc_plan *, int)
    double fc_plan_flops(const fc_plan *)
    void fc_plan_pack(const fc_plan *, const void *, const void *, void *, int)
    void fc_plan_execute(const fc_plan *, const void *, const void *, const void *, void *, void *, int)
    ctypedef struct fc_pool:
        int64_t batch, channels
        fc_axis axis[3]
        fc_view src, dst, index
        int32_t dtype, kind, adaptive, count_include_pad
        int64_t pad_after[3]
        int64_t divisor
    fc_status fc_pool_check(const fc_pool *, char *)
    void fc_pool_forward(const fc_pool *, fc_isa, const void *, void *, int64_t *, int)
    fc_status fc_pool_backward(const fc_pool *, fc_isa, const void *, const int64_t *, void *, int)
    int fc_isa_built(fc_isa)
    int fc_isa_supported(fc_isa)
    fc_isa fc_isa_best()
    const char *fc_isa_name(fc_isa)
    int fc_openmp()
    const char *fc_compiler()
    double fc_fma_burn(fc_isa, fc_dtype, int, int64_t, double *)
    void *fc_memory_acquire(size_t)
    void fc_memory_release(void *)
    void *fc_scratch_acquire(size_t)
    void fc_scratch_release(void *)


cdef enum:
    MAX_RANK = 8


cdef class Layout:
    """Shape and byte strides that an array must have."""
    cdef int rank
    cdef Py_ssize_t itemsize
    cdef Py_ssize_t shape[MAX_RANK]
    cdef Py_ssize_t strides[MAX_RANK]

    def __cinit__(self, tuple shape, tuple strides, Py_ssize_t itemsize):
        if len(shape) != len(strides) or len(shape) > MAX_RANK:
            raise ValueError("shape and strides differ in length")
        self.rank = len(shape)
        self.itemsize = itemsize
        for i in range(self.rank):
            self.shape[i] = shape[i]
            self.strides[i] = strides[i]

    cdef int take(self, object array, Py_buffer *view, bint writable, str name) except -1:
        """Opens the array's buffer; the caller releases it."""
        PyObject_GetBuffer(array, view, PyBUF_STRIDED_RO | (PyBUF_WRITABLE if writable else 0))
        cdef bint same = view.ndim == self.rank and view.itemsize == self.itemsize
        cdef int i
        if same:
            for i in range(self.rank):
                # The stride of an axis of one element says nothing, and NumPy does not keep it.
                same = same and view.shape[i] == self.shape[i] and (
                    view.shape[i] <= 1 or view.strides[i] == self.strides[i] or view.len == 0)
        if not same:
            PyBuffer_Release(view)
            raise ValueError(f"{name} does not have the shape and strides that the plan was made for")
        return 0


cdef class Packed:
    """Packed weights: memory that belongs to one plan."""
    cdef void *data
    cdef readonly size_t nbytes

    def __cinit__(self, size_t nbytes):
        self.nbytes = nbytes
        self.data = fc_memory_acquire(nbytes)
        if self.data is NULL:
            raise MemoryError(f"packed weights need {nbytes} bytes, which could not be allocated")

    def __dealloc__(self):
        fc_memory_release(self.data)


cdef void fill_view(fc_view *view, tuple strides):
    view.group, view.outer, view.channel, view.axis[0], view.axis[1], view.axis[2] = strides


cdef int fill_problem(fc_problem *p, tuple fields) except -1:
    direction, dtype, batch, groups, in_channels, out_channels, axes, src, wei, dst, low, high = fields
    p.direction, p.dtype, p.batch, p.groups = direction, dtype, batch, groups
    p.in_channels, p.out_channels, p.low, p.high = in_channels, out_channels, low, high
    cdef int i
    for i in range(3):
        p.axis[i].in_, p.axis[i].out, p.axis[i].kernel, p.axis[i].stride, p.axis[i].dilation, p.axis[i].pad = axes[i]
    fill_view(&p.src, src)
    fill_view(&p.wei, wei)
    fill_view(&p.dst, dst)
    return 0


cdef raise_status(fc_status status, bytes message):
    if status == FC_NO_MEMORY:
        raise MemoryError(message.decode())
    if status == FC_UNSUPPORTED:
        raise NotImplementedError(message.decode())
    raise ValueError(message.decode())


cdef class Plan:
    """A planned problem. ``fields`` are those of fc_problem, in its order; src, wei and dst the arrays' layouts."""
    cdef fc_plan *plan
    cdef Layout src, wei, dst
    cdef readonly double flops
    cdef readonly size_t packed_bytes
    cdef readonly int algorithm

    def __cinit__(self, tuple fields, int isa, int algorithm, bint strict, Layout src, Layout wei, Layout dst):
        cdef fc_problem problem
        cdef char message[FC_MESSAGE]
        fill_problem(&problem, fields)
        cdef fc_status status = fc_plan_create(&problem, isa, algorithm, strict, &self.plan, message)
        if status != FC_OK:
            raise_status(status, message)
        self.src, self.wei, self.dst = src, wei, dst
        self.flops = fc_plan_flops(self.plan)
        self.packed_bytes = fc_plan_packed_bytes(self.plan)
        self.algorithm = fc_plan_algorithm(self.plan)

    def __dealloc__(self):
        fc_plan_destroy(self.plan)

    def workspace_bytes(self, int threads):
        return fc_plan_scratch_bytes(self.plan, threads)

    def pack(self, wei, bias, int threads):
        """Packed weights (and bias, contiguous, or None)."""
        cdef Py_buffer w, b
        cdef Packed packed = Packed(self.packed_bytes)
        b.buf = NULL
        self.wei.take(wei, &w, False, "weight")
        try:
            if bias is not None:
                PyObject_GetBuffer(bias, &b, 0)
            with nogil:
                fc_plan_pack(self.plan, w.buf, b.buf, packed.data, threads)
        finally:
            if b.buf is not NULL:
                PyBuffer_Release(&b)
            PyBuffer_Release(&w)
        return packed

    def execute(self, src, Packed packed, residual, dst, int threads):
        """dst from src; residual is laid out as dst, or None."""
        cdef Py_buffer s, d, r
        cdef void *scratch
        if packed.nbytes != self.packed_bytes:
            raise ValueError("weights were packed by another plan")
        r.buf = NULL
        self.src.take(src, &s, False, "input")
        try:
            self.dst.take(dst, &d, True, "out")
            try:
                if residual is not None:
                    self.dst.take(residual, &r, False, "residual")
                scratch = fc_scratch_acquire(fc_plan_scratch_bytes(self.plan, threads))
                if scratch is NULL:
                    raise MemoryError(f"{fc_plan_scratch_bytes(self.plan, threads)} bytes of scratch memory could "
                                      "not be allocated")
                with nogil:
                    fc_plan_execute(self.plan, s.buf, packed.data, r.buf, d.buf, scratch, threads)
                fc_scratch_release(scratch)
            finally:
                if r.buf is not NULL:
                    PyBuffer_Release(&r)
                PyBuffer_Release(&d)
        finally:
            PyBuffer_Release(&s)


def explain(tuple fields, int isa, bint strict):
    """(name, reason of refusal or None, predicted seconds) of every algorithm, in the order of their numbers."""
    cdef fc_problem problem
    cdef fc_verdict verdicts[FC_ALGOS]
    cdef char message[FC_MESSAGE]
    fill_problem(&problem, fields)
    cdef fc_status status = fc_problem_check(&problem, message)
    if status != FC_OK:
        raise_status(status, message)
    fc_plan_explain(&problem, isa, strict, verdicts)
    return [(v.name.decode(), None if v.refusal is NULL else v.refusal.decode(), v.cost) for v in verdicts[:FC_ALGOS]]


cdef int take_planes(object array, Py_buffer *buffer, fc_view *view, bint writable, str name) except -1:
    """Opens a buffer of axes (images, channels, one to three spatial); the caller releases it."""
    PyObject_GetBuffer(array, buffer, PyBUF_STRIDED_RO | (PyBUF_WRITABLE if writable else 0))
    cdef int i, first = 5 - buffer.ndim  # missing axes have one element
    cdef bint whole = 3 <= buffer.ndim <= 5 and buffer.itemsize in (4, 8)
    for i in range(buffer.ndim if whole else 0):
        whole = whole and buffer.strides[i] % buffer.itemsize == 0
    if not whole:
        PyBuffer_Release(buffer)
        raise ValueError(f"{name} is no batch of planes with strides in whole elements")
    view.group, view.outer, view.channel = 0, buffer.strides[0] // buffer.itemsize, buffer.strides[1] // buffer.itemsize
    for i in range(3):
        view.axis[i] = 0 if i < first else buffer.strides[i - first + 2] // buffer.itemsize
    return 0


cdef class Pool:
    """Pooling of planes. ``axes`` has (kernel, stride, dilation, pad before, pad after) of each spatial axis.

    Sizes are those of the arrays, whose axes are (images, channels, spatial) in any strides.
    """
    cdef fc_pool pool
    cdef int rank

    def __cinit__(self, int kind, bint adaptive, bint count_include_pad, int64_t divisor, tuple axes):
        cdef int i, first = 3 - len(axes)
        self.rank = len(axes)
        self.pool.kind, self.pool.adaptive = kind, adaptive
        self.pool.count_include_pad, self.pool.divisor = count_include_pad, divisor
        for i in range(3):
            fields = (1, 1, 1, 0, 0) if i < first else axes[i - first]
            self.pool.axis[i].kernel, self.pool.axis[i].stride, self.pool.axis[i].dilation = fields[:3]
            self.pool.axis[i].pad, self.pool.pad_after[i] = fields[3:]

    cdef int fill(self, fc_pool *p, const Py_buffer *src, const Py_buffer *dst, const Py_buffer *indices) except -1:
        """Sizes of the arrays; `indices` may be closed. Together with the check, all that memory safety needs."""
        cdef char message[FC_MESSAGE]
        cdef int i, first = 3 - self.rank
        cdef bint fit = src.ndim == self.rank + 2 and dst.ndim == src.ndim and dst.itemsize == src.itemsize
        fit = fit and dst.shape[0] == src.shape[0] and dst.shape[1] == src.shape[1]
        if indices.buf is not NULL:
            fit = fit and indices.ndim == dst.ndim and indices.itemsize == 8
            for i in range(dst.ndim if fit else 0):
                fit = fit and indices.shape[i] == dst.shape[i]
        if not fit:
            raise ValueError("input, output and indices do not fit each other")
        p.batch, p.channels, p.dtype = src.shape[0], src.shape[1], 0 if src.itemsize == 4 else 1
        for i in range(3):
            p.axis[i].in_ = 1 if i < first else src.shape[i - first + 2]
            p.axis[i].out = 1 if i < first else dst.shape[i - first + 2]
        cdef fc_status status = fc_pool_check(p, message)
        if status != FC_OK:
            raise_status(status, message)
        return 0

    def forward(self, src, dst, indices, int isa, int threads):
        """dst from src, and the positions of the maxima unless ``indices`` is None."""
        cdef fc_pool p = self.pool
        cdef Py_buffer s, d, i
        i.buf = NULL
        take_planes(src, &s, &p.src, False, "input")
        try:
            take_planes(dst, &d, &p.dst, True, "out")
            try:
                if indices is not None:
                    take_planes(indices, &i, &p.index, True, "indices")
                self.fill(&p, &s, &d, &i)
                with nogil:
                    fc_pool_forward(&p, isa, s.buf, d.buf, <int64_t *>i.buf, threads)
            finally:
                if i.buf is not NULL:
                    PyBuffer_Release(&i)
                PyBuffer_Release(&d)
        finally:
            PyBuffer_Release(&s)

    def backward(self, d_dst, indices, d_src, int isa, int threads):
        """d_src from d_dst, and from the forward indices for a maximum. Whether all of them lay in the plane."""
        cdef fc_pool p = self.pool
        cdef Py_buffer s, d, i
        cdef fc_status status
        i.buf = NULL
        take_planes(d_src, &s, &p.src, True, "d_src")
        try:
            take_planes(d_dst, &d, &p.dst, False, "grad_output")
            try:
                if indices is not None:
                    take_planes(indices, &i, &p.index, False, "indices")
                elif p.kind == 0:
                    raise ValueError("the gradient of a maximum needs indices")
                self.fill(&p, &s, &d, &i)
                with nogil:
                    status = fc_pool_backward(&p, isa, d.buf, <const int64_t *>i.buf, s.buf, threads)
            finally:
                if i.buf is not NULL:
                    PyBuffer_Release(&i)
                PyBuffer_Release(&d)
        finally:
            PyBuffer_Release(&s)
        return status == FC_OK


def isas():
    """(name, built, usable here) of every instruction set, in the order of their numbers."""
    return [(fc_isa_name(i).decode(), bool(fc_isa_built(i)), bool(fc_isa_supported(i))) for i in range(FC_ISAS)]


def best_isa():
    return fc_isa_best()


def compiler():
    return fc_compiler().decode()


def openmp():
    """The date of the OpenMP standard as yyyymm, 0 without OpenMP."""
    return fc_openmp()


def fma_burn(int isa, int dtype, int threads, int64_t rounds):
    """(seconds, floating-point operations) of independent multiply-adds."""
    cdef double flops, seconds
    with nogil:
        seconds = fc_fma_burn(isa, dtype, threads, rounds, &flops)
    return seconds, flops
