# SPDX-License-Identifier: BSD-3-Clause
# Activations by themselves.

def activate(src, dst, int activation, int isa, int threads):
    """dst from src, or in place: arrays without gaps, of one dtype, whose elements lie in the same order."""
    cdef fc_map m
    cdef fc_operands operands
    cdef fc_plan *plan = NULL
    cdef Py_buffer x, y
    x.buf = y.buf = NULL
    try:
        look(src, &x, PyBUF_ANY_CONTIGUOUS)
        look(dst, &y, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
        if x.itemsize not in (4, 8) or x.itemsize != y.itemsize or x.len != y.len:
            raise ValueError("input and output do not fit each other")
        m.count, m.dtype, m.activation = x.len // x.itemsize, 0 if x.itemsize == 4 else 1, activation
        operands = operands_of(x.buf, y.buf)
        plan = plan_of(FC_MAP, &m, isa)
        run_plan(plan, &operands, threads)
    finally:
        fc_plan_destroy(plan)
        release(&x)
        release(&y)
