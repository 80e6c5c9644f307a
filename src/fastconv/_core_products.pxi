# SPDX-License-Identifier: BSD-3-Clause
# Matrix products, and the recurrent layers that are made of them.

def product_plan(tuple sizes, tuple src, tuple other, tuple dst, int dtype, int isa):
    """A plan; ``sizes`` are those of pairs, rows, depth and columns, strides those of pairs, rows and columns."""
    cdef fc_product p
    cdef Planned planned = Planned.__new__(Planned)
    p.dtype = dtype
    p.pairs, p.rows, p.depth, p.columns = sizes
    for i in range(3):
        p.src[i], p.other[i], p.dst[i] = src[i], other[i], dst[i]
    planned.hold(plan_of(FC_PRODUCT, &p, isa))
    return planned


cdef class Recurrent(Planned):
    """A plan of a recurrent layer; ``kind`` is an fc_recurrence."""
    cdef readonly uint64_t tag
    cdef int64_t weights, biases  # bytes

    def __cinit__(self, int kind, int64_t steps, int64_t directions, int64_t batch, int64_t hidden, int64_t backward,
                  int dtype, int isa):
        cdef fc_recurrent r
        r.dtype, r.kind, r.steps, r.directions, r.batch, r.hidden = dtype, kind, steps, directions, batch, hidden
        r.backward = backward
        self.hold(plan_of(FC_RECURRENT, &r, isa))
        self.tag = fc_plan_tag(self.plan)
        self.biases = directions * hidden * (3 if kind else 4) * (8 if dtype else 4)
        self.weights = self.biases * hidden

    def pack(self, wei, bias, int threads):
        """Packed weights [directions][gates * hidden][hidden] and bias [directions][gates * hidden], or None."""
        cdef Py_buffer w, b
        cdef Packed packed = Packed(self.packed_bytes, self.tag)
        cdef fc_status status
        w.buf = b.buf = NULL
        try:
            look(wei, &w, PyBUF_ANY_CONTIGUOUS)
            if bias is not None:
                look(bias, &b, PyBUF_ANY_CONTIGUOUS)
            if w.len != self.weights or (bias is not None and b.len != self.biases):
                raise ValueError("weights and biases do not fit the layer")
            with nogil:
                status = fc_plan_pack(self.plan, w.buf, b.buf, packed.data, threads)
            finished()
            if status != FC_OK:
                raise MemoryError("the weights could not be packed")
        finally:
            release(&b)
            release(&w)
        return packed
