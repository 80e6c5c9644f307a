# SPDX-License-Identifier: BSD-3-Clause
# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The binding: hands arrays to the C core and turns its status into exceptions. No arithmetic, no policy."""

from cpython.buffer cimport (
    PyBUF_ANY_CONTIGUOUS,
    PyBUF_RECORDS_RO,
    PyBUF_STRIDED_RO,
    PyBUF_WRITABLE,
    PyBuffer_Release,
)
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcmp

from numpy import dtype as numpy_dtype, empty, int64 as INT64, ndarray

cdef extern from "Python.h":
    int PyObject_GetBuffer(object, Py_buffer *, int) noexcept  # -1 with the exception set; look() hands it on

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
        FC_AUTO
        FC_BACKWARD_INPUT
        FC_ALGOS
        FC_ISAS
        FC_MESSAGE
        FC_RANK
        FC_DESCRIPTION
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
        int32_t dtype, direction, half
        double low, high
    ctypedef struct fc_plan:
        pass
    ctypedef struct fc_schedule:
        pass
    ctypedef struct fc_verdict:
        const char *name
        const char *refusal
        double cost, packing
    ctypedef struct fc_costs:
        pass
    ctypedef struct fc_machine:
        fc_isa isa
        int64_t l1
    fc_machine fc_machine_here(fc_isa)
    const char *const fc_cache_names[]
    ctypedef struct fc_options:
        fc_machine machine
        fc_algo_id algorithm
        int strict, once, batch_invariant
        fc_costs costs
    fc_costs fc_costs_default(fc_isa)
    const char *const fc_cost_names[]
    ctypedef struct fc_pool:
        int64_t batch, channels
        fc_axis axis[3]
        fc_view src, dst, index
        int32_t dtype, kind, direction, indexed, adaptive, count_include_pad
        int64_t pad_after[3]
        int64_t divisor
    ctypedef struct fc_stencil_axis:
        int64_t in_ "in"
        int64_t out, kernel, offset, src, dst
        int32_t border
    ctypedef struct fc_stencil:
        int32_t rank, dtype, separable, unfused
        double fill, fill_rows
        fc_stencil_axis axis[8]
    ctypedef struct fc_op:
        const fc_problem *conv
        const fc_pool *pool
        const fc_stencil *stencil
    fc_status fc_op_check(const fc_op *, char *)
    fc_status fc_plan_create(const fc_op *, const fc_options *, fc_plan **, char *)
    void fc_plan_destroy(fc_plan *)
    void fc_plan_explain(const fc_problem *, const fc_options *, fc_verdict *)
    fc_algo_id fc_plan_algorithm(const fc_plan *)
    const char *fc_plan_form(const fc_plan *)
    size_t fc_plan_packed_bytes(const fc_plan *)
    double fc_plan_flops(const fc_plan *)
    double fc_plan_seconds(const fc_plan *)
    fc_status fc_plan_pack(const fc_plan *, const void *, const void *, void *, int)
    fc_status fc_plan_schedule(const fc_plan *, int, const fc_schedule **)
    size_t fc_schedule_scratch_bytes(const fc_schedule *)
    ctypedef struct fc_operands:
        const void *src
        const void *wei
        const void *residual
        void *dst
        int64_t *index
    fc_status fc_schedule_run(const fc_schedule *, const fc_operands *, void *)
    int fc_isa_built(fc_isa)
    int fc_isa_supported(fc_isa)
    fc_isa fc_isa_best()
    const char *fc_isa_name(fc_isa)
    int fc_openmp()
    const char *fc_compiler()
    int fc_process_forked()
    int fc_process_orphaned()
    int fc_process_cpus()
    void fc_process_interrupt(int (*)() noexcept)
    int fc_process_interrupted()
    size_t fc_scratch_kept()
    size_t FC_SCRATCH_KEPT
    double fc_fma_burn(fc_isa, fc_dtype, int, int64_t, double *)
    void *fc_memory_acquire(size_t)
    void fc_memory_release(void *)
    ctypedef struct fc_array:
        const void *data
        const char *format
        ptrdiff_t itemsize
        int ndim
        const ptrdiff_t *shape
        const ptrdiff_t *strides
    int fc_array_describe(const fc_array *, int64_t *)
    int fc_arrays_apart(const fc_array *, const fc_array *)
    uint64_t fc_fingerprint(const void *, size_t, int) nogil
    void *fc_scratch_acquire(size_t)
    void fc_scratch_release(void *)


