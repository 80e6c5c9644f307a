# SPDX-License-Identifier: BSD-3-Clause
# Resizing by tables.

cdef int32_t ONE_INDEX[1]  # of an axis of one element that is not resized
ONE_INDEX[0] = 0


cdef class Tables:
    """Buffers of the tables of a resizing, open for as long as this object lives."""
    cdef Py_buffer views[6]

    def __dealloc__(self):
        cdef int i
        for i in range(6):
            release(&self.views[i])

    cdef int fill(self, fc_resize *z, tuple axes) except -1:
        """From (in, out, indices, weights) of up to three axes: int32 and float64 [tap][out], or None for weights of 1."""
        cdef int i, first = 3 - len(axes)
        cdef fc_resize_axis *a
        cdef Py_buffer *index
        cdef Py_buffer *weight
        if first < 0:
            raise ValueError(f"there are {len(axes)} axes; at most 3 can be resized")
        for i in range(3):
            a = &z.axis[i]
            if i < first:
                a.in_ = a.out = a.taps = 1
                a.index, a.weight = ONE_INDEX, NULL
                continue
            a.in_, a.out, indices, weights = axes[i - first]
            index, weight = &self.views[2 * i], &self.views[2 * i + 1]
            look(indices, index, PyBUF_ANY_CONTIGUOUS)
            a.taps = index.len // (4 * a.out) if a.out > 0 else 0
            fit = index.itemsize == 4 and index.len == 4 * a.taps * a.out
            a.index, a.weight = <const int32_t *>index.buf, NULL
            if weights is not None:
                look(weights, weight, PyBUF_ANY_CONTIGUOUS)
                fit = fit and weight.itemsize == 8 and weight.len == 2 * index.len
                a.weight = <const double *>weight.buf
            if not fit:
                raise ValueError("a table does not have an index, and a weight, for every output and tap")
        return 0


def resize_plan(int64_t batch, int64_t channels, tuple src, tuple dst, tuple axes, int dtype, int isa):
    """A plan; src and dst are strides of images, channels, depth, height and width, in elements."""
    cdef fc_resize z
    cdef Tables tables = Tables.__new__(Tables)
    z.dtype, z.batch, z.channels = dtype, batch, channels
    fill_view(&z.src, (0, *src))
    fill_view(&z.dst, (0, *dst))
    tables.fill(&z, axes)
    cdef Planned planned = Planned.__new__(Planned)
    planned.hold(plan_of(FC_RESIZE, &z, isa))
    return planned


def resize(src, dst, tuple axes, int isa, int threads):
    """dst from src: arrays of images, channels and as many spatial axes as there are tables."""
    cdef fc_resize z
    cdef Tables tables = Tables.__new__(Tables)
    cdef fc_operands operands
    cdef fc_plan *plan = NULL
    cdef Py_buffer x, y
    cdef int i, first = 3 - len(axes)
    x.buf = y.buf = NULL
    try:
        take_planes(src, &x, &z.src, False, "input")
        take_planes(dst, &y, &z.dst, True, "out")
        tables.fill(&z, axes)
        fit = x.ndim == y.ndim == len(axes) + 2 and x.itemsize == y.itemsize
        for i in range(len(axes) if fit else 0):
            fit = fit and x.shape[i + 2] == z.axis[first + i].in_ and y.shape[i + 2] == z.axis[first + i].out
        if not fit or x.shape[0] != y.shape[0] or x.shape[1] != y.shape[1]:
            raise ValueError("input, output and tables do not fit each other")
        z.dtype, z.batch, z.channels = 0 if x.itemsize == 4 else 1, x.shape[0], x.shape[1]
        operands = operands_of(x.buf, y.buf)
        plan = plan_of(FC_RESIZE, &z, isa)
        run_plan(plan, &operands, threads)
    finally:
        fc_plan_destroy(plan)
        release(&x)
        release(&y)
