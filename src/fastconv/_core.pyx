# SPDX-License-Identifier: BSD-3-Clause
# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, auto_pickle=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""The binding: hands arrays to the C core and turns its status into exceptions. No arithmetic, no policy.

One module, of parts by subject. `_core.pxd` is what they see of the core, `_core.pyi` what Python sees of them.
"""

from cpython.buffer cimport (
    PyBUF_ANY_CONTIGUOUS,
    PyBUF_C_CONTIGUOUS,
    PyBUF_FORMAT,
    PyBUF_RECORDS_RO,
    PyBUF_STRIDED_RO,
    PyBUF_WRITABLE,
    PyBuffer_FillInfo,
    PyBuffer_IsContiguous,
    PyBuffer_Release,
)
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdlib cimport llabs
from libc.string cimport memcmp

from functools import partial

from numpy import dtype as numpy_dtype, empty, empty_like, ndarray


cdef object INDEX = numpy_dtype("int64")  # of positions


cdef int handle_signals() noexcept with gil:
    return PyErr_CheckSignals()


fc_process_interrupt(handle_signals)


cdef int finished() except -1:
    """Raises what the handler of a signal raised, if that has cut the call short. Every call of the core ends here."""
    return -1 if fc_process_interrupted() else 0


include "_core_arrays.pxi"
include "_core_machine.pxi"
include "_core_calls.pxi"
include "_core_planned.pxi"
include "_core_plans.pxi"
include "_core_gradients.pxi"
include "_core_pooling.pxi"
include "_core_stencils.pxi"
include "_core_maps.pxi"
include "_core_folds.pxi"
include "_core_resize.pxi"
include "_core_products.pxi"
include "_core_train.pxi"
include "_core_nets.pxi"