cdef extern from "Python.h":
    int PyErr_CheckSignals()  # declared here without an exception: it is left for `finished` to raise


cdef int handle_signals() noexcept with gil:
    return PyErr_CheckSignals()


fc_process_interrupt(handle_signals)


cdef int finished() except -1:
    """Raises what the handler of a signal raised, if that has cut the call short. Every call of the core ends here."""
    return -1 if fc_process_interrupted() else 0


cdef int look(object array, Py_buffer *view, int flags) except -1:
    """Opens a buffer, or raises and leaves it closed, so that release() may be called either way."""
    cdef int status = PyObject_GetBuffer(array, view, flags)
    if status < 0:
        view.buf = NULL
    return status


cdef void release(Py_buffer *view) noexcept:
    """Closes a buffer, if it is open."""
    if view.buf is not NULL:
        PyBuffer_Release(view)
        view.buf = NULL


cdef fc_array seen(const Py_buffer *view) noexcept:
    cdef fc_array a
    a.data, a.format, a.itemsize, a.ndim = view.buf, view.format, view.itemsize, view.ndim
    a.shape, a.strides = <const ptrdiff_t *>view.shape, <const ptrdiff_t *>view.strides
    return a


cdef bint apart(const Py_buffer *a, const Py_buffer *b) noexcept:
    cdef fc_array first = seen(a), second = seen(b)
    return fc_arrays_apart(&first, &second)


def fingerprint(object array, int threads):
    """64 bits that tell the contents of an array without gaps from others."""
    cdef Py_buffer view
    cdef uint64_t found
    look(array, &view, PyBUF_ANY_CONTIGUOUS)
    with nogil:
        found = fc_fingerprint(view.buf, view.len, threads)
    release(&view)
    finished()
    return found


cdef class Layout:
    """Shape, byte strides and format that an array must have."""
    cdef readonly tuple shape
    cdef int length
    cdef int64_t description[FC_DESCRIPTION]

    def __cinit__(self, tuple shape, tuple strides, str format):
        cdef fc_array a
        cdef ptrdiff_t lengths[FC_RANK]
        cdef ptrdiff_t steps[FC_RANK]
        cdef int i
        kind = format.encode()
        if len(shape) != len(strides) or len(shape) > FC_RANK:
            raise ValueError("shape and strides differ in length")
        for i in range(len(shape)):
            lengths[i], steps[i] = shape[i], strides[i]
        a.data, a.format, a.itemsize, a.ndim = NULL, kind, numpy_dtype(format).itemsize, len(shape)
        a.shape, a.strides = lengths, steps
        self.shape = shape
        self.length = fc_array_describe(&a, self.description)
        if self.length == 0:
            raise ValueError("strides are not whole elements of a native float")

    cdef bint fits(self, const Py_buffer *view) noexcept:
        cdef fc_array a = seen(view)
        cdef int64_t description[FC_DESCRIPTION]
        return (fc_array_describe(&a, description) == self.length
                and memcmp(description, self.description, self.length * sizeof(int64_t)) == 0)

    cdef int take(self, object array, Py_buffer *view, bint writable, str name) except -1:
        """Opens the array's buffer; the caller releases it."""
        look(array, view, PyBUF_RECORDS_RO | (PyBUF_WRITABLE if writable else 0))
        if not self.fits(view):
            release(view)
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


cdef void *acquire(size_t nbytes) except NULL:
    cdef void *memory = fc_scratch_acquire(nbytes)
    if memory is NULL:
        raise MemoryError(f"{nbytes} bytes of scratch memory could not be allocated")
    return memory


cdef void fill_view(fc_view *view, tuple strides):
    view.group, view.outer, view.channel, view.axis[0], view.axis[1], view.axis[2] = strides


cdef int fill_problem(fc_problem *p, tuple fields) except -1:
    direction, dtype, half, batch, groups, in_channels, out_channels, axes, src, wei, dst, low, high = fields
    p.direction, p.dtype, p.half, p.batch, p.groups = direction, dtype, half, batch, groups
    p.in_channels, p.out_channels, p.low, p.high = in_channels, out_channels, low, high
    cdef int i
    for i in range(3):
        p.axis[i].in_, p.axis[i].out, p.axis[i].kernel, p.axis[i].stride, p.axis[i].dilation, p.axis[i].pad = axes[i]
    fill_view(&p.src, src)
    fill_view(&p.wei, wei)
    fill_view(&p.dst, dst)
    return 0


