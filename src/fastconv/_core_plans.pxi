# SPDX-License-Identifier: BSD-3-Clause
# Plans of convolutions.

cdef class Packed:
    """Packed weights, for all plans of the same tag."""
    cdef object __weakref__
    cdef void *data
    cdef readonly size_t nbytes
    cdef uint64_t tag

    def __cinit__(self, size_t nbytes, uint64_t tag):
        self.nbytes, self.tag = nbytes, tag
        self.data = fc_memory_acquire(nbytes)
        if self.data is NULL:
            raise MemoryError(f"packed weights need {nbytes} bytes, which could not be allocated")

    def __dealloc__(self):
        fc_memory_release(self.data, self.nbytes)


cdef void fill_view(fc_view *view, tuple strides):
    view.group, view.outer, view.channel, view.axis[0], view.axis[1], view.axis[2] = strides


cdef int fill_problem(fc_problem *p, fields) except -1:
    """From `fastconv._args.Fields`, by name."""
    cdef int i
    p.direction = fields.direction
    p.types.source, p.types.weight, p.types.accumulator, p.types.destination = fields.types
    p.batch = fields.batch
    p.groups = fields.groups
    p.in_channels = fields.in_channels
    p.out_channels = fields.out_channels
    p.activation = fields.activation
    p.low = fields.low
    p.high = fields.high
    p.alpha = fields.alpha
    p.pooled = fields.pooled
    for i in range(3):
        a = &p.axis[i]
        a.in_, a.out, a.kernel, a.stride, a.dilation, a.pad = fields.axis[i]
    fill_view(&p.src, fields.src)
    fill_view(&p.wei, fields.wei)
    fill_view(&p.dst, fields.dst)
    return 0


cdef fc_options options_of(int isa, tuple caches, int algorithm, bint strict, bint once, bint batch_invariant,
                           tuple costs):
    cdef fc_options options
    options.machine = fc_machine_here(isa)
    for i in range(len(caches or ())):
        (&options.machine.l1)[i] = caches[i]
    options.algorithm, options.strict, options.once = algorithm, strict, once
    options.batch_invariant, options.borrows = batch_invariant, once  # run_once() packs
    for i in range(len(COST_NAMES)):
        (<double *>&options.costs)[i] = costs[i]
    return options


