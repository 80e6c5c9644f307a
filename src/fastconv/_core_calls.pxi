# SPDX-License-Identifier: BSD-3-Clause
# Calls like an earlier one: the arrays of a call, and the plans of the last calls, found by them.

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

    cdef int open(self, int which, object array) except -1:
        """Whether the array is None or can be read as it stands: a plain NumPy array, of which no error is known."""
        if array is None:
            return True
        if type(array) is not ndarray:
            return False
        if PyObject_GetBuffer(array, &self.views[which], PyBUF_RECORDS_RO) < 0:
            if PyErr_ExceptionMatches(MemoryError):
                return -1
            PyErr_Clear()  # a dtype that has no buffers: its error is told by who understands the arguments
            return False
        self.opened[which] = True
        return True

    cdef object result(self, object out, object make, tuple shape, object dtype):
        """What OUT is opened for: `out`, or a new array, made by `make`, if that is None."""
        if out is None:
            out = make(shape, dtype)
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

    cdef object key(self, int indices=ARRAYS):
        """What tells these arrays from those of another call, or None; all are of floats but the one of ``indices``."""
        cdef int64_t text[ARRAYS * FC_DESCRIPTION]
        cdef fc_array a
        cdef int i, length = 0, more
        for i in range(ARRAYS):
            if not self.opened[i]:
                text[length] = -1
                length += 1
                continue
            a = seen(&self.views[i])
            more = fc_array_describe(&a, i == indices, &text[length])
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
    takes the place of the older. So the last room / 2 calls are always kept, and the most used ones stay. Where
    weights would be there may be ``indices``.
    """
    cdef dict young, old
    cdef int room, indices

    def __cinit__(self, int room, bint indices=False):
        self.young, self.old, self.room, self.indices = {}, {}, room, WEIGHT if indices else ARRAYS

    def __len__(self):
        return len(self.young.keys() | self.old.keys())

    cdef int keep(self, object key, Prepared plan) except -1:
        if len(self.young) >= self.room // 2:
            self.old, self.young = self.young, {}
        self.young[key] = plan
        return 0

    cdef object key(self, object kind, Views v, tuple arrays, tuple parameters):
        cdef int i
        for i in range(ARRAYS):
            if not v.open(i, arrays[i]):
                return None
        arrays_key = v.key(self.indices)
        return None if arrays_key is None or not plain(parameters, 3) else (arrays_key, parameters, kind)

    def repeat(self, object kind, tuple arrays, tuple parameters, int threads):
        """The result of a call like an earlier one. None if there was none, or anything needs a closer look.

        ``kind`` says of what, in words that have been checked; ``parameters`` are as they were given. ``arrays`` are
        input, weight, bias, residual and out; of all but the first there may be none.
        """
        cdef Views v = Views.__new__(Views)
        cdef Prepared plan
        key = self.key(kind, v, arrays, parameters)
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

    def remember(self, object kind, tuple arrays, tuple parameters, Prepared plan):
        """Keep the plan of a call that has succeeded, if its arrays went into the plan as they stand.

        One that could not be kept has succeeded all the same.
        """
        cdef Views v
        try:
            v = Views.__new__(Views)
            key = self.key(kind, v, arrays, parameters)
            if key is not None and v.opened[INPUT] and plan.suits(v):
                self.keep(key, plan)
        except MemoryError:
            pass
