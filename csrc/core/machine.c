// SPDX-License-Identifier: BSD-3-Clause
//
// machine.c - which instruction sets this processor and this operating system offer, what its caches hold, and how fast
// its multiply-adds are.
#include "core/team.h"
#include "fastconv.h"
#include "kernels/kernels.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

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

// AMD says how wide its registers are computed with: AVX-512 on 256 bits takes two passes (Zen 4), on 512 one (Zen 5).
static int computes_in_halves(void) {
    const unsigned fp256 = 1u << 2, fp512 = 1u << 3;
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(0, &eax, &ebx, &ecx, &edx) || ecx != signature_AMD_ecx) return 0;
    return __get_cpuid(0x8000001a, &eax, &ebx, &ecx, &edx) && (eax & (fp256 | fp512)) == fp256;
}

// Data caches by CPUID: a leaf of the same form has one number with Intel and another with AMD.
static void caches_from_cpu(fc_machine *m) {
    unsigned eax, ebx, ecx, edx, leaf = 4;
    if (!__get_cpuid(0, &eax, &ebx, &ecx, &edx)) return;
    if (ecx == signature_AMD_ecx && __get_cpuid(0x80000000, &eax, &ebx, &ecx, &edx) && eax >= 0x8000001d)
        leaf = 0x8000001d;
    for (unsigned i = 0; i < 16 && __get_cpuid_count(leaf, i, &eax, &ebx, &ecx, &edx) && (eax & 31); i++) {
        if ((eax & 31) == 2) continue; // instructions
        const int64_t ways = (ebx >> 22 & 1023) + 1, parts = (ebx >> 12 & 1023) + 1, line = (ebx & 4095) + 1;
        const int64_t bytes = ways * parts * line * ((int64_t)ecx + 1);
        const unsigned level = eax >> 5 & 7;
        if (level == 1) m->l1 = bytes, m->l1_ways = ways;
        else if (level == 2) m->l2 = bytes;
        else if (level == 3) m->l3 = bytes;
    }
}
#elif defined(__aarch64__)
static int cpu_offers(fc_isa isa) { return isa == FC_SCALAR || isa == FC_NEON; }
#else
static int cpu_offers(fc_isa isa) { return isa == FC_SCALAR; }
#endif

#if !defined(__x86_64__)
static int computes_in_halves(void) { return 0; }

// The system says it, or nothing.
static void caches_from_cpu(fc_machine *m) {
#ifdef _SC_LEVEL1_DCACHE_SIZE
    const long l1 = sysconf(_SC_LEVEL1_DCACHE_SIZE), ways = sysconf(_SC_LEVEL1_DCACHE_ASSOC);
    const long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE), l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (l1 > 0) m->l1 = l1;
    if (ways > 0) m->l1_ways = ways;
    if (l2 > 0) m->l2 = l2;
    if (l3 > 0) m->l3 = l3;
#else
    (void)m;
#endif
}
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
static pthread_once_t asked = PTHREAD_ONCE_INIT;
static int offered[FC_ISAS];
static fc_machine here = {.l1 = 32 << 10, .l1_ways = 8, .l2 = 1 << 20, .l3 = 32 << 20};

static void ask_cpu(void) {
    for (int isa = 0; isa < FC_ISAS; isa++) offered[isa] = cpu_offers((fc_isa)isa);
    caches_from_cpu(&here);
    here.in_halves = computes_in_halves();
    // A shared second level without a third is both.
    if (here.l3 < here.l2) here.l3 = here.l2;
}

const char *const fc_cache_names[] = {
#define FC_CACHE(name) #name,
    FC_CACHES(FC_CACHE)
#undef FC_CACHE
        NULL,
};

fc_machine fc_machine_here(fc_isa isa) {
    pthread_once(&asked, ask_cpu);
    fc_machine machine = here;
    machine.isa = isa;
    machine.in_halves = here.in_halves && isa == FC_AVX512;
    return machine;
}

int fc_isa_supported(fc_isa isa) {
    pthread_once(&asked, ask_cpu);
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

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
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
    const double start = now();
    fc_parallel(threads, threads, burn_task, &job);
    const double seconds = now() - start;
    *flops = 0;
    for (int i = 0; i < threads; i++) *flops += job.flops[i];
    return seconds;
}

// A line of memory that two threads hand to each other; whose turn it is is its parity.
typedef struct handed {
    _Alignas(64) atomic_int_least64_t turn;
    int64_t rounds;
    double seconds;
} handed;

// The first turns are the time that the other one takes to come.  Whoever waits for long is alone.
static void hand_task(void *context, int64_t task, int thread) {
    (void)thread;
    handed *h = context;
    const int64_t first = 16, last = first + 2 * h->rounds;
    double start = 0;
    for (int64_t turn = task; turn < last; turn += 2) {
        int64_t patience = 1 << 20;
        while (atomic_load_explicit(&h->turn, memory_order_acquire) != turn && --patience);
        if (!patience) return;
        if (turn == first) start = now();
        atomic_store_explicit(&h->turn, turn + 1, memory_order_release);
    }
    if (task == 0) h->seconds = now() - start;
}

double fc_handover(int64_t rounds) {
    handed h = {.rounds = rounds};
    fc_parallel(2, 2, hand_task, &h);
    return h.seconds / (double)(2 * rounds);
}