cdef class Plan(Planned):
    """A planned problem. ``fields`` are those of fc_problem; src, wei and dst the arrays' layouts."""
    cdef Layout src, wei, dst
    cdef object dtype
    cdef readonly uint64_t tag
    cdef readonly int algorithm

    def __cinit__(self, fields, int isa, int algorithm, bint strict, bint once, bint batch_invariant, tuple costs,
                  Layout src, Layout wei, Layout dst, dtype):
        cdef fc_problem problem
        fill_problem(&problem, fields)
        cdef fc_options options = options_of(isa, None, algorithm, strict, once, batch_invariant, costs)
        self.hold(planned(FC_CONV, &problem, &options))
        self.src, self.wei, self.dst, self.dtype = src, wei, dst, dtype
        self.tag = fc_plan_tag(self.plan)
        self.algorithm = fc_plan_algorithm(self.plan)

    cdef int pack_into(self, const void *wei, const void *bias, void *packed, int threads) except -1:
        cdef fc_status status
        with nogil:
            status = fc_plan_pack(self.plan, wei, bias, packed, threads)
        finished()
        if status != FC_OK:
            raise MemoryError("the weights in float32 could not be allocated")
        return 0

    cdef int run(self, const void *src, const void *packed, const void *residual, void *dst, int threads) except -1:
        cdef fc_operands operands = operands_of(src, dst)
        operands.wei, operands.residual = packed, residual
        run_plan(self.plan, &operands, threads)
        return 0

    cdef int run_once(self, const void *src, const void *wei, const void *bias, const void *residual, void *dst,
                      int threads) except -1:
        """As run, with weights that are packed in scratch memory, or as they are where the plan packs nothing."""
        if self.packed_bytes == 0:
            self.run(src, wei, residual, dst, threads)
            return 0
        cdef void *packed = acquire(self.packed_bytes)
        try:
            self.pack_into(wei, bias, packed, threads)
            self.run(src, packed, residual, dst, threads)
        finally:
            fc_scratch_release(packed)
        return 0

    def pack(self, wei, bias, int threads):
        """Packed weights (and bias, contiguous, or None)."""
        cdef Py_buffer w, b
        cdef Packed packed = Packed(self.packed_bytes, self.tag)
        w.buf = b.buf = NULL
        try:
            self.wei.take(wei, &w, False, "weight")
            if bias is not None:
                look(bias, &b, 0)
            self.pack_into(w.buf, b.buf, packed.data, threads)
        finally:
            release(&b)
            release(&w)
        return packed

    def execute(self, src, Packed packed, wei, bias, residual, dst, int threads):
        """dst from src, with packed weights or, if packed is None, with others. residual is laid out as dst, or None."""
        cdef Py_buffer s, w, b, r, d
        s.buf = w.buf = b.buf = r.buf = d.buf = NULL
        if packed is not None and packed.tag != self.tag:
            raise ValueError("weights were packed for plans of another kind")
        try:
            self.src.take(src, &s, False, "input")
            self.dst.take(dst, &d, True, "out")
            if residual is not None:
                self.dst.take(residual, &r, False, "residual")
            if packed is not None:
                self.run(s.buf, packed.data, r.buf, d.buf, threads)
                return
            self.wei.take(wei, &w, False, "weight")
            if bias is not None:
                look(bias, &b, 0)
            self.run_once(s.buf, w.buf, b.buf, r.buf, d.buf, threads)
        finally:
            release(&s)
            release(&w)
            release(&b)
            release(&r)
            release(&d)

    cdef bint suits(self, Views v) noexcept:
        cdef int i
        if not self.src.fits(&v.views[INPUT]) or not v.opened[WEIGHT] or not self.wei.fits(&v.views[WEIGHT]):
            return False
        for i in range(RESIDUAL, ARRAYS):
            if v.opened[i] and not self.dst.fits(&v.views[i]):
                return False
        bias = &v.views[BIAS]
        return not (v.opened[BIAS] and bias.shape[0] > 1 and bias.strides[0] != bias.itemsize)

    cdef object again(self, Views v, object out, int threads):
        out = v.result(out, self.dst.make, self.dst.shape, self.dtype)
        self.run_once(v.data(INPUT), v.data(WEIGHT), v.data(BIAS), v.data(RESIDUAL), v.views[OUT].buf, threads)
        return out

    def call(self, src, Packed packed not None, residual, out, int threads):
        """The result, in out if given. None if any array is not just as the plan needs it: then nothing was done."""
        cdef Views v = Views.__new__(Views)
        if packed.tag != self.tag:
            raise ValueError("weights were packed for plans of another kind")
        if not (v.open(INPUT, src) and v.open(RESIDUAL, residual) and v.open(OUT, out) and v.opened[INPUT]):
            return None
        if not self.src.fits(&v.views[INPUT]) or v.opened[RESIDUAL] and not self.dst.fits(&v.views[RESIDUAL]):
            return None
        if v.opened[OUT] and not self.dst.fits(&v.views[OUT]) or not v.safe():
            return None
        out = v.result(out, self.dst.make, self.dst.shape, self.dtype)
        self.run(v.data(INPUT), packed.data, v.data(RESIDUAL), v.views[OUT].buf, threads)
        return out


def explain(fields, int isa, bint strict, bint batch_invariant, tuple costs):
    """(name, reason of refusal or None, predicted seconds) of every algorithm, in the order of their numbers.

    With batch_invariant, the seconds are those of one image.
    """
    cdef fc_problem problem
    cdef fc_verdict verdicts[FC_ALGOS]
    cdef char message[FC_MESSAGE]
    fill_problem(&problem, fields)
    cdef fc_op op
    op.family, op.problem = FC_CONV, &problem
    cdef fc_status status = fc_op_check(&op, message)
    if status != FC_OK:
        raise_status(status, message)
    cdef fc_options options = options_of(isa, None, 0, strict, False, batch_invariant, costs)
    fc_plan_explain(&problem, &options, verdicts)
    return [(v.name.decode(), None if v.refusal is NULL else v.refusal.decode(), v.cost) for v in verdicts[:FC_ALGOS]]


def choice(fields, int isa, tuple caches, tuple costs, bint once=False):
    """Number of the algorithm, its form, and bytes of scratch on one thread, on a machine with these caches."""
    cdef fc_problem problem
    fill_problem(&problem, fields)
    cdef fc_options options = options_of(isa, caches, FC_AUTO, False, once, False, costs)
    cdef fc_plan *plan = planned(FC_CONV, &problem, &options)
    try:
        scratch = fc_schedule_scratch_bytes(schedule_of(plan, 1))
        return fc_plan_algorithm(plan), fc_plan_form(plan).decode(), scratch
    finally:
        fc_plan_destroy(plan)
