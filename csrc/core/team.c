// SPDX-License-Identifier: BSD-3-Clause
//
// team.c - regions: tasks shared out among the threads of a team.  The only file that knows OpenMP, whose threads
// come from GNU's runtime as a rule, and what becomes of them in a process that forks or may not start any.
#ifdef __linux__
#define _GNU_SOURCE // dladdr, dl_iterate_phdr, syscall
#endif
#include "core/team.h"
#include "core/cpus.h"
#include "fastconv.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#ifdef _OPENMP
#include <dlfcn.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#endif

#ifdef __linux__
#include <link.h>
#include <sys/syscall.h>
#endif

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

int fc_worthwhile_threads(double seconds, int threads) {
    const double least = 10e-6;
    if (threads < 1 || seconds < 2 * least) return 1;
    return seconds < threads * least ? (int)(seconds / least) : threads;
}

// ------------------------------------------------------------------------------------------ the mode of floating point

// Rounding and the treatment of denormals, which cost a hundred cycles each on many machines: with FLUSH, results and
// operands below the normal range count as zero.
#if defined(__x86_64__)
typedef unsigned fp_mode;
enum { FLUSH = 0x8040, RAISED = 0x3f }; // flush to zero, denormals are zero; flags of what has happened
static fp_mode mode_get(void) { return _mm_getcsr(); }
static void mode_set(fp_mode mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
typedef unsigned long fp_mode;
enum { FLUSH = 1 << 24, RAISED = 0 };
static fp_mode mode_get(void) {
    fp_mode mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
static void mode_set(fp_mode mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#else
typedef unsigned fp_mode;
enum { FLUSH = 0, RAISED = 0 };
static fp_mode mode_get(void) { return 0; }
static void mode_set(fp_mode mode) { (void)mode; }
#endif

static int same_mode(fp_mode a, fp_mode b) { return ((a ^ b) & ~(fp_mode)RAISED) == 0; }

// ------------------------------------------------------------------------------------------------ the process it is in

static int is_main_thread(void) {
#ifdef __linux__
    return syscall(SYS_gettid) == getpid();
#else
    return 1; // it may be
#endif
}

// -------------------------------------------------------------------------------------------------------------- tasks

// Each thread begins with tasks of its own, which are neighbours, and the same part of every wave: what it wrote in one is
// in its cache in the next. Who has none left takes those of others.
enum { WAVE_BITS = 24 };

// How many tasks of a share have been taken, behind the number of the wave that they belong to: a count of an earlier
// wave is none of this one, and nobody has to set it back.
typedef struct share {
    _Alignas(64) _Atomic uint64_t taken;
} share;

typedef struct region {
    const int64_t *counts;
    int64_t waves, widest;
    int threads;  // that take tasks
    fp_mode mode; // the caller's, and what the kind of region adds: the same in every thread
    fc_wave_fn task;
    void *context;
    share *shares;      // one for each thread, where there are several
    atomic_int stopped; // nobody takes another task
} region;

static int (*_Atomic interrupt)(void);

// What this thread is doing: the outermost region that it takes part in, whether it is the one that started it, and the
// mode that it had before; when it last looked up, and whether its caller's work was cut short.
typedef struct watch {
    region *within;
    int leads;
    fp_mode own;
    int64_t since;
    int stopped;
} watch;

static _Thread_local watch watching;

void fc_process_interrupt(int (*ask)(void)) { atomic_store(&interrupt, ask); }

int fc_process_interrupted(void) {
    watch *w = &watching;
    const int stopped = w->stopped;
    w->since = w->stopped = 0;
    return stopped;
}

static int must_stop(watch *w) {
    const int64_t patience = 50000000;
    if (!w->leads) return atomic_load_explicit(&w->within->stopped, memory_order_relaxed);
    if (w->stopped) return 1;
    const int64_t now = fc_moment();
    if (w->since == 0) w->since = now;
    if (now - w->since < patience) return 0;
    int (*ask)(void) = atomic_load(&interrupt);
    if (ask && is_main_thread()) {
        const watch before = *w;
        const fp_mode mode = mode_get();
        mode_set(w->own);
        *w = (watch){0};
        const int stop = ask(); // may run whatever the caller has for a signal, calls of ours included
        *w = before;
        mode_set(mode);
        w->stopped = stop;
        if (stop) atomic_store(&w->within->stopped, 1);
    }
    w->since = now;
    return w->stopped;
}

int fc_must_stop(void) { return watching.within ? must_stop(&watching) : 0; }

// The next task for a thread, of its own share or of the first behind that which has any left; none: the tasks' count.
static int64_t next_task(region *r, int64_t wave, int thread, int *passed) {
    const int64_t count = r->counts[wave];
    const uint64_t begun = (uint64_t)(wave + 1) << (64 - WAVE_BITS);
    for (; *passed < r->threads; ++*passed) {
        const int whose = (thread + *passed) % r->threads;
        const int64_t first = count * whose / r->threads, tasks = count * (whose + 1) / r->threads - first;
        _Atomic uint64_t *taken = &r->shares[whose].taken;
        uint64_t seen = atomic_load(taken), at;
        do at = seen >= begun ? seen - begun : 0;
        while (at < (uint64_t)tasks && !atomic_compare_exchange_weak(taken, &seen, begun + at + 1));
        if (at < (uint64_t)tasks) return first + (int64_t)at;
    }
    return count;
}

// What one thread does in a region.  Its own mode is restored behind it: others share the threads.
static void take_tasks(region *r, int thread) {
    watch *w = &watching;
    const fp_mode own = mode_get();
    const int differs = !same_mode(own, r->mode), shared = r->threads > 1, outermost = !w->within;
    if (outermost) {
        w->within = r;
        w->leads = thread == 0;
        w->own = own;
    }
    if (differs) mode_set(r->mode);
    for (int64_t wave = 0; wave < r->waves; wave++) {
        int passed = 0;
        for (int64_t i = 0; thread < r->threads; i++) {
            if (shared) i = next_task(r, wave, thread, &passed);
            // Before the first task there is nothing to stop, unless it was stopped in an earlier wave.
            if (i >= r->counts[wave] || ((i || wave) && must_stop(w))) break;
            r->task(r->context, wave, i, thread);
        }
        if (!shared || wave + 1 == r->waves) continue;
#pragma omp barrier
    }
    if (differs) mode_set(own);
    if (outermost) w->within = NULL;
}

#ifdef _OPENMP
// ---------------------------------------------------------------------------------------------------- teams and fork()

// GNU OpenMP keeps a team for each thread that starts regions.  fork() copies that record and none of the team's threads,
// and the next region in the child waits for them for ever.  So a thread that forks lets its team go first; parent and
// child start a new one when they need it.  Other threads' teams do not matter: those threads are not in the child.
// Where that cannot be done the child is an orphan, and its main thread, the one that forked, starts regions through a
// thread that has never had a team.
static atomic_int orphan;
static int (*let_go)(int); // omp_pause_resource_all, of OpenMP 5; NULL in older runtimes
static int survives;       // LLVM's runtime sees to forks itself
enum { PAUSE_HARD = 2 };

// Threads of the last team that this thread has started.
static _Thread_local int team;
static _Thread_local int let_gone;

static int is_orphan(void) { return atomic_load(&orphan) && is_main_thread(); }

static void before_fork(void) {
    let_gone = survives || (let_go && !omp_in_parallel() && !is_orphan() && let_go(PAUSE_HARD) == 0);
    if (let_gone) team = 0;
}

static void in_child(void) {
    atomic_store(&orphan, !let_gone);
    team = 0;
}

static void prepare(void);
static int copied;

#ifdef __linux__
// Whether this process is a copy that has not run exec(): the kernel's flags are the seventh word behind the name.
static int is_copy(void) {
    const unsigned forked_no_exec = 0x40;
    unsigned flags;
    char text[512] = "";
    FILE *file = fopen("/proc/self/stat", "re");
    if (!file) return 0;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    const char *behind = strrchr(text, ')');
    return behind && sscanf(behind, ") %*c %*d %*d %*d %*d %*d %u", &flags) == 1 && flags & forked_no_exec;
}

static int holds(const struct dl_phdr_info *object, uintptr_t address) {
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        if (segment->p_type == PT_LOAD && address - (object->dlpi_addr + segment->p_vaddr) < segment->p_memsz) return 1;
    }
    return 0;
}

static int see_object(struct dl_phdr_info *object, size_t size, void *runtime_first) {
    (void)size;
    if (holds(object, (uintptr_t)prepare)) return 1;
    return *(int *)runtime_first = holds(object, (uintptr_t)omp_get_thread_num);
}

// Whether the runtime was loaded before this library: objects are listed in that order, and what a library brings along
// comes behind it.
static int runtime_was_there(void) {
    int runtime_first = 0;
    dl_iterate_phdr(see_object, &runtime_first);
    return runtime_first;
}
#else
static int is_copy(void) { return 0; }

static int runtime_was_there(void) { return 0; }
#endif

// As the library is loaded: the team that a fork would tear may be somebody else's, of the same runtime.  A process that
// was forked before that may be an orphan already.
__attribute__((constructor)) static void prepare(void) {
    Dl_info runtime;
    void *library =
        dladdr((void *)omp_get_thread_num, &runtime) ? dlopen(runtime.dli_fname, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    survives = library && dlsym(library, "__kmpc_fork_call");
    if (library && !survives) *(void **)&let_go = dlsym(library, "omp_pause_resource_all");
    copied = is_copy();
    atomic_store(&orphan, !survives && copied && runtime_was_there());
    pthread_atfork(before_fork, NULL, in_child);
}

int fc_process_forked(void) { return copied; }

int fc_process_orphaned(void) { return atomic_load(&orphan); }

// ------------------------------------------------------------------------------------------------- threads to be had

enum { TRIALS = 256 };

typedef struct trial {
    pthread_t thread;
    long id;
    pthread_mutex_t *gate;
} trial;

static void *attend(void *context) {
    trial *t = context;
#ifdef __linux__
    t->id = syscall(SYS_gettid);
#endif
    pthread_mutex_lock(t->gate);
    pthread_mutex_unlock(t->gate);
    return NULL;
}

// How many of `wanted` more threads the system grants, all at once.  GNU OpenMP ends the process if one is refused.
static int granted(int wanted) {
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    trial trials[TRIALS];
    int count = 0;
    if (wanted > TRIALS) wanted = TRIALS;
    pthread_mutex_lock(&gate);
    for (; count < wanted; count++) {
        trials[count].gate = &gate;
        if (pthread_create(&trials[count].thread, NULL, attend, &trials[count]) != 0) break;
    }
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < count; i++) {
        pthread_join(trials[i].thread, NULL);
#ifdef __linux__
        // A thread that has been joined counts against limits until the kernel has buried it.
        for (int tries = 0; tries < 1000 && syscall(SYS_tgkill, getpid(), trials[i].id, 0) == 0; tries++) sched_yield();
#endif
    }
    return count;
}

// How many regions in a row may want fewer threads than the team has before it shrinks: the runtime ends the threads
// that a smaller team lacks, and makes them anew for the next larger one.  And how many times as many as are wanted are
// worth waking: those that are not wanted go back to sleep, which is much less than 10 us of work, but not nothing.
enum { PATIENCE = 1000, AT_MOST_WOKEN = 4 };

// The threads of the team that goes through a region, of which the first r->threads take tasks: as many as there are
// tasks for, or as the team has already.  Where that is far too many for the work, the caller does it alone.
static int team_for(region *r) {
    static _Thread_local int smaller, most; // regions in a row that wanted fewer than there are, and the most of those
    static _Thread_local time_t refused;    // when a thread was refused: nobody asks again in that second
    int size = r->widest < r->threads ? (int)r->widest : r->threads;
    if (size < team) {
        if (size > most) most = size;
        if (++smaller < PATIENCE) {
            if (AT_MOST_WOKEN * size < team) r->threads = 1;
            return team;
        }
        size = most;
    }
    smaller = most = 0;
    if (size > team) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        const int had = team > 1 ? team : 1;
        const int more = refused == now.tv_sec ? 0 : granted(size - had);
        if (had + more < size) refused = now.tv_sec;
        size = had + more;
    }
    if (size < r->threads) r->threads = size;
    return team = size;
}

static void run_team(region *r) {
    const int size = team_for(r);
    if (r->threads <= 1) {
        take_tasks(r, 0);
        return;
    }
    share shares[FC_MOST_THREADS];
    for (int i = 0; i < r->threads; i++) atomic_init(&shares[i].taken, 0);
    r->shares = shares;
    fc_cpus cpus;
    fc_cpus_begin(&cpus, size);
#pragma omp parallel num_threads(size)
    {
        const int thread = omp_get_thread_num();
        fc_cpus_take(&cpus, thread, size);
        take_tasks(r, thread);
    }
}

static void *run_apart(void *r) {
    run_team(r);
    return NULL;
}

static void run(region *r) {
    pthread_t other;
    if (r->widest <= 1 || r->threads <= 1) r->threads = 1;
    if (r->threads > 1 && is_orphan()) {
        if (pthread_create(&other, NULL, run_apart, r) == 0) {
            pthread_join(other, NULL);
            return;
        }
        r->threads = 1;
    }
    if (r->threads > 1 && !omp_in_parallel()) run_team(r);
    else {
        r->threads = 1;
        take_tasks(r, 0);
    }
}
#else
int fc_process_forked(void) { return 0; }

int fc_process_orphaned(void) { return 0; }

static void run(region *r) {
    r->threads = 1;
    take_tasks(r, 0);
}
#endif

void fc_parallel_waves(const int64_t *counts, int64_t waves, int threads, int exact, fc_wave_fn task, void *context) {
    if (watching.stopped) return; // nor is anything left to do of what follows in the same call
    region r = {.counts = counts,
                .waves = waves,
                .threads = threads < FC_MOST_THREADS ? threads : FC_MOST_THREADS,
                .mode = mode_get() | (exact ? 0 : FLUSH),
                .task = task,
                .context = context};
    for (int64_t w = 0; w < waves; w++)
        if (counts[w] > r.widest) r.widest = counts[w];
    if (r.widest > 0) run(&r);
}

typedef struct single {
    fc_task_fn task;
    void *context;
} single;

static void run_single(void *context, int64_t wave, int64_t task, int thread) {
    (void)wave;
    const single *s = context;
    s->task(s->context, task, thread);
}

void fc_parallel(int64_t count, int threads, fc_task_fn task, void *context) {
    fc_parallel_waves(&count, 1, threads, 0, run_single, &(single){task, context});
}

void fc_parallel_exact(int64_t count, int threads, fc_task_fn task, void *context) {
    fc_parallel_waves(&count, 1, threads, 1, run_single, &(single){task, context});
}
