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


cdef void *acquire(size_t nbytes) except NULL:
    cdef void *memory = fc_scratch_acquire(nbytes)
    if memory is NULL:
        raise MemoryError(f"{nbytes} bytes of scratch memory could not be allocated")
    return memory
