# SPDX-License-Identifier: BSD-3-Clause
# Elementwise maps.

cdef tuple names_of_operations():
    cdef int count = 0
    while fc_map_names[count] is not NULL:
        count += 1
    return tuple([fc_map_names[i].decode() for i in range(count)])


#: Operations of maps, in the order of their numbers.
MAP_NAMES = names_of_operations()
#: Those that convolutions apply to what they have just stored.
ACTIVATION_NAMES = tuple([name for code, name in enumerate(MAP_NAMES) if fc_is_activation(code)])


cdef int fill_operations(fc_map *m, tuple program, int others) except -1:
    """From (name, number of the operand y, that of z, a, b) of each."""
    cdef int i
    if len(program) > FC_MAP_MOST or others > FC_OTHERS:
        raise ValueError(f"a map has {len(program)} operations on {1 + others} operands; "
                         f"it needs at most {FC_MAP_MOST} on {1 + FC_OTHERS}")
    m.count, m.others = len(program), others
    for i in range(m.count):
        name, m.op[i].with_[0], m.op[i].with_[1], m.op[i].a, m.op[i].b = program[i]
        if name not in MAP_NAMES:
            raise ValueError(f"operation {i} is {name!r}; it needs one of {', '.join(MAP_NAMES)}")
        m.op[i].code = MAP_NAMES.index(name)
    return 0


def map_plan(int dtype, tuple axes, tuple program, int others, int isa):
    """A plan of a map. ``axes`` has (size, strides of src, of dst, and of each of the others), in elements."""
    cdef fc_map m
    cdef Planned planned = Planned.__new__(Planned)
    fill_operations(&m, program, others)
    if len(axes) > FC_RANK:
        raise ValueError(f"a map has {len(axes)} axes; it needs at most {FC_RANK}")
    m.dtype, m.rank = dtype, len(axes)
    for i in range(m.rank):
        m.axis[i].size, m.axis[i].src, m.axis[i].dst = axes[i][:3]
        for k in range(others):
            m.axis[i].other[k] = axes[i][3 + k]
    planned.hold(plan_of(FC_MAP, &m, isa))
    return planned


cdef class Program:
    """A chain of operations, with the plans of the arrays that it has been run on: INPUT is src, the others follow."""
    cdef fc_map map
    cdef dict plans

    def __cinit__(self, tuple program, int others):
        fill_operations(&self.map, program, others)
        self.plans = {}

    cdef object fresh(self, Views v, src):
        """A new array for the result, of its shape; its axes in the order of those of src where that has all elements."""
        cdef int i, k, rank = 0
        cdef bint same = True
        for k in range(OUT):
            if v.opened[k]:
                rank = max(rank, v.views[k].ndim)
        cdef ptrdiff_t sizes[FC_RANK]
        if rank > FC_RANK:
            return None
        for i in range(rank):
            sizes[i] = 1
        for k in range(OUT):
            for i in range(v.views[k].ndim if v.opened[k] else 0):
                if v.views[k].shape[i] != 1:
                    sizes[rank - v.views[k].ndim + i] = v.views[k].shape[i]
        for i in range(rank):
            same = same and v.views[INPUT].ndim == rank and v.views[INPUT].shape[i] == sizes[i]
        if same:
            return array_like(&v.views[INPUT], src)
        return new_array(tuple([sizes[i] for i in range(rank)]), src.dtype)

    cdef int stride(self, const Py_buffer *view, int axis, int rank, int64_t size, int64_t *stride) except -1:
        """That of the operand along an axis of the result, in elements: 0 where it is repeated."""
        cdef int own = axis - (rank - view.ndim)
        stride[0] = 0
        if own < 0 or view.shape[own] == 1:
            return 0
        if view.shape[own] != size:
            raise ValueError(f"operands do not fit the result: {view.shape[own]} elements along an axis of {size}")
        stride[0] = view.strides[own] // view.itemsize
        return 0

    cdef Planned plan(self, Views v, int isa):
        cdef fc_map m = self.map
        cdef Planned planned = Planned.__new__(Planned)
        cdef int i, k
        cdef Py_buffer *dst = &v.views[OUT]
        m.dtype, m.rank = 0 if dst.itemsize == 4 else 1, dst.ndim
        for k in range(ARRAYS):
            if v.opened[k] and (v.views[k].itemsize not in (4, 8) or v.views[k].itemsize != dst.itemsize):
                raise TypeError("operands and result need to be all float32, or all float64")
            if v.opened[k] and v.views[k].ndim > dst.ndim:
                raise ValueError("an operand has more axes than the result")
        for i in range(m.rank):
            a = &m.axis[i]
            a.size = dst.shape[i]
            a.dst = dst.strides[i] // dst.itemsize
            if a.size > 1 and a.dst == 0 and dst.len > 0:
                raise ValueError("the result has elements that share memory")
            self.stride(&v.views[INPUT], i, m.rank, a.size, &a.src)
            for k in range(m.others):
                self.stride(&v.views[1 + k], i, m.rank, a.size, &a.other[k])
        planned.hold(plan_of(FC_MAP, &m, isa))
        return planned

    cdef bint safe(self, Views v) noexcept:
        """Whether OUT may be written while the operands are read; only src may be OUT itself, if it lies just so."""
        cdef fc_array src = seen(&v.views[INPUT]), out = seen(&v.views[OUT])
        cdef int64_t first[FC_DESCRIPTION]
        cdef int64_t second[FC_DESCRIPTION]
        cdef int i, length
        for i in range(1, OUT):
            if v.opened[i] and not apart(&v.views[i], &v.views[OUT]):
                return False
        if apart(&v.views[INPUT], &v.views[OUT]):
            return True
        length = fc_array_describe(&src, False, first)
        return (src.data == out.data and length == fc_array_describe(&out, False, second)
                and memcmp(first, second, length * sizeof(int64_t)) == 0)

    def run(self, src, tuple others, out, int isa, int threads):
        """The result, in out if given. None if any array cannot be taken as it stands: then nothing was done."""
        cdef Views v = Views.__new__(Views)
        cdef fc_operands operands
        cdef Planned planned
        cdef int k, given = len(others)
        cdef bint new = out is None
        if given != self.map.others:
            raise ValueError(f"a map of {self.map.others} more operands is given {given}")
        if not v.open(INPUT, src) or not v.opened[INPUT] or v.views[INPUT].itemsize < 4:
            return None
        for k in range(given):
            if not v.open(1 + k, others[k]) or not v.opened[1 + k]:
                return None
        if new:
            out = self.fresh(v, src)
        if not v.open(OUT, out) or not v.opened[OUT] or v.views[OUT].readonly:
            return None
        key = v.key()
        if key is None or not (new or self.safe(v)):
            return None
        planned = self.plans.get(key)
        if planned is None:
            planned = self.plan(v, isa)
            if len(self.plans) >= 64:
                self.plans.clear()
            self.plans[key] = planned
        operands = operands_of(v.views[INPUT].buf, v.views[OUT].buf)
        for k in range(given):
            operands.other[k] = v.views[1 + k].buf
        run_plan(planned.plan, &operands, threads)
        return out