cdef fc_options options_of(int isa, tuple caches, int algorithm, bint strict, bint once, bint batch_invariant,
                           tuple costs):
    cdef fc_options options
    options.machine = fc_machine_here(isa)
    for i in range(len(caches or ())):
        (&options.machine.l1)[i] = caches[i]
    options.algorithm, options.strict, options.once = algorithm, strict, once
    options.batch_invariant = batch_invariant
    for i in range(len(COST_NAMES)):
        (<double *>&options.costs)[i] = costs[i]
    return options


cdef tuple names_of_costs():
    cdef int count = 0
    while fc_cost_names[count] is not NULL:
        count += 1
    return tuple([fc_cost_names[i].decode() for i in range(count)])


#: What the cost model rests on: the order of the numbers in ``costs``.
COST_NAMES = names_of_costs()


def default_costs(int isa):
    """Seconds, in the order of COST_NAMES, on a nominal machine with this instruction set."""
    cdef fc_costs costs = fc_costs_default(isa)
    return tuple([(<double *>&costs)[i] for i in range(len(COST_NAMES))])


cdef tuple names_of_caches():
    cdef int count = 0
    while fc_cache_names[count] is not NULL:
        count += 1
    return tuple([fc_cache_names[i].decode() for i in range(count)])


#: Bytes of the data caches as one core sees them, and the ways of the first: the order of the numbers in ``caches``.
CACHE_NAMES = names_of_caches()


def caches():
    """Those of this machine, in the order of CACHE_NAMES."""
    cdef fc_machine machine = fc_machine_here(0)
    return tuple([(&machine.l1)[i] for i in range(len(CACHE_NAMES))])


cdef raise_status(fc_status status, bytes message):
    if status == FC_NO_MEMORY:
        raise MemoryError(message.decode())
    if status == FC_UNSUPPORTED:
        raise NotImplementedError(message.decode())
    raise ValueError(message.decode())


cdef const fc_schedule *schedule_of(const fc_plan *plan, int threads) except NULL:
    cdef const fc_schedule *schedule = NULL
    if fc_plan_schedule(plan, threads, &schedule) != FC_OK:
        raise MemoryError("the schedule of a plan could not be allocated")
    return schedule


cdef fc_status run_plan(const fc_plan *plan, const fc_operands *operands, int threads) except? FC_NO_MEMORY:
    """Runs a plan on arrays that have been checked. FC_INVALID: an index lies outside of the plane."""
    cdef const fc_schedule *schedule = schedule_of(plan, threads)
    cdef size_t bytes = fc_schedule_scratch_bytes(schedule)
    cdef void *scratch = acquire(bytes) if bytes else NULL
    cdef fc_status status
    with nogil:
        status = fc_schedule_run(schedule, operands, scratch)
    fc_scratch_release(scratch)
    finished()
    return status


cdef enum:
    INPUT, WEIGHT, BIAS, RESIDUAL, OUT, ARRAYS


cdef class Views:
    """Buffers of the arrays of a call, opened for as long as this object lives. None of them is written but OUT."""
    cdef Py_buffer views[ARRAYS]
    cdef bint opened[ARRAYS]

    def __dealloc__(self):
        cdef int i
        for i in range(ARRAYS):
            if self.opened[i]:
                release(&self.views[i])

    cdef const void *data(self, int which) noexcept:
        return self.views[which].buf if self.opened[which] else NULL

    cdef bint open(self, int which, object array):
        """Whether the array is None or can be read as it stands: a plain NumPy array, of which no error is known."""
        if array is None:
            return True
        if type(array) is not ndarray:
            return False
        try:
            look(array, &self.views[which], PyBUF_RECORDS_RO)
        except MemoryError:
            raise
        except Exception:  # a dtype that has no buffers: its error is told by who understands the arguments
            return False
        self.opened[which] = True
        return True

    cdef object result(self, object out, tuple shape, object dtype):
        """What OUT is opened for: `out`, or a new array if that is None."""
        if out is None:
            out = empty(shape, dtype)
            look(out, &self.views[OUT], PyBUF_RECORDS_RO | PyBUF_WRITABLE)
            self.opened[OUT] = True
        return out

    cdef bint safe(self) noexcept:
        """Whether OUT may be written while the others are read; only RESIDUAL may be OUT itself."""
        cdef int i
        if not self.opened[OUT]:
            return True
        if self.views[OUT].readonly:
            return False
        for i in range(OUT):
            if self.opened[i] and not apart(&self.views[i], &self.views[OUT]):
                if i != RESIDUAL or self.views[i].buf != self.views[OUT].buf:
                    return False
        return True

    cdef object key(self):
        """What tells these arrays from those of another call, or None."""
        cdef int64_t text[ARRAYS * FC_DESCRIPTION]
        cdef fc_array a
        cdef int i, length = 0, more
        for i in range(ARRAYS):
            if not self.opened[i]:
                text[length] = -1
                length += 1
                continue
            a = seen(&self.views[i])
            more = fc_array_describe(&a, &text[length])
            if more == 0:
                return None
            length += more
        return PyBytes_FromStringAndSize(<const char *>text, length * sizeof(int64_t))


