# SPDX-License-Identifier: BSD-3-Clause
# Reductions, norms, softmax and local response normalisation: arrays of any axes, some of which are folded.

cdef enum:
    FOLD_RANK = 8


cdef int fill_axes(fc_fold_axis *axis, tuple axes) except -1:
    """From (count, steps of src, of dst and of the weights in elements, whether folded) of each axis."""
    if len(axes) > FOLD_RANK:
        raise ValueError(f"there are {len(axes)} axes; at most {FOLD_RANK} can be folded")
    for i in range(len(axes)):
        axis[i].count, axis[i].src, axis[i].dst, axis[i].wei, axis[i].folded = axes[i]
    return 0


def reduce_plan(tuple axes, int kind, int64_t second, int dtype, int isa):
    """A plan of the axes as `fill_axes` has them; ``kind`` is an fc_reduce_kind."""
    cdef fc_reduce r
    r.rank, r.dtype, r.kind, r.second = len(axes), dtype, kind, second
    fill_axes(r.axis, axes)
    cdef Planned planned = Planned.__new__(Planned)
    planned.hold(plan_of(FC_REDUCE, &r, isa))
    return planned


def norm_plan(tuple axes, int kind, double eps, int dtype, int isa):
    """The same; ``kind`` is an fc_norm_kind."""
    cdef fc_norm n
    n.rank, n.dtype, n.kind, n.eps = len(axes), dtype, kind, eps
    fill_axes(n.axis, axes)
    cdef Planned planned = Planned.__new__(Planned)
    planned.hold(plan_of(FC_NORM, &n, isa))
    return planned


def lrn_plan(tuple axes, int64_t before, int64_t after, double share, double beta, double k, int dtype, int isa):
    """The same; the channels are the axis that is folded."""
    cdef fc_lrn l
    l.rank, l.dtype, l.before, l.after, l.share, l.beta, l.k = len(axes), dtype, before, after, share, beta, k
    fill_axes(l.axis, axes)
    cdef Planned planned = Planned.__new__(Planned)
    planned.hold(plan_of(FC_LRN, &l, isa))
    return planned


cdef int take_axes(fc_fold_axis *axis, const Py_buffer *src, const Py_buffer *dst, int folded, bint kept) except -1:
    """Axes of src, those of the bits of `folded` folded; dst has one element along these unless they are `kept`.

    An array dst of more axes has those first, and they are not looked at.
    """
    cdef int i, first = dst.ndim - src.ndim
    cdef bint fit = src.ndim <= FOLD_RANK and first >= 0 and src.itemsize in (4, 8) and dst.itemsize == src.itemsize
    for i in range(src.ndim if fit else 0):
        axis[i].count, axis[i].folded, axis[i].wei = src.shape[i], folded >> i & 1, 0
        axis[i].src, axis[i].dst = src.strides[i] // src.itemsize, dst.strides[first + i] // src.itemsize
        fit = fit and src.strides[i] % src.itemsize == 0 and dst.strides[first + i] % src.itemsize == 0
        fit = fit and dst.shape[first + i] == (1 if axis[i].folded and not kept else src.shape[i])
    if not fit:
        raise ValueError("input and output do not fit each other")
    return 0


def reduce(src, dst, int folded, int kind, int isa, int threads):
    """dst from src. dst has an axis of one element for each that is folded, and for moments an axis of two before all."""
    cdef fc_reduce r
    cdef fc_operands operands
    cdef fc_plan *plan = NULL
    cdef Py_buffer x, y
    x.buf = y.buf = NULL
    try:
        look(src, &x, PyBUF_STRIDED_RO)
        look(dst, &y, PyBUF_STRIDED_RO | PyBUF_WRITABLE)
        take_axes(r.axis, &x, &y, folded, False)
        if y.ndim != x.ndim + (kind == FC_REDUCE_MOMENTS) or kind == FC_REDUCE_MOMENTS and y.shape[0] != 2:
            raise ValueError("output does not have room for the results")
        r.rank, r.dtype, r.kind = x.ndim, 0 if x.itemsize == 4 else 1, kind
        r.second = y.strides[0] // y.itemsize if kind == FC_REDUCE_MOMENTS else 0
        operands = operands_of(x.buf, y.buf)
        plan = plan_of(FC_REDUCE, &r, isa)
        run_plan(plan, &operands, threads)
    finally:
        fc_plan_destroy(plan)
        release(&x)
        release(&y)


def norm(src, dst, scale, shift, int folded, int kind, double eps, int isa, int threads):
    """dst from src, of one shape; scale and shift, or None, have that shape but for axes of one element."""
    cdef fc_norm n
    cdef fc_operands operands
    cdef fc_plan *plan = NULL
    cdef Py_buffer x, y
    cdef Py_buffer given[2]
    cdef Py_buffer *a
    cdef int i, t
    cdef int64_t step
    cdef bint fit = (scale is None) == (shift is None)
    x.buf = y.buf = given[0].buf = given[1].buf = NULL
    try:
        look(src, &x, PyBUF_STRIDED_RO)
        look(dst, &y, PyBUF_STRIDED_RO | PyBUF_WRITABLE)
        take_axes(n.axis, &x, &y, folded, True)
        for t, array in enumerate((scale, shift)):
            if not fit or array is None:
                continue
            a = &given[t]
            look(array, a, PyBUF_STRIDED_RO)
            fit = a.ndim == x.ndim and a.itemsize == x.itemsize
            for i in range(x.ndim if fit else 0):
                step = 0 if a.shape[i] == 1 else a.strides[i] // a.itemsize
                fit = fit and a.shape[i] in (1, x.shape[i]) and step * a.itemsize == (a.strides[i] if step else 0)
                fit = fit and (t == 0 or step == n.axis[i].wei)
                n.axis[i].wei = step
        if not fit or y.ndim != x.ndim:
            raise ValueError("input, output, scale and shift do not fit each other")
        n.rank, n.dtype, n.kind, n.eps = x.ndim, 0 if x.itemsize == 4 else 1, kind, eps
        operands = operands_of(x.buf, y.buf)
        operands.other[0], operands.other[1] = given[0].buf, given[1].buf
        plan = plan_of(FC_NORM, &n, isa)
        run_plan(plan, &operands, threads)
    finally:
        fc_plan_destroy(plan)
        release(&x)
        release(&y)
        release(&given[0])
        release(&given[1])


def lrn(src, dst, int axis, int64_t before, int64_t after, double share, double beta, double k, int isa, int threads):
    """dst from src, of one shape; the channels are this axis."""
    cdef fc_lrn l
    cdef fc_operands operands
    cdef fc_plan *plan = NULL
    cdef Py_buffer x, y
    x.buf = y.buf = NULL
    try:
        look(src, &x, PyBUF_STRIDED_RO)
        look(dst, &y, PyBUF_STRIDED_RO | PyBUF_WRITABLE)
        take_axes(l.axis, &x, &y, 1 << axis, True)
        if y.ndim != x.ndim:
            raise ValueError("input and output do not fit each other")
        l.rank, l.dtype = x.ndim, 0 if x.itemsize == 4 else 1
        l.before, l.after, l.share, l.beta, l.k = before, after, share, beta, k
        operands = operands_of(x.buf, y.buf)
        plan = plan_of(FC_LRN, &l, isa)
        run_plan(plan, &operands, threads)
    finally:
        fc_plan_destroy(plan)
        release(&x)
        release(&y)
