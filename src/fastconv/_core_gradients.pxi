# SPDX-License-Identifier: BSD-3-Clause
# All gradients of a layer in one call.

cdef class LayerGradient(Planned):
    """A plan of the gradients of input, weight and, perhaps, bias; ``weight`` and ``input`` are the fields of the first two.

    The weight's gradient and the bias' are new arrays, that lie side by side.
    """
    cdef Layout src, grad, wei, dst
    cdef object dtype
    cdef tuple shape
    cdef Py_ssize_t weights, biases

    def __cinit__(self, weight, input, tuple shape, Py_ssize_t biases, int isa, int algorithm, bint strict, tuple costs,
                  Layout src, Layout grad, Layout wei, Layout dst, dtype):
        cdef fc_layer_gradient g
        fill_problem(&g.weight, weight)
        fill_problem(&g.input, input)
        self.shape, self.weights, self.biases = shape, size_of(shape), biases
        g.second = self.weights if biases else -1
        cdef fc_options options = options_of(isa, None, algorithm, strict, True, False, costs)
        self.hold(planned(FC_LAYER_GRADIENT, &g, &options))
        self.src, self.grad, self.wei, self.dst, self.dtype = src, grad, wei, dst, dtype

    cdef tuple run(self, const void *src, const void *grad, const void *wei, void *dst, int threads):
        """The gradients of weight and bias, the latter None if there is none."""
        cdef Py_buffer view
        cdef fc_operands operands = operands_of(src, dst)
        found = new_array((self.weights + self.biases,), self.dtype)
        look(found, &view, PyBUF_WRITABLE)
        operands.wei, operands.other[0], operands.further = grad, wei, view.buf
        try:
            run_plan(self.plan, &operands, threads)
        finally:
            release(&view)
        return found[:self.weights].reshape(self.shape), found[self.weights:] if self.biases else None

    def execute(self, src, grad, wei, dst, int threads):
        """Those of weight and bias, and in dst that of the input."""
        cdef Py_buffer s, g, w, d
        s.buf = g.buf = w.buf = d.buf = NULL
        try:
            self.src.take(src, &s, False, "input")
            self.grad.take(grad, &g, False, "grad_output")
            self.wei.take(wei, &w, False, "weight")
            self.dst.take(dst, &d, True, "out")
            return self.run(s.buf, g.buf, w.buf, d.buf, threads)
        finally:
            release(&s)
            release(&g)
            release(&w)
            release(&d)

    cdef bint suits(self, Views v) noexcept:
        # Input, gradient and weight take the places of a convolution's input, weight and bias.
        return (self.src.fits(&v.views[INPUT]) and v.opened[WEIGHT] and self.grad.fits(&v.views[WEIGHT])
                and v.opened[BIAS] and self.wei.fits(&v.views[BIAS])
                and (not v.opened[OUT] or self.dst.fits(&v.views[OUT])))

    cdef object again(self, Views v, object out, int threads):
        out = v.result(out, self.dst.make, self.dst.shape, self.dtype)
        return out, *self.run(v.data(INPUT), v.data(WEIGHT), v.data(BIAS), v.views[OUT].buf, threads)


cdef class Unserved(Prepared):
    """What no such plan serves: calls like it are False."""
    cdef bint suits(self, Views v) noexcept:
        return True

    cdef object again(self, Views v, object out, int threads):
        return False
