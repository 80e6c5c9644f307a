# SPDX-License-Identifier: BSD-3-Clause
# What only training needs: batch norm, and steps of optimisers.

def batch_norm(src, other, vectors, gain, dst, int axis, int kind, double low, double high, double eps, int isa,
               int threads):
    """What an fc_batch_kind does to src, whose channels are this axis.

    ``other`` has the shape of src, and so has dst, or else it is (2, channels); ``vectors`` is (9, channels) without gaps,
    and ``gain`` (channels,), which is 1 where there is none.
    """
    cdef fc_batch_norm b
    cdef fc_operands operands
    cdef fc_plan *plan = NULL
    cdef Py_buffer x, g, v, q, y
    cdef bint finds = kind == FC_BATCH_MOMENTS or kind == FC_BATCH_SUMS
    cdef bint both = kind == FC_BATCH_TRAIN or kind == FC_BATCH_GRADIENT
    cdef bint reads = kind == FC_BATCH_SUMS or kind == FC_BATCH_BACKWARD or kind == FC_BATCH_GRADIENT
    cdef bint fit
    cdef int i
    x.buf = g.buf = v.buf = q.buf = y.buf = NULL
    try:
        look(src, &x, PyBUF_STRIDED_RO)
        look(dst, &y, PyBUF_STRIDED_RO | PyBUF_WRITABLE)
        if other is not None:
            look(other, &g, PyBUF_STRIDED_RO)
        if vectors is not None:
            look(vectors, &v, PyBUF_C_CONTIGUOUS | (PyBUF_WRITABLE if both else 0))
        if gain is not None:
            look(gain, &q, PyBUF_C_CONTIGUOUS)
        fit = 0 <= axis < x.ndim <= FOLD_RANK and x.itemsize in (4, 8) and y.itemsize == x.itemsize
        fit = fit and y.ndim == (2 if finds else x.ndim)
        fit = fit and (g.buf is NULL or g.itemsize == x.itemsize and g.ndim == x.ndim)
        fit = fit and (g.buf is not NULL or not reads) and (q.buf is NULL or both)
        if fit and kind != FC_BATCH_MOMENTS:
            fit = (v.buf is not NULL and v.itemsize == x.itemsize and v.ndim == 2
                   and v.shape[0] == FC_BATCH_ROWS and v.shape[1] == x.shape[axis])
        if fit and q.buf is not NULL:
            fit = q.itemsize == x.itemsize and q.ndim == 1 and q.shape[0] == x.shape[axis]
        for i in range(x.ndim if fit else 0):
            b.axis[i].count, b.axis[i].folded = x.shape[i], i != axis
            b.axis[i].src, b.axis[i].dst, b.axis[i].wei = x.strides[i] // x.itemsize, 0, 0
            fit = fit and x.strides[i] % x.itemsize == 0
            if g.buf is not NULL:
                b.axis[i].wei = g.strides[i] // g.itemsize
                fit = fit and g.shape[i] == x.shape[i] and g.strides[i] % g.itemsize == 0
            if not finds:
                b.axis[i].dst = y.strides[i] // y.itemsize
                fit = fit and y.shape[i] == x.shape[i] and y.strides[i] % y.itemsize == 0
        if fit and finds:
            b.axis[axis].dst = y.strides[1] // y.itemsize
            fit = y.shape[0] == 2 and y.shape[1] == x.shape[axis] and y.strides[1] % y.itemsize == 0
            fit = fit and y.strides[0] % y.itemsize == 0
        if not fit:
            raise ValueError("input, output and the others do not fit each other")
        b.rank, b.dtype, b.kind = x.ndim, 0 if x.itemsize == 4 else 1, kind
        b.low, b.high, b.eps = low, high, eps
        b.second = y.strides[0] // y.itemsize if finds else 0
        operands = operands_of(x.buf, y.buf)
        operands.other[0], operands.other[1] = g.buf, q.buf if both else v.buf
        if both:
            operands.further = v.buf
        plan = plan_of(FC_BATCH_NORM, &b, isa)
        run_plan(plan, &operands, threads)
    finally:
        fc_plan_destroy(plan)
        release(&x)
        release(&g)
        release(&v)
        release(&q)
        release(&y)


