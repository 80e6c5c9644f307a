# SPDX-License-Identifier: BSD-3-Clause
# Networks: plans that run one after the other, in one call.

from libc.stdlib cimport calloc, free


cdef int fill_place(fc_place *place, tuple where, int64_t arrays) except -1:
    """From (number of the array, offset in bytes), or None for nowhere."""
    place.base = place.given = 0
    place.offset = 0
    if where is None:
        return 0
    number, place.offset = where
    if not 0 <= number < arrays or place.offset < 0:
        raise ValueError("an operand of a step lies behind no array")
    place.base = place.given = FC_NET_ARRAYS + number
    return 0


cdef class Net:
    """Steps that run together.

    ``steps``: for each (plan, src, wei, residual, dst, index, others), where all behind the plan say in which array they
    lie, and where: (number, bytes behind its start) or None; others are a tuple of such. ``fixed`` are the first arrays
    of the table, which stay the same: `Packed` weights or arrays. ``sizes`` are the bytes that the other arrays, which
    a call hands over, have at least; whoever makes the steps answers for their operands lying within.
    """
    cdef fc_net *net
    cdef tuple plans, fixed, sizes
    cdef char **table  # of fixed arrays
    cdef Py_buffer *views  # of those that are arrays
    cdef readonly int64_t steps
    cdef readonly int threads

    def __cinit__(self, list steps, tuple fixed, tuple sizes, int threads):
        cdef int64_t i, j
        cdef int64_t arrays = len(fixed) + len(sizes)
        cdef fc_step *made = <fc_step *>calloc(max(len(steps), 1), sizeof(fc_step))
        self.table = <char **>calloc(max(len(fixed), 1), sizeof(char *))
        self.views = <Py_buffer *>calloc(max(len(fixed), 1), sizeof(Py_buffer))
        self.fixed, self.sizes, self.steps = fixed, sizes, len(steps)
        self.plans = tuple([step[0] for step in steps])
        if made is NULL or self.table is NULL or self.views is NULL:
            free(made)
            raise MemoryError("the steps of a network could not be allocated")
        try:
            for i in range(len(fixed)):
                if isinstance(fixed[i], Packed):
                    self.table[i] = <char *>(<Packed>fixed[i]).data
                else:
                    look(fixed[i], &self.views[i], PyBUF_ANY_CONTIGUOUS)
                    self.table[i] = <char *>self.views[i].buf
            for i in range(len(steps)):
                plan, src, wei, residual, dst, index, others = steps[i]
                made[i].plan = (<Planned?>plan).plan
                fill_place(&made[i].at.src, src, arrays)
                fill_place(&made[i].at.wei, wei, arrays)
                fill_place(&made[i].at.residual, residual, arrays)
                fill_place(&made[i].at.dst, dst, arrays)
                fill_place(&made[i].at.index, index, arrays)
                if len(others) > 3:
                    raise ValueError("a step has more than three other operands")
                for j in range(len(others)):
                    fill_place(&made[i].at.other[j], others[j], arrays)
            if fc_net_create(made, len(steps), threads, &self.net) != FC_OK:
                raise MemoryError("the schedule of a network could not be allocated")
        finally:
            free(made)
        self.threads = fc_net_threads(self.net)

    def __dealloc__(self):
        cdef Py_ssize_t i
        fc_net_destroy(self.net)
        if self.views is not NULL and self.fixed is not None:
            for i in range(len(self.fixed)):
                release(&self.views[i])
        free(self.views)
        free(self.table)

    @property
    def scratch_bytes(self):
        return fc_net_scratch_bytes(self.net)

    def run(self, tuple arrays, bint timed=False):
        """All steps, over these arrays behind the fixed ones; if ``timed``, the seconds of each."""
        cdef Py_ssize_t i, fixed = len(self.fixed), count = len(arrays), opened = 0
        cdef size_t bytes = fc_net_scratch_bytes(self.net)
        cdef int64_t waves = fc_net_waves(self.net)
        cdef double *starts = NULL
        cdef char **table = NULL
        cdef Py_buffer *views = NULL
        cdef void *scratch = NULL
        cdef fc_status status
        if count != len(self.sizes):
            raise ValueError(f"{count} arrays are given; the network needs {len(self.sizes)}")
        try:
            table = <char **>calloc(FC_NET_ARRAYS + fixed + count, sizeof(char *))
            views = <Py_buffer *>calloc(max(count, 1), sizeof(Py_buffer))
            if timed:
                starts = <double *>calloc(waves + 1 + self.steps, sizeof(double))
            if table is NULL or views is NULL or (timed and starts is NULL):
                raise MemoryError("a call of a network could not be allocated")
            for i in range(fixed):
                table[FC_NET_ARRAYS + i] = self.table[i]
            for i in range(count):
                look(arrays[i], &views[i], PyBUF_ANY_CONTIGUOUS)
                opened += 1
                if views[i].len < self.sizes[i]:
                    raise ValueError(f"array {i} has {views[i].len} bytes; the network needs {self.sizes[i]}")
                table[FC_NET_ARRAYS + fixed + i] = <char *>views[i].buf
            if bytes:
                scratch = acquire(bytes)
            table[FC_NET_SCRATCH] = <char *>scratch
            with nogil:
                status = fc_net_run(self.net, table, starts, starts + waves + 1 if timed else NULL)
            finished()
            if status != FC_OK:
                raise RuntimeError("a step of the network has failed")
            return [starts[waves + 1 + i] for i in range(self.steps)] if timed else None
        finally:
            fc_scratch_release(scratch)
            for i in range(opened):
                release(&views[i])
            free(views)
            free(table)
            free(starts)