cdef class Prepared:
    """What a call comes down to once its arguments have been understood."""

    cdef bint suits(self, Views v) noexcept:
        """Whether the arrays can be taken as they stand."""
        return False

    cdef object again(self, Views v, object out, int threads):
        """The result for arrays that look the same; in out unless that is None."""
        return None


cdef class Plan(Prepared):
    """A planned problem. ``fields`` are those of fc_problem, in its order; src, wei and dst the arrays' layouts."""
    cdef fc_plan *plan
    cdef Layout src, wei, dst
    cdef object dtype
    cdef readonly double flops
    cdef readonly size_t packed_bytes
    cdef readonly int algorithm

    def __cinit__(self, tuple fields, int isa, int algorithm, bint strict, bint once, bint batch_invariant, tuple costs,
                  Layout src, Layout wei, Layout dst, dtype):
        cdef fc_problem problem
        cdef char message[FC_MESSAGE]
        fill_problem(&problem, fields)
        cdef fc_options options = options_of(isa, None, algorithm, strict, once, batch_invariant, costs)
        cdef fc_op op
        op.conv, op.pool, op.stencil = &problem, NULL, NULL
        cdef fc_status status = fc_plan_create(&op, &options, &self.plan, message)
        if status != FC_OK:
            raise_status(status, message)
        self.src, self.wei, self.dst, self.dtype = src, wei, dst, dtype
        self.flops = fc_plan_flops(self.plan)
        self.packed_bytes = fc_plan_packed_bytes(self.plan)
        self.algorithm = fc_plan_algorithm(self.plan)

    def __dealloc__(self):
        fc_plan_destroy(self.plan)

    def workspace_bytes(self, int threads):
        return fc_schedule_scratch_bytes(schedule_of(self.plan, threads))

    cdef int pack_into(self, const void *wei, const void *bias, void *packed, int threads) except -1:
        cdef fc_status status
        with nogil:
            status = fc_plan_pack(self.plan, wei, bias, packed, threads)
        finished()
        if status != FC_OK:
            raise MemoryError("the weights in float32 could not be allocated")
        return 0

    cdef int run(self, const void *src, const void *packed, const void *residual, void *dst, int threads) except -1:
        cdef fc_operands operands
        operands.src, operands.wei, operands.residual, operands.dst, operands.index = src, packed, residual, dst, NULL
        run_plan(self.plan, &operands, threads)
        return 0

    cdef int run_once(self, const void *src, const void *wei, const void *bias, const void *residual, void *dst,
                      int threads) except -1:
        """As run, with weights that are packed in scratch memory."""
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
        cdef Packed packed = Packed(self.packed_bytes)
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
        if packed is not None and packed.nbytes != self.packed_bytes:
            raise ValueError("weights were packed by another plan")
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
        out = v.result(out, self.dst.shape, self.dtype)
        self.run_once(v.data(INPUT), v.data(WEIGHT), v.data(BIAS), v.data(RESIDUAL), v.views[OUT].buf, threads)
        return out

    def call(self, src, Packed packed not None, residual, out, int threads):
        """The result, in out if given. None if any array is not just as the plan needs it: then nothing was done."""
        cdef Views v = Views.__new__(Views)
        if packed.nbytes != self.packed_bytes:
            raise ValueError("weights were packed by another plan")
        if not (v.open(INPUT, src) and v.open(RESIDUAL, residual) and v.open(OUT, out) and v.opened[INPUT]):
            return None
        if not self.src.fits(&v.views[INPUT]) or v.opened[RESIDUAL] and not self.dst.fits(&v.views[RESIDUAL]):
            return None
        if v.opened[OUT] and not self.dst.fits(&v.views[OUT]) or not v.safe():
            return None
        out = v.result(out, self.dst.shape, self.dtype)
        self.run(v.data(INPUT), packed.data, v.data(RESIDUAL), v.views[OUT].buf, threads)
        return out


