# SPDX-License-Identifier: BSD-3-Clause
# What the binding takes from C: `csrc/fastconv.h`, the only header of the core that it sees.

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int32_t, int64_t, uint64_t

cdef extern from "Python.h":
    int PyObject_GetBuffer(object, Py_buffer *, int) noexcept  # -1 with the exception set; look() hands it on
    bint PyErr_ExceptionMatches(object) noexcept
    void PyErr_Clear() noexcept
    int PyErr_CheckSignals()  # declared without an exception, too: it is left for finished() to raise

cdef extern from "fastconv.h" nogil:
    ctypedef enum fc_status:
        FC_OK
        FC_INVALID
        FC_UNSUPPORTED
        FC_NO_MEMORY
    ctypedef int fc_isa
    ctypedef int fc_dtype
    ctypedef int fc_algo_id
    enum:
        FC_AUTO
        FC_BACKWARD_INPUT
        FC_ALGOS
        FC_ISAS
        FC_MESSAGE
        FC_RANK
        FC_DESCRIPTION
    ctypedef struct fc_axis:
        int64_t in_ "in"
        int64_t out, kernel, stride, dilation, pad
    ctypedef struct fc_view:
        int64_t group, outer, channel
        int64_t axis[3]
    ctypedef struct fc_types:
        int32_t source, weight, accumulator, destination
    ctypedef struct fc_problem:
        int64_t batch, groups, in_channels, out_channels
        fc_axis axis[3]
        fc_view src, wei, dst
        fc_types types
        int32_t direction, activation
        double low, high, alpha
        int32_t pooled
    ctypedef struct fc_plan:
        pass
    ctypedef struct fc_schedule:
        pass
    ctypedef struct fc_verdict:
        const char *name
        const char *refusal
        double cost, packing
    ctypedef struct fc_costs:
        pass
    ctypedef struct fc_machine:
        fc_isa isa
        int64_t l1
    fc_machine fc_machine_here(fc_isa)
    const char *const fc_cache_names[]
    ctypedef struct fc_options:
        fc_machine machine
        fc_algo_id algorithm
        int strict, once, batch_invariant, borrows
        fc_costs costs
    fc_costs fc_costs_default(const fc_machine *)
    const char *const fc_cost_names[]
    ctypedef struct fc_pool:
        int64_t batch, channels
        fc_axis axis[3]
        fc_view src, dst, index
        int32_t dtype, kind, direction, indexed, adaptive, count_include_pad
        int64_t pad_after[3]
        int64_t divisor
    ctypedef struct fc_stencil_axis:
        int64_t in_ "in"
        int64_t out, kernel, offset, src, dst
        int32_t border
    ctypedef struct fc_stencil:
        int32_t rank, dtype, separable, unfused
        double fill, fill_rows
        fc_stencil_axis axis[8]
    enum:
        FC_OTHERS
        FC_MAP_MOST
    ctypedef struct fc_map_op:
        int32_t code
        int32_t with_ "with"[2]
        double a, b
    ctypedef struct fc_map_axis:
        int64_t size, src, dst
        int64_t other[3]
    ctypedef struct fc_map:
        int32_t dtype, rank, others, count
        fc_map_axis axis[8]
        fc_map_op op[8]
    const char *const fc_map_names[]
    int fc_is_activation(int32_t code)
    ctypedef struct fc_fold_axis:
        int64_t count, src, dst, wei
        int32_t folded
    ctypedef struct fc_reduce:
        int32_t rank, dtype, kind
        int64_t second
        double low, high
        fc_fold_axis axis[8]
    enum:
        FC_REDUCE_MOMENTS
        FC_REDUCE_THROUGH
    ctypedef struct fc_norm:
        int32_t rank, dtype, kind
        double eps
        fc_fold_axis axis[8]
    enum:
        FC_BATCH_MOMENTS
        FC_BATCH_FORWARD
        FC_BATCH_SUMS
        FC_BATCH_BACKWARD
        FC_BATCH_TRAIN
        FC_BATCH_GRADIENT
        FC_BATCH_ROWS
    ctypedef struct fc_batch_norm:
        int32_t rank, dtype, kind
        int64_t second
        double low, high, eps
        fc_fold_axis axis[8]
    ctypedef struct fc_lrn:
        int32_t rank, dtype, gradient
        int64_t before, after
        double share, beta, k
        fc_fold_axis axis[8]
    ctypedef struct fc_resize_axis:
        int64_t in_ "in"
        int64_t out, taps
        const int32_t *index
        const double *weight
    ctypedef struct fc_resize:
        int32_t dtype
        int64_t batch, channels
        fc_view src, dst
        fc_resize_axis axis[3]
    ctypedef struct fc_product:
        int32_t dtype
        int64_t pairs, rows, depth, columns
        int64_t src[3]
        int64_t other[3]
        int64_t dst[3]
    ctypedef struct fc_recurrent:
        int32_t dtype, kind
        int64_t steps, directions, batch, hidden, backward
    ctypedef struct fc_layer_gradient:
        fc_problem weight, input
        int64_t second
    ctypedef enum fc_family:
        FC_CONV
        FC_LAYER_GRADIENT
        FC_POOL
        FC_STENCIL
        FC_MAP
        FC_REDUCE
        FC_NORM
        FC_BATCH_NORM
        FC_LRN
        FC_RESIZE
        FC_PRODUCT
        FC_RECURRENT
    ctypedef struct fc_op:
        fc_family family
        const void *problem
    fc_status fc_op_check(const fc_op *, char *)
    fc_status fc_plan_create(const fc_op *, const fc_options *, fc_plan **, char *)
    void fc_plan_destroy(fc_plan *)
    void fc_plan_explain(const fc_problem *, const fc_options *, fc_verdict *)
    fc_algo_id fc_plan_algorithm(const fc_plan *)
    const char *fc_plan_form(const fc_plan *)
    size_t fc_plan_packed_bytes(const fc_plan *)
    uint64_t fc_plan_tag(const fc_plan *)
    double fc_plan_flops(const fc_plan *)
    double fc_plan_seconds(const fc_plan *)
    fc_status fc_plan_pack(const fc_plan *, const void *, const void *, void *, int)
    fc_status fc_plan_schedule(const fc_plan *, int, const fc_schedule **)
    size_t fc_schedule_scratch_bytes(const fc_schedule *)
    ctypedef struct fc_operands:
        const void *src
        const void *wei
        const void *residual
        const void *other[3]
        void *dst
        void *further
        int64_t *index
    fc_status fc_schedule_run(const fc_schedule *, const fc_operands *, void *)
    ctypedef struct fc_place:
        int32_t base, given
        int64_t offset
    ctypedef struct fc_places:
        fc_place src, wei, residual, dst, index
        fc_place other[3]
    ctypedef struct fc_step:
        const fc_plan *plan
        fc_places at
    ctypedef struct fc_net:
        pass
    enum:
        FC_NET_SCRATCH
        FC_NET_ARRAYS
    fc_status fc_net_create(const fc_step *, int64_t, int, fc_net **)
    void fc_net_destroy(fc_net *)
    size_t fc_net_scratch_bytes(const fc_net *)
    int fc_net_threads(const fc_net *)
    int64_t fc_net_waves(const fc_net *)
    fc_status fc_net_run(const fc_net *, char *const *, double *, double *)
    int fc_isa_built(fc_isa)
    int fc_isa_supported(fc_isa)
    fc_isa fc_isa_best()
    const char *fc_isa_name(fc_isa)
    int fc_openmp()
    const char *fc_compiler()
    int fc_process_forked()
    int fc_process_orphaned()
    int fc_process_cpus()
    void fc_process_interrupt(int (*)() noexcept)
    int fc_process_interrupted()
    size_t fc_scratch_kept()
    size_t FC_SCRATCH_KEPT
    ctypedef struct fc_cross_entropy:
        int32_t dtype
        int64_t outer, classes, inner
        int64_t step[3]
        const void *src
        const int64_t *target
        const void *weight
        int64_t ignore
        double smoothing
        double *loss
        void *d
        const double *grad
        int each, mean
        double total, divisor
    int64_t fc_cross_entropy_run(fc_cross_entropy *, fc_isa, int)
    enum:
        FC_UPDATE_STATES
    ctypedef struct fc_update_rule:
        int32_t kind, nesterov
        double rate, decay, momentum, keep, shrink, square, root, eps
    ctypedef struct fc_update_arrays:
        const fc_update_rule *rule
        int32_t dtype, fresh
        int64_t count
        void *p
        const void *g
        void *state[3]
    void fc_blend(fc_dtype, void *, const void *, int64_t, double, double)
    void fc_update(fc_update_arrays *, int64_t, fc_isa, int)
    double fc_fma_burn(fc_isa, fc_dtype, int, int64_t, double *)
    double fc_handover(int64_t)
    void *fc_memory_acquire(size_t)
    void fc_memory_release(void *, size_t)
    ctypedef struct fc_array:
        const void *data
        const char *format
        ptrdiff_t itemsize
        int ndim
        const ptrdiff_t *shape
        const ptrdiff_t *strides
    int fc_array_describe(const fc_array *, int, int64_t *)
    int fc_arrays_apart(const fc_array *, const fc_array *)
    uint64_t fc_fingerprint(const void *, size_t, int) nogil
    void *fc_scratch_acquire(size_t)
    void fc_scratch_release(void *)
    void *fc_result_acquire(size_t)
    void fc_result_release(void *, size_t)
    void fc_result_forget()
    size_t fc_results_kept()
