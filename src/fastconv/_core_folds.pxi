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


cdef int check_kind(int kind) except -1:
    if kind == FC_REDUCE_THROUGH:
        raise ValueError(f"kind {kind} reads another array; it needs through()")
    return 0


def reduce_plan(tuple axes, int kind, int64_t second, int dtype, int isa):
    """A plan of the axes as `fill_axes` has them; ``kind`` is an fc_reduce_kind."""
    cdef fc_reduce r
    check_kind(kind)
    r.rank, r.dtype, r.kind, r.second, r.low, r.high = len(axes), dtype, kind, second, 0, 0
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
    l.rank, l.dtype, l.gradient = len(axes), dtype, False
    l.before, l.after, l.share, l.beta, l.k = before, after, share, beta, k
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
    check_kind(kind)
    try:
        look(src, &x, PyBUF_STRIDED_RO)
        look(dst, &y, PyBUF_STRIDED_RO | PyBUF_WRITABLE)
        take_axes(r.axis, &x, &y, folded, False)
        if y.ndim != x.ndim + (kind == FC_REDUCE_MOMENTS) or kind == FC_REDUCE_MOMENTS and y.shape[0] != 2:
            raise ValueError("output does not have room for the results")
        r.rank, r.dtype, r.kind, r.low, r.high = x.ndim, 0 if x.itemsize == 4 else 1, kind, 0, 0
        r.second = y.strides[0] // y.itemsize if kind == FC_REDUCE_MOMENTS else 0
        operands = operands_of(x.buf, y.buf)
        plan = plan_of(FC_REDUCE, &r, isa)
        run_plan(plan, &operands, threads)
    finally:
        fc_plan_destroy(plan)
        release(&x)
        release(&y)


cdef int take_other(fc_fold_axis *axis, const Py_buffer *src, const Py_buffer *other) except -1:
    """Another array of the shape of src, laid out by the steps of weights."""
    cdef int i
    cdef bint fit = other.ndim == src.ndim and other.itemsize == src.itemsize
    for i in range(src.ndim if fit else 0):
        axis[i].wei = other.strides[i] // other.itemsize
        fit = fit and other.shape[i] == src.shape[i] and other.strides[i] % other.itemsize == 0
    if not fit:
        raise ValueError("the inputs do not fit each other")
    return 0


def through(src, result, dst, int axis, double low, double high, int isa, int threads):
    """The gradient below a clamp of this `result`, and its sums over all axes but this one.

    Both go to dst, an array of one axis: first the gradient as an array without gaps of the shape of src, then the sums.
    """
    cdef fc_reduce r
    cdef fc_operands operands
    cdef fc_plan *plan = NULL
    cdef Py_buffer x, m, y
    cdef int64_t step = 1
    cdef int i
    x.buf = m.buf = y.buf = NULL
    try:
        look(src, &x, PyBUF_STRIDED_RO)
        look(result, &m, PyBUF_STRIDED_RO)
        look(dst, &y, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
        if not (0 <= axis < x.ndim <= FOLD_RANK and x.itemsize in (4, 8) and y.itemsize == x.itemsize):
            raise ValueError("input and output do not fit each other")
        take_other(r.axis, &x, &m)
        for i in reversed(range(x.ndim)):
            r.axis[i].count, r.axis[i].folded, r.axis[i].dst = x.shape[i], i != axis, step
            r.axis[i].src = x.strides[i] // x.itemsize
            if x.strides[i] % x.itemsize:
                raise ValueError("input does not lie in whole elements")
            step *= x.shape[i]
        if y.ndim != 1 or y.shape[0] != step + x.shape[axis]:
            raise ValueError("output does not have room for the results")
        r.rank, r.dtype, r.kind, r.second = x.ndim, 0 if x.itemsize == 4 else 1, FC_REDUCE_THROUGH, step
        r.low, r.high = low, high
        operands = operands_of(x.buf, y.buf)
        operands.other[0] = m.buf
        plan = plan_of(FC_REDUCE, &r, isa)
        run_plan(plan, &operands, threads)
    finally:
        fc_plan_destroy(plan)
        release(&x)
        release(&m)
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


def lrn(src, grad, dst, int axis, int64_t before, int64_t after, double share, double beta, double k, int isa,
        int threads):
    """dst from src, of one shape, or the gradient of that from `grad`, unless it is None; the channels are this axis."""
    cdef fc_lrn l
    cdef fc_operands operands
    cdef fc_plan *plan = NULL
    cdef Py_buffer x, g, y
    x.buf = g.buf = y.buf = NULL
    try:
        look(src, &x, PyBUF_STRIDED_RO)
        look(dst, &y, PyBUF_STRIDED_RO | PyBUF_WRITABLE)
        take_axes(l.axis, &x, &y, 1 << axis, True)
        if y.ndim != x.ndim:
            raise ValueError("input and output do not fit each other")
        if grad is not None:
            look(grad, &g, PyBUF_STRIDED_RO)
            take_other(l.axis, &x, &g)
        l.rank, l.dtype, l.gradient = x.ndim, 0 if x.itemsize == 4 else 1, grad is not None
        l.before, l.after, l.share, l.beta, l.k = before, after, share, beta, k
        operands = operands_of(x.buf, y.buf)
        operands.other[0] = g.buf
        plan = plan_of(FC_LRN, &l, isa)
        run_plan(plan, &operands, threads)
    finally:
        fc_plan_destroy(plan)
        release(&x)
        release(&g)
        release(&y)