cdef bint plain(object value, int depth):
    """Whether values of this kind mean the same if they are equal: True == 1.0 == 1, but only 1 is an integer.

    Tuples may nest to `depth`; what is valid does not go further, and hashing what does could exhaust the stack.
    """
    if type(value) is tuple and depth > 0:
        for item in <tuple>value:
            if not plain(item, depth - 1):
                return False
        return True
    return value is None or type(value) is int or type(value) is str


cdef class Calls:
    """Plans of the last one-shot calls, each found again by its arrays' layouts and its parameters as given.

    Two generations of at most `room` / 2 calls: one that is repeated enters the younger, and when that is full it
    takes the place of the older. So the last room / 2 calls are always kept, and the most used ones stay.
    """
    cdef dict young, old
    cdef int room

    def __cinit__(self, int room):
        self.young, self.old, self.room = {}, {}, room

    def __len__(self):
        return len(self.young.keys() | self.old.keys())

    cdef int keep(self, object key, Prepared plan) except -1:
        if len(self.young) >= self.room // 2:
            self.old, self.young = self.young, {}
        self.young[key] = plan
        return 0

    cdef object key(self, Views v, tuple arrays, tuple parameters):
        cdef int i
        for i in range(ARRAYS):
            if not v.open(i, arrays[i]):
                return None
        arrays_key = v.key()
        return None if arrays_key is None or not plain(parameters, 3) else (arrays_key, parameters)

    def repeat(self, tuple arrays, tuple parameters, int threads):
        """The result of a call like an earlier one. None if there was none, or anything needs a closer look.

        ``arrays`` are input, weight, bias, residual and out; of all but the first there may be none.
        """
        cdef Views v = Views.__new__(Views)
        cdef Prepared plan
        key = self.key(v, arrays, parameters)
        if key is None:
            return None
        plan = self.young.get(key)
        if plan is None:
            plan = self.old.get(key)
            if plan is None:
                return None
            self.keep(key, plan)
        if not v.safe():
            return None
        return plan.again(v, arrays[OUT], threads)

    def remember(self, tuple arrays, tuple parameters, Prepared plan):
        """Keep the plan of a call that has succeeded, if its arrays went into the plan as they stand.

        One that could not be kept has succeeded all the same.
        """
        cdef Views v
        try:
            v = Views.__new__(Views)
            key = self.key(v, arrays, parameters)
            if key is not None and v.opened[INPUT] and plan.suits(v):
                self.keep(key, plan)
        except MemoryError:
            pass


def explain(tuple fields, int isa, bint strict, bint batch_invariant, tuple costs):
    """(name, reason of refusal or None, predicted seconds) of every algorithm, in the order of their numbers.

    With batch_invariant, the seconds are those of one image.
    """
    cdef fc_problem problem
    cdef fc_verdict verdicts[FC_ALGOS]
    cdef char message[FC_MESSAGE]
    fill_problem(&problem, fields)
    cdef fc_op op
    op.conv, op.pool, op.stencil = &problem, NULL, NULL
    cdef fc_status status = fc_op_check(&op, message)
    if status != FC_OK:
        raise_status(status, message)
    cdef fc_options options = options_of(isa, None, 0, strict, False, batch_invariant, costs)
    fc_plan_explain(&problem, &options, verdicts)
    return [(v.name.decode(), None if v.refusal is NULL else v.refusal.decode(), v.cost) for v in verdicts[:FC_ALGOS]]


def choice(tuple fields, int isa, tuple caches, tuple costs):
    """Number of the algorithm, its form, and bytes of scratch on one thread, on a machine with these caches."""
    cdef fc_problem problem
    cdef char message[FC_MESSAGE]
    cdef fc_plan *plan = NULL
    fill_problem(&problem, fields)
    cdef fc_options options = options_of(isa, caches, FC_AUTO, False, False, False, costs)
    cdef fc_op op
    op.conv, op.pool, op.stencil = &problem, NULL, NULL
    cdef fc_status status = fc_plan_create(&op, &options, &plan, message)
    if status != FC_OK:
        raise_status(status, message)
    try:
        scratch = fc_schedule_scratch_bytes(schedule_of(plan, 1))
        return fc_plan_algorithm(plan), fc_plan_form(plan).decode(), scratch
    finally:
        fc_plan_destroy(plan)


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


