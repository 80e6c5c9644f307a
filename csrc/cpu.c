// SPDX-License-Identifier: BSD-3-Clause
//
// cpu.c - which instruction sets this processor and this operating system offer, and how fast its multiply-adds are.
#include "kernels/kernels.h"
#include "parallel.h"

#include <pthread.h>
#include <time.h>

#if defined(__x86_64__)
#include <cpuid.h>

static int has_bits(unsigned value, unsigned bits) { return (value & bits) == bits; }

// The registers that the operating system saves on a task switch; asking without OSXSAVE would fault.
static unsigned long long saved_state(void) {
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !has_bits(ecx, bit_OSXSAVE)) return 0;
    __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
    return (unsigned long long)edx << 32 | eax;
}

static int cpu_offers(fc_isa isa) {
    unsigned eax, ebx, ecx, edx;
    const unsigned long long avx_state = 0x6, avx512_state = 0xe6;
    if (isa == FC_SCALAR) return 1;
    if (isa == FC_NEON || !__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return 0;
    if (!has_bits(ecx, bit_FMA | bit_AVX | bit_F16C) || (saved_state() & avx_state) != avx_state) return 0;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || !has_bits(ebx, bit_AVX2)) return 0;
    if (isa == FC_AVX2) return 1;
    return has_bits(ebx, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL) &&
           (saved_state() & avx512_state) == avx512_state;
}
#elif defined(__aarch64__)
static int cpu_offers(fc_isa isa) { return isa == FC_SCALAR || isa == FC_NEON; }
#else
static int cpu_offers(fc_isa isa) { return isa == FC_SCALAR; }
#endif

const fc_kernels *fc_kernels_for(fc_isa isa, fc_dtype dtype) {
    static const fc_kernels *const tables[FC_ISAS][FC_DTYPES] = {
        [FC_SCALAR] = {&fc_f32_kernels_scalar, &fc_f64_kernels_scalar},
#ifdef FC_HAVE_AVX2
        [FC_AVX2] = {&fc_f32_kernels_avx2, &fc_f64_kernels_avx2},
#endif
#ifdef FC_HAVE_AVX512
        [FC_AVX512] = {&fc_f32_kernels_avx512, &fc_f64_kernels_avx512},
#endif
#ifdef FC_HAVE_NEON
        [FC_NEON] = {&fc_f32_kernels_neon, &fc_f64_kernels_neon},
#endif
    };
    return isa >= 0 && isa < FC_ISAS ? tables[isa][dtype] : NULL;
}

int fc_isa_built(fc_isa isa) { return fc_kernels_for(isa, FC_F32) != NULL; }

// Asked once: under a hypervisor each cpuid takes ten microseconds.
static int offered[FC_ISAS];

static void ask_cpu(void) {
    for (int isa = 0; isa < FC_ISAS; isa++) offered[isa] = cpu_offers((fc_isa)isa);
}

int fc_isa_supported(fc_isa isa) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, ask_cpu);
    return fc_isa_built(isa) && offered[isa];
}

fc_isa fc_isa_best(void) {
    static const fc_isa order[] = {FC_AVX512, FC_AVX2, FC_NEON};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        if (fc_isa_supported(order[i])) return order[i];
    return FC_SCALAR;
}

const char *fc_isa_name(fc_isa isa) {
    static const char *const names[FC_ISAS] = {"scalar", "avx2", "avx512", "neon"};
    return isa >= 0 && isa < FC_ISAS ? names[isa] : "unknown";
}

int fc_openmp(void) {
#ifdef _OPENMP
    return _OPENMP;
#else
    return 0;
#endif
}

const char *fc_compiler(void) {
#if defined(__clang__)
    return "clang " __clang_version__;
#else
    return "gcc " __VERSION__;
#endif
}

typedef struct burn_job {
    const fc_kernels *kernels;
    int64_t rounds;
    double flops[256];
} burn_job;

static void burn_task(void *context, int64_t task, int thread) {
    (void)thread;
    burn_job *job = context;
    job->flops[task] = job->kernels->fma_burn(job->rounds) * (double)job->rounds;
}

double fc_fma_burn(fc_isa isa, fc_dtype dtype, int threads, int64_t rounds, double *flops) {
    burn_job job = {.kernels = fc_kernels_for(isa, dtype), .rounds = rounds};
    if (threads > 256) threads = 256;
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    fc_parallel(threads, threads, burn_task, &job);
    clock_gettime(CLOCK_MONOTONIC, &end);
    *flops = 0;
    for (int i = 0; i < threads; i++) *flops += job.flops[i];
    return (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
}
