# SPDX-License-Identifier: BSD-3-Clause
# Pooling of planes.

cdef int take_planes(object array, Py_buffer *buffer, fc_view *view, bint writable, str name) except -1:
    """Opens a buffer of axes (images, channels, one to three spatial); the caller releases it."""
    look(array, buffer, PyBUF_STRIDED_RO | (PyBUF_WRITABLE if writable else 0))
    cdef int i, first = 5 - buffer.ndim  # missing axes have one element
    cdef bint whole = 3 <= buffer.ndim <= 5 and buffer.itemsize in (4, 8)
    for i in range(buffer.ndim if whole else 0):
        whole = whole and buffer.strides[i] % buffer.itemsize == 0
    if not whole:
        release(buffer)
        raise ValueError(f"{name} is no batch of planes with strides in whole elements")
    view.group, view.outer, view.channel = 0, buffer.strides[0] // buffer.itemsize, buffer.strides[1] // buffer.itemsize
    for i in range(3):
        view.axis[i] = 0 if i < first else buffer.strides[i - first + 2] // buffer.itemsize
    return 0


cdef class PoolCall(Planned):
    """Pooling of planes of known sizes and strides; ``shape`` and ``dtype`` are those of the caller's result.

    That of a gradient reads indices, in place of weights, where there are any; else they are a second result.
    """
    cdef bint positions, gradient
    cdef tuple shape
    cdef object dtype, make

    cdef fc_status run(self, const void *src, void *dst, int64_t *where, int threads) except? FC_NO_MEMORY:
        cdef fc_operands operands = operands_of(src, dst)
        operands.index = where
        return run_plan(self.plan, &operands, threads)

    def returns(self, tuple shape, dtype, tuple order):
        self.shape, self.dtype, self.make = shape, dtype, maker(shape, order)
        return self

    cdef bint suits(self, Views v) noexcept:
        return self.shape is not None

    cdef object again(self, Views v, object out, int threads):
        cdef Py_buffer i
        cdef fc_status status
        i.buf = NULL
        out = v.result(out, self.make, self.shape, self.dtype)
        answer = out
        if self.gradient:
            status = self.run(v.views[INPUT].buf, v.views[OUT].buf, <int64_t *>v.data(WEIGHT), threads)
            return answer if status == FC_OK else None  # indices from elsewhere; who looks closer tells of them
        if self.positions:
            indices = self.make(self.shape, INDEX)
            answer = out, indices
            look(indices, &i, PyBUF_STRIDED_RO | PyBUF_WRITABLE)
        try:
            self.run(v.views[INPUT].buf, v.views[OUT].buf, <int64_t *>i.buf, threads)
        finally:
            release(&i)
        return answer


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
        """Sizes of the arrays; `indices` may be closed. Together with the plan's check, all that memory safety needs."""
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
        p.indexed = indices.buf is not NULL
        return 0

    def plan(self, tuple shape, tuple src, tuple out, tuple dst, int itemsize, int isa):
        """A plan for arrays of these shapes and strides in elements; no indices."""
        cdef PoolCall call = PoolCall.__new__(PoolCall)
        cdef fc_pool p = self.pool
        cdef int i, axis, first = 3 - self.rank
        if not (len(shape) == len(src) == len(out) == len(dst) == self.rank + 2) or shape[:2] != out[:2]:
            raise ValueError("input and output do not fit each other")
        p.batch, p.channels, p.dtype = shape[0], shape[1], 0 if itemsize == 4 else 1
        p.src.group = p.dst.group = 0
        p.src.outer, p.src.channel, p.dst.outer, p.dst.channel = src[0], src[1], dst[0], dst[1]
        for i in range(3):
            axis = i - first + 2
            p.axis[i].in_, p.axis[i].out = (1, 1) if i < first else (shape[axis], out[axis])
            p.src.axis[i], p.dst.axis[i] = (0, 0) if i < first else (src[axis], dst[axis])
        call.hold(plan_of(FC_POOL, &p, isa))
        return call

    def forward(self, src, dst, indices, int isa, int threads):
        """dst from src, and the positions of the maxima unless ``indices`` is None; what it takes to do so again."""
        cdef PoolCall call = PoolCall.__new__(PoolCall)
        cdef fc_pool p = self.pool
        cdef Py_buffer s, d, i
        s.buf = d.buf = i.buf = NULL
        call.positions = indices is not None
        try:
            take_planes(src, &s, &p.src, False, "input")
            take_planes(dst, &d, &p.dst, True, "out")
            if indices is not None:
                take_planes(indices, &i, &p.index, True, "indices")
            self.fill(&p, &s, &d, &i)
            call.hold(plan_of(FC_POOL, &p, isa))
            call.run(s.buf, d.buf, <int64_t *>i.buf, threads)
        finally:
            release(&s)
            release(&d)
            release(&i)
        return call

    def backward(self, d_dst, indices, d_src, int isa, int threads):
        """d_src from d_dst, and from the forward indices for a maximum; what it takes to do so again.

        None if not all of them lay in the plane.
        """
        cdef PoolCall call = PoolCall.__new__(PoolCall)
        cdef fc_pool p = self.pool
        cdef Py_buffer s, d, i
        cdef fc_status status
        s.buf = d.buf = i.buf = NULL
        call.gradient = True
        p.direction = FC_BACKWARD_INPUT
        try:
            take_planes(d_src, &s, &p.src, True, "d_src")
            take_planes(d_dst, &d, &p.dst, False, "grad_output")
            if indices is not None:
                take_planes(indices, &i, &p.index, False, "indices")
            elif p.kind == 0:
                raise ValueError("the gradient of a maximum needs indices")
            self.fill(&p, &s, &d, &i)
            call.hold(plan_of(FC_POOL, &p, isa))
            status = call.run(d.buf, s.buf, <int64_t *>i.buf, threads)
        finally:
            release(&s)
            release(&d)
            release(&i)
        return call if status == FC_OK else None