cdef fc_plan *plan_of(const fc_op *op, int isa) except NULL:
    """A plan of what has no algorithms to choose from; the caller destroys it."""
    cdef fc_plan *plan = NULL
    cdef char message[FC_MESSAGE]
    cdef fc_options options
    options.machine = fc_machine_here(isa)
    options.algorithm, options.strict, options.once = FC_AUTO, False, False
    options.costs = fc_costs_default(isa)
    cdef fc_status status = fc_plan_create(op, &options, &plan, message)
    if status != FC_OK:
        raise_status(status, message)
    return plan


cdef class PoolCall(Prepared):
    """Pooling of planes of known sizes and strides; ``shape`` and ``dtype`` are those of the caller's result."""
    cdef fc_plan *plan
    cdef bint positions
    cdef tuple shape
    cdef object dtype

    def __dealloc__(self):
        fc_plan_destroy(self.plan)

    cdef int prepare(self, const fc_pool *pool, int isa) except -1:
        cdef fc_op op
        op.conv, op.pool, op.stencil = NULL, pool, NULL
        self.plan = plan_of(&op, isa)
        return 0

    cdef fc_status run(self, const void *src, void *dst, int64_t *where, int threads) except? FC_NO_MEMORY:
        cdef fc_operands operands
        operands.src, operands.wei, operands.residual, operands.dst, operands.index = src, NULL, NULL, dst, where
        return run_plan(self.plan, &operands, threads)

    def returns(self, tuple shape, dtype):
        self.shape, self.dtype = shape, dtype
        return self

    cdef bint suits(self, Views v) noexcept:
        return self.shape is not None

    cdef object again(self, Views v, object out, int threads):
        cdef Py_buffer i
        i.buf = NULL
        out = v.result(out, self.shape, self.dtype)
        answer = out
        if self.positions:
            indices = empty(self.shape, INT64)
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
            call.prepare(&p, isa)
            call.run(s.buf, d.buf, <int64_t *>i.buf, threads)
        finally:
            release(&s)
            release(&d)
            release(&i)
        return call

    def backward(self, d_dst, indices, d_src, int isa, int threads):
        """d_src from d_dst, and from the forward indices for a maximum. Whether all of them lay in the plane."""
        cdef PoolCall call = PoolCall.__new__(PoolCall)
        cdef fc_pool p = self.pool
        cdef Py_buffer s, d, i
        cdef fc_status status
        s.buf = d.buf = i.buf = NULL
        p.direction = FC_BACKWARD_INPUT
        try:
            take_planes(d_src, &s, &p.src, True, "d_src")
            take_planes(d_dst, &d, &p.dst, False, "grad_output")
            if indices is not None:
                take_planes(indices, &i, &p.index, False, "indices")
            elif p.kind == 0:
                raise ValueError("the gradient of a maximum needs indices")
            self.fill(&p, &s, &d, &i)
            call.prepare(&p, isa)
            status = call.run(d.buf, s.buf, <int64_t *>i.buf, threads)
        finally:
            release(&s)
            release(&d)
            release(&i)
        return status == FC_OK


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
        cdef fc_op op
        op.conv, op.pool, op.stencil = NULL, NULL, stencil
        return plan_of(&op, self.isa)

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
        cdef fc_operands operands
        cdef void *packed = acquire(fc_plan_packed_bytes(plan))
        operands.src, operands.wei, operands.residual, operands.dst, operands.index = src, packed, NULL, dst, NULL
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


def process():
    """Whether this process was forked before it loaded the core, and whether its OpenMP threads may be another's."""
    return bool(fc_process_forked()), bool(fc_process_orphaned())


def cpus(int most):
    """CPUs that the affinity of this thread leaves to it as of a moment ago, of ``most``."""
    cdef int here = fc_process_cpus()
    return here if 0 < here < most else most


def scratch():
    """Bytes of scratch memory that wait for the next call, and the most that ever do."""
    return fc_scratch_kept(), FC_SCRATCH_KEPT


def fma_burn(int isa, int dtype, int threads, int64_t rounds):
    """(seconds, floating-point operations) of independent multiply-adds."""
    cdef double flops, seconds
    with nogil:
        seconds = fc_fma_burn(isa, dtype, threads, rounds, &flops)
    finished()
    return seconds, flops
