# SPDX-License-Identifier: BSD-3-Clause
# This build and this machine: instruction sets, caches, costs, CPUs, kept memory.

cdef tuple names_of_costs():
    cdef int count = 0
    while fc_cost_names[count] is not NULL:
        count += 1
    return tuple([fc_cost_names[i].decode() for i in range(count)])


#: What the cost model rests on: the order of the numbers in ``costs``.
COST_NAMES = names_of_costs()


def default_costs(int isa):
    """Seconds, in the order of COST_NAMES, on a nominal machine with this instruction set, as wide as here."""
    cdef fc_machine machine = fc_machine_here(isa)
    cdef fc_costs costs = fc_costs_default(&machine)
    return tuple([(<double *>&costs)[i] for i in range(len(COST_NAMES))])


cdef tuple names_of_caches():
    cdef int count = 0
    while fc_cache_names[count] is not NULL:
        count += 1
    return tuple([fc_cache_names[i].decode() for i in range(count)])


#: Bytes of the data caches as one core sees them, and the ways of the first: the order of the numbers in ``caches``.
CACHE_NAMES = names_of_caches()


def caches():
    """Those of this machine, in the order of CACHE_NAMES."""
    cdef fc_machine machine = fc_machine_here(0)
    return tuple([(&machine.l1)[i] for i in range(len(CACHE_NAMES))])


def isas():
    """(name, built, usable here) of every instruction set, in the order of their numbers."""
    return [(fc_isa_name(i).decode(), bool(fc_isa_built(i)), bool(fc_isa_supported(i))) for i in range(FC_ISAS)]


def best_isa():
    return fc_isa_best()


def compiler():
    return fc_compiler().decode()


def openmp():
    """The date of the OpenMP standard as yyyymm, 0 without OpenMP."""
    return fc_openmp()


def process():
    """Whether this process was forked before it loaded the core, and whether its OpenMP threads may be another's."""
    return bool(fc_process_forked()), bool(fc_process_orphaned())


def cpus(int most):
    """CPUs that the affinity of this thread leaves to it as of a moment ago, of ``most``."""
    cdef int here = fc_process_cpus()
    return here if 0 < here < most else most


def scratch():
    """Bytes of scratch memory that wait for the next call, and the most that ever do."""
    return fc_scratch_kept(), FC_SCRATCH_KEPT


def results():
    """Bytes that wait for results."""
    return fc_results_kept()


def fma_burn(int isa, int dtype, int threads, int64_t rounds):
    """(seconds, floating-point operations) of independent multiply-adds."""
    cdef double flops, seconds
    with nogil:
        seconds = fc_fma_burn(isa, dtype, threads, rounds, &flops)
    finished()
    return seconds, flops


def handover(int64_t rounds):
    """Seconds that a line of memory takes from one thread to another; 0 where no other thread comes."""
    cdef double seconds
    with nogil:
        seconds = fc_handover(rounds)
    finished()
    return seconds