def blend(running, fresh, double momentum, double factor):
    """running = (1 - momentum) * running + momentum * factor * fresh, of vectors of one type without gaps."""
    cdef Py_buffer r, f
    r.buf = f.buf = NULL
    try:
        look(running, &r, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
        look(fresh, &f, PyBUF_C_CONTIGUOUS)
        if r.itemsize not in (4, 8) or f.itemsize != r.itemsize or f.len != r.len:
            raise ValueError("a running statistic and its new values do not fit each other")
        fc_blend(0 if r.itemsize == 4 else 1, r.buf, f.buf, r.len // r.itemsize, momentum, factor)
    finally:
        release(&r)
        release(&f)


cdef enum:
    UPDATE_ARRAYS = 5  # parameters, their gradient, and what is remembered


cdef int take_update(fc_update_arrays *a, Py_buffer *views, object p, object g, tuple states) except -1:
    """Opens the buffers of one parameter and what belongs to it; the caller releases them."""
    cdef int k
    cdef bint fit
    look(p, &views[0], PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | PyBUF_WRITABLE)
    look(g, &views[1], PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
    fit = len(states) <= FC_UPDATE_STATES and views[0].format[1] == 0
    fit = fit and (views[0].format[0] == c'f' or views[0].format[0] == c'd')
    for k in range(len(states) if fit else 0):
        look(states[k], &views[2 + k], PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | PyBUF_WRITABLE)
    for k in range(1, 2 + len(states) if fit else 0):
        fit = fit and views[k].len == views[0].len and views[k].format[0] == views[0].format[0]
        fit = fit and views[k].format[1] == 0
    if not fit:
        raise ValueError("a parameter, its gradient and its state do not fit each other")
    a.dtype, a.count = 0 if views[0].itemsize == 4 else 1, views[0].len // views[0].itemsize
    a.p, a.g = views[0].buf, views[1].buf
    for k in range(FC_UPDATE_STATES):
        a.state[k] = views[2 + k].buf
    return 0


def update(list rules, list arrays, int isa, int threads):
    """A step of an optimiser: of each parameter the number of its rule, whether it is fresh, and its arrays."""
    cdef Py_ssize_t count = len(arrays), i
    cdef fc_update_rule *rule = <fc_update_rule *>PyMem_Calloc(len(rules) + 1, sizeof(fc_update_rule))
    cdef fc_update_arrays *taken = <fc_update_arrays *>PyMem_Calloc(count + 1, sizeof(fc_update_arrays))
    cdef Py_buffer *views = <Py_buffer *>PyMem_Calloc(count * UPDATE_ARRAYS + 1, sizeof(Py_buffer))
    try:
        if rule is NULL or taken is NULL or views is NULL:
            raise MemoryError("the arrays of a step could not be listed")
        for i in range(len(rules)):
            r = &rule[i]
            (r.kind, r.nesterov, r.rate, r.decay, r.momentum, r.keep, r.shrink, r.square, r.root, r.eps) = rules[i]
        for i in range(count):
            number, fresh, p, g, states = arrays[i]
            if not 0 <= number < len(rules):
                raise ValueError(f"there is no rule {number}")
            taken[i].rule, taken[i].fresh = &rule[<Py_ssize_t>number], fresh
            take_update(&taken[i], views + i * UPDATE_ARRAYS, p, g, states)
            if len(states) < (2 if taken[i].rule.kind else 0):
                raise ValueError(f"a parameter has {len(states)} states, too few for its rule")
        with nogil:
            fc_update(taken, count, isa, threads)
    finally:
        for i in range(count * UPDATE_ARRAYS if views is not NULL else 0):
            release(&views[i])
        PyMem_Free(rule)
        PyMem_Free(taken)
        PyMem_Free(views)
    finished()


def cross_entropy(src, target, weight, int64_t ignore, double smoothing, loss, d, grad, bint mean, int isa, int threads):
    """The sum of losses, that of the weights of their classes, and the first row of which the index is wrong, or -1.

    src is (outer, classes, inner); target, of int64, is (outer, inner), and so is loss, of float64, if any. d, if any, has
    the shape of src, and grad, of float64, (outer, inner) or (): all of them but src lie without gaps.
    """
    cdef fc_cross_entropy work
    cdef Py_buffer x, t, w, l, y, g
    cdef int64_t wrong
    cdef int i
    cdef bint fit
    x.buf = t.buf = w.buf = l.buf = y.buf = g.buf = NULL
    try:
        look(src, &x, PyBUF_STRIDED_RO)
        look(target, &t, PyBUF_C_CONTIGUOUS)
        fit = x.ndim == 3 and x.itemsize in (4, 8) and t.itemsize == 8 and t.ndim == 2
        fit = fit and t.shape[0] == x.shape[0] and t.shape[1] == x.shape[2]
        if weight is not None:
            look(weight, &w, PyBUF_C_CONTIGUOUS)
            fit = fit and w.itemsize == x.itemsize and w.ndim == 1 and w.shape[0] == x.shape[1]
        if loss is not None:
            look(loss, &l, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
            fit = fit and l.itemsize == 8 and l.len == t.len
        if d is not None:
            look(d, &y, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
            look(grad, &g, PyBUF_C_CONTIGUOUS)
            fit = fit and y.itemsize == x.itemsize and y.len == x.shape[0] * x.shape[1] * x.shape[2] * x.itemsize
            fit = fit and g.itemsize == 8 and (g.ndim == 0 or g.len == t.len)
        for i in range(3 if fit else 0):
            fit = fit and x.strides[i] % x.itemsize == 0
            work.step[i] = x.strides[i] // x.itemsize
        if not fit:
            raise ValueError("scores, classes and the others do not fit each other")
        work.dtype, work.outer, work.classes, work.inner = 0 if x.itemsize == 4 else 1, x.shape[0], x.shape[1], x.shape[2]
        work.src, work.target, work.weight, work.d = x.buf, <const int64_t *>t.buf, w.buf, y.buf
        work.ignore, work.smoothing, work.loss, work.grad = ignore, smoothing, <double *>l.buf, <const double *>g.buf
        work.each, work.mean, work.total, work.divisor = g.buf is not NULL and g.ndim > 0, mean, 0, 0
        with nogil:
            wrong = fc_cross_entropy_run(&work, isa, threads)
    finally:
        release(&x)
        release(&t)
        release(&w)
        release(&l)
        release(&y)
        release(&g)
    finished()
    return work.total, work.divisor, wrong
