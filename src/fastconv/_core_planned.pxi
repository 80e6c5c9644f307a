# SPDX-License-Identifier: BSD-3-Clause
# What plans of all families share: how they are made, held and run, and what becomes of a status.

cdef raise_status(fc_status status, bytes message):
    if status == FC_NO_MEMORY:
        raise MemoryError(message.decode())
    if status == FC_UNSUPPORTED:
        raise NotImplementedError(message.decode())
    raise ValueError(message.decode())


cdef fc_plan *planned(fc_family family, const void *problem, const fc_options *options) except NULL:
    """A plan of the struct of that family; the caller destroys it."""
    cdef fc_plan *plan = NULL
    cdef char message[FC_MESSAGE]
    cdef fc_op op
    op.family, op.problem = family, problem
    cdef fc_status status = fc_plan_create(&op, options, &plan, message)
    if status != FC_OK:
        raise_status(status, message)
    return plan


cdef fc_plan *plan_of(fc_family family, const void *problem, int isa) except NULL:
    """The same, of what has no algorithms to choose from."""
    cdef fc_options options
    options.machine = fc_machine_here(isa)
    options.algorithm, options.strict, options.once = FC_AUTO, False, False
    options.batch_invariant = options.borrows = False
    options.costs = fc_costs_default(&options.machine)
    return planned(family, problem, &options)


cdef const fc_schedule *schedule_of(const fc_plan *plan, int threads) except NULL:
    cdef const fc_schedule *schedule = NULL
    if fc_plan_schedule(plan, threads, &schedule) != FC_OK:
        raise MemoryError("the schedule of a plan could not be allocated")
    return schedule


cdef inline fc_operands operands_of(const void *src, void *dst) noexcept:
    """Those, and no others."""
    cdef fc_operands operands
    operands.src, operands.dst = src, dst
    operands.wei = operands.residual = operands.further = operands.index = NULL
    for i in range(FC_OTHERS):
        operands.other[i] = NULL
    return operands


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


cdef class Planned(Prepared):
    """A plan of any family."""
    cdef fc_plan *plan
    cdef readonly double seconds  #: predicted, on one thread of a nominal machine
    cdef readonly size_t packed_bytes
    cdef readonly double flops  #: of sums of products

    def __dealloc__(self):
        fc_plan_destroy(self.plan)

    cdef int hold(self, fc_plan *plan) except -1:
        """Takes over a plan."""
        self.plan = plan
        self.seconds, self.packed_bytes = fc_plan_seconds(plan), fc_plan_packed_bytes(plan)
        self.flops = fc_plan_flops(plan)
        return 0

    def workspace_bytes(self, int threads):
        return fc_schedule_scratch_bytes(schedule_of(self.plan, threads))
