# SPDX-License-Identifier: BSD-3-Clause
# Arrays: their buffers, opened and closed; what a plan wants of them; scratch memory.

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
    """Shape, byte strides and format that an array must have, and what makes one without gaps: `empty` or its like."""
    cdef readonly tuple shape
    cdef object make
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
        self.shape, self.make = shape, maker(shape, order_of(a))
        self.length = fc_array_describe(&a, False, self.description)
        if self.length == 0:
            raise ValueError("strides are not whole elements of a native float")

    cdef bint fits(self, const Py_buffer *view) noexcept:
        cdef fc_array a = seen(view)
        cdef int64_t description[FC_DESCRIPTION]
        return (fc_array_describe(&a, False, description) == self.length
                and memcmp(description, self.description, self.length * sizeof(int64_t)) == 0)

    cdef int take(self, object array, Py_buffer *view, bint writable, str name) except -1:
        """Opens the array's buffer; the caller releases it."""
        look(array, view, PyBUF_RECORDS_RO | (PyBUF_WRITABLE if writable else 0))
        if not self.fits(view):
            release(view)
            raise ValueError(f"{name} does not have the shape and strides that the plan was made for")
        return 0


cdef enum:
    LARGE = 1 << 15  # elements of a result whose memory is worth keeping


cdef class Memory:
    """Memory of a large result, which goes to a later one when nobody has this any more."""
    cdef void *data
    cdef size_t nbytes

    def __cinit__(self, size_t nbytes):
        self.nbytes = nbytes
        self.data = fc_result_acquire(nbytes)

    def __dealloc__(self):
        fc_result_release(self.data, self.nbytes)

    def __getbuffer__(self, Py_buffer *view, int flags):
        if self.data is NULL:
            raise MemoryError(f"{self.nbytes} bytes could not be allocated")
        PyBuffer_FillInfo(view, self, self.data, self.nbytes, 0, flags)


cdef Py_ssize_t size_of(tuple shape) except -1:
    cdef Py_ssize_t count = 1
    for n in shape:
        count *= <Py_ssize_t>n
    return count


cdef object large_array(tuple shape, dtype):
    memory = Memory(size_of(shape) * <Py_ssize_t>dtype.itemsize)
    return empty(shape, dtype) if (<Memory>memory).data is NULL else ndarray(shape, dtype, memory)


cdef tuple order_of(fc_array a):
    """Axes by their strides, the outermost first, as NumPy's order "K"; None if that is C's order.

    Axes of one element, whose strides say nothing, stay where they are.
    """
    cdef int order[FC_RANK]
    cdef int i, k, at
    cdef bint moved = False
    if a.ndim > FC_RANK:
        return None
    for i in range(a.ndim):
        at = i
        for k in reversed(range(i if a.shape[i] > 1 else 0)):
            if a.shape[order[k]] > 1:
                if llabs(a.strides[order[k]]) >= llabs(a.strides[i]):
                    break
                at, moved = k, True
        for k in range(i, at, -1):
            order[k] = order[k - 1]
        order[at] = i
    return tuple([order[i] for i in range(a.ndim)]) if moved else None


def new_array(tuple shape, dtype, tuple order=None):
    """An array for a result, whose shape has been checked: C-contiguous, or with its axes in this order in memory."""
    cdef int i
    if order is not None:
        made = new_array(tuple([shape[i] for i in order]), dtype)
        return made.transpose([order.index(i) for i in range(len(order))])
    return empty(shape, dtype) if size_of(shape) < LARGE else large_array(shape, dtype)


def axes_in_memory(array):
    """The axes of an array of at most eight, the outermost first; None if they lie in C's order."""
    cdef Py_buffer view
    look(array, &view, PyBUF_STRIDED_RO)
    try:
        return None if PyBuffer_IsContiguous(&view, c'C') else order_of(seen(&view))
    finally:
        release(&view)


def new_like(array):
    """An array for a result of this shape and dtype, its axes in the same order in memory, without gaps."""
    cdef Py_buffer view
    look(array, &view, PyBUF_STRIDED_RO)
    try:
        return array_like(&view, array)
    finally:
        release(&view)


cdef object array_like(const Py_buffer *view, array):
    """The same; `view` is the array's."""
    if view.len < LARGE * view.itemsize or view.ndim > FC_RANK:
        return empty_like(array)
    if PyBuffer_IsContiguous(view, c'C'):
        return large_array(array.shape, array.dtype)
    return new_array(array.shape, array.dtype, order_of(seen(view)))


cdef object maker(tuple shape, tuple order):
    """What makes arrays of this shape, whose axes lie in this order in memory."""
    if order is not None:
        return partial(new_array, order=order)
    return empty if size_of(shape) < LARGE else new_array


def forget_memory():
    """Gives back what waits for results."""
    fc_result_forget()


cdef void *acquire(size_t nbytes) except NULL:
    cdef void *memory = fc_scratch_acquire(nbytes)
    if memory is NULL:
        raise MemoryError(f"{nbytes} bytes of scratch memory could not be allocated")
    return memory
