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
    """Shape, byte strides and format that an array must have, and what makes one: `empty` or its like."""
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
        self.shape, self.make = shape, maker(shape)
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


def new_array(tuple shape, dtype):
    """An array for a result, C-contiguous; its shape has been checked."""
    return empty(shape, dtype) if size_of(shape) < LARGE else large_array(shape, dtype)


cdef object maker(tuple shape):
    """What makes arrays of this shape."""
    return empty if size_of(shape) < LARGE else new_array


def forget_memory():
    """Gives back what waits for results."""
    fc_result_forget()


cdef void *acquire(size_t nbytes) except NULL:
    cdef void *memory = fc_scratch_acquire(nbytes)
    if memory is NULL:
        raise MemoryError(f"{nbytes} bytes of scratch memory could not be allocated")
    return memory
