# SPDX-License-Identifier: BSD-3-Clause
"""What happens to the process that computes: fork(), limits, affinity, other floating-point modes, Ctrl-C.

Each script runs in a process of its own; whatever hangs is ended by an alarm.
"""

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")
PATIENCE = 60


def run(script: str, **environment: str) -> str:
    """Output of a script that ended well; the environment has these variables of ours and no others."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("FASTCONV_NUM", "OMP_NUM"))}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(script)],
        env=clean | {"OPENBLAS_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.strip()


PRELUDE = f"""
    import ctypes, os, signal, sys, threading, time, warnings
    import numpy as np

    signal.signal(signal.SIGINT, signal.default_int_handler)  # who is started in the background ignores it

    warnings.simplefilter("ignore")  # later Pythons warn of fork() where there are threads
    signal.alarm({2 * PATIENCE})
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 32, 57, 59), dtype=np.float32)
    w = rng.standard_normal((48, 32, 3, 3), dtype=np.float32)

    def work(threads=2):
        import fastconv as fc
        with fc.threads(threads):
            return [fc.conv2d(x, w, algorithm=a) for a in ("direct", "im2col", "winograd")]

    def same(a, b):
        return all(map(np.array_equal, a, b))

    def tasks():
        return len(os.listdir("/proc/self/task"))

    def in_child(function, *arguments):
        # whether the function says so in a forked child
        pid = os.fork()
        if pid == 0:
            good = False
            try:
                signal.alarm({PATIENCE})
                good = function(*arguments)
            except Exception:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(0 if good else 1)
        return os.waitpid(pid, 0)[1] == 0

    def regions(body=lambda: None):
        # two threads of the runtime, by somebody else's hand; body() runs in the first
        mapped = [line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line]
        runtime = ctypes.CDLL(mapped[0] if mapped else "libgomp.so.1")
        @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        def task(_):
            if runtime.omp_get_thread_num() == 0:
                body()
        runtime.GOMP_parallel(task, None, 2, 0)
"""


@pytest.fixture(scope="module", autouse=True)
def gnu_openmp():
    from fastconv import _core

    if not _core.openmp() or not _core.compiler().startswith("gcc"):
        pytest.skip("built without GNU OpenMP")


# --- fork -----------------------------------------------------------------------------------------

BEFORE = {
    "nothing": "import fastconv",
    "one thread": "work(1)",
    "two threads": "work(2)",
    "other threads": "import fastconv; regions()",
    "other threads first": "regions(); import fastconv",
    "all of it": "regions(); work(1); work(2); regions()",
    "torch": "import torch; torch.set_num_threads(2); torch.exp(torch.randn(1_000_000)).sum(); import fastconv",
}


@pytest.mark.parametrize("before", BEFORE)
def test_a_forked_child_computes_on_two_threads(before):
    """So does its own child, and so does the parent still."""
    if before == "torch":
        pytest.importorskip("torch")
    run(f"""
    {BEFORE[before]}
    def child(depth):
        good = tasks() == 1 and same(work(), work(1)) and tasks() == 2
        return good and (depth == 0 or in_child(child, depth - 1)) and same(work(), work(1))
    others = tasks()
    assert in_child(child, 1)
    expected = work(1)
    assert same(work(), expected) and tasks() >= 2
    assert in_child(child, 0)
    assert same(work(), expected)
    """)


def test_a_child_that_has_the_threads_that_it_reports():
    run("""
    import fastconv as fc
    fc.set_num_threads(2)
    fc.conv2d(x, w)
    def child():
        fc.conv2d(x, w)
        return fc.get_num_threads() == fc.config()["threads"] == tasks() == 2
    assert tasks() >= 2 and in_child(child)
    """)


@pytest.mark.parametrize(
    "before", ["regions()", "import torch; torch.set_num_threads(2); torch.exp(torch.randn(1_000_000)).sum()"]
)
def test_a_child_that_imports_for_itself(before):
    """Its parent's threads are not there; on one thread unless told otherwise, and then on two."""
    if "torch" in before:
        pytest.importorskip("torch")
    run(f"""
    {before}
    def child(depth=1):
        import fastconv as fc
        fc.conv2d(x, w)
        most = []
        def look():
            while not done:
                most.append(tasks())
        expected, done = work(1), False
        watcher = threading.Thread(target=look)
        watcher.start()
        while 4 not in most:  # main, watcher, who starts the region, its other thread
            assert same(work(2), expected)
        done = True
        watcher.join()
        assert depth == 0 or in_child(child, depth - 1)
        return fc.get_num_threads() == 1 and same(work(2), expected)
    assert in_child(child)
    """)


def test_who_may_use_all_processors():
    """A process that was forked with no threads behind it, as daemons are; but not a worker, which is one of many."""
    run("""
    def child(expected):
        import fastconv as fc
        return fc.get_num_threads() == expected
    cpus = len(os.sched_getaffinity(0))
    assert in_child(child, cpus)
    import multiprocessing
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(child, (1,))
        os.environ["FASTCONV_NUM_THREADS"] = "3"
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(child, (3,))
    """)


def test_fork_in_another_thread():
    run("""
    expected, good = work(), []
    def fork():
        good.append(in_child(lambda: same(work(), expected) and in_child(lambda: same(work(), expected))))
        work()
        good.append(in_child(lambda: same(work(), expected)))
    other = threading.Thread(target=fork)
    other.start()
    other.join()
    assert good == [True, True] and same(work(), expected)
    """)


def test_fork_during_a_call():
    run("""
    expected, done = work(), False
    def compute():
        while not done:
            assert same(work(), expected)
    other = threading.Thread(target=compute)
    other.start()
    for _ in range(20):
        assert in_child(lambda: same(work(), expected))
    done = True
    other.join()
    assert same(work(), expected)
    """)


def test_fork_in_a_region():
    """There the threads cannot be released before; the child makes do."""
    run("""
    expected, good = work(), []
    regions(lambda: good.append(in_child(lambda: same(work(), expected) and same(work(), expected))))
    assert good == [True] and same(work(), expected)
    """)


def test_a_pool_of_forked_processes():
    run("""
    import multiprocessing
    expected = work()
    with multiprocessing.get_context("fork").Pool(3) as pool:
        for result in pool.map(work, [1, 2, 2, 1, 2, 2]):
            assert same(result, expected)
    assert same(work(), expected)
    """)


@pytest.mark.parametrize("imported", ["here", "in the workers"])
def test_workers_of_a_data_loader(imported):
    pytest.importorskip("torch")
    script = """
    import torch
    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return 6
        def __getitem__(self, i):
            signal.alarm(60)
            import fastconv as fc
            return fc.conv2d(np.full((1, 32, 56, 56), i, np.float32), np.ones((32, 32, 3, 3), np.float32))[0]
    torch.set_num_threads(2)
    torch.exp(torch.randn(1_000_000)).sum()
    loader = torch.utils.data.DataLoader(Images(), batch_size=2, num_workers=2, multiprocessing_context="fork")
    values = [float(batch[1, 0, 0, 0]) for batch in loader]
    assert np.allclose(values, [32 * 9 * i for i in (1, 3, 5)], rtol=1e-5), values
    """
    run(("import fastconv\n" if imported == "here" else "") + textwrap.dedent(script))


# --- limits ---------------------------------------------------------------------------------------


def test_threads_that_cannot_be_created():
    """Fewer do the work, and as many as asked for once they can be had."""
    run("""
    import resource
    import fastconv as fc
    expected = work(1)
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
    assert same(work(2), expected) and same(work(3), expected)
    assert tasks() == 1
    resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
    time.sleep(1.1)
    assert same(work(2), expected)
    assert tasks() == 2
    """)


def test_a_team_keeps_its_threads():
    """Regions with fewer tasks than threads do not end threads that the next one would have to start again."""
    run("""
    import fastconv as fc
    def ids():
        return set(os.listdir("/proc/self/task"))
    work(4)
    before = ids()
    for _ in range(20):
        with fc.threads(4):
            fc.conv2d(x[:1, :, :9], w, algorithm="reference")
            fc.conv2d(x[:, :, :, :4], w[:2], algorithm="reference")
        work(4)
    assert len(before) == 4 and ids() == before
    """)


def test_small_work_neither_wakes_a_large_team_nor_ends_its_threads():
    """Work for two threads between work for all of them; until for a thousand calls nobody has wanted more than two."""
    run("""
    import fastconv as fc

    def plan_of(least, most):
        # what is predicted to take so many seconds, and its image
        for channels, size in ((4, 12), (8, 12), (8, 16), (16, 20), (16, 28), (32, 28), (64, 28), (64, 56), (64, 112)):
            image = rng.standard_normal((1, channels, size, size), dtype=np.float32)
            plan = fc.ConvPlan(image.shape, np.ones((channels, channels, 3, 3), np.float32), padding=1)
            if least <= next(v.predicted for v in plan.explain(measure=False).rows if v.chosen) < most:
                return plan, image
        raise AssertionError(least)

    def switches():
        # how often each thread has been put to sleep
        found = {}
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/status") as file:
                found[thread] = sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
        return found

    fc.set_num_threads(1)
    (large, x), (medium, z), (small, y) = plan_of(1e-3, 1), plan_of(60e-6, 1e-3), plan_of(20e-6, 40e-6)
    assert tasks() == 1
    expected = small(y)
    for threads in (6, 20):
        fc.set_num_threads(threads)
        large(x)
        before = set(switches())
        assert len(before) > 4
        for _ in range(20):
            assert np.array_equal(small(y), expected)
            large(x)
        assert set(switches()) == before
    time.sleep(0.3)
    before = switches()
    assert np.array_equal(small(y), expected)
    time.sleep(0.1)
    woken = sum(count > before[thread] for thread, count in switches().items())
    assert woken <= 1, woken  # the caller has slept
    fc.set_num_threads(2)
    for _ in range(1000):
        medium(z)
    until = time.monotonic() + 5  # the kernel buries threads in its own time
    while tasks() >= 5 and time.monotonic() < until:
        time.sleep(0.01)
    assert tasks() < 5  # `small` may have wanted more than two
    """)


def test_affinity_is_followed():
    run("""
    import fastconv as fc
    cpus = os.sched_getaffinity(0)
    assert fc.get_num_threads() == len(cpus)
    os.sched_setaffinity(0, {min(cpus)})
    time.sleep(0.03)
    assert fc.get_num_threads() == 1
    fc.conv2d(x, w)
    assert tasks() == 1
    os.sched_setaffinity(0, cpus)
    time.sleep(0.03)
    assert fc.get_num_threads() == len(cpus)
    os.sched_setaffinity(0, {min(cpus)})
    fc.set_num_threads(2)
    time.sleep(0.03)
    assert fc.get_num_threads() == 2
    """)


# --- which CPUs -----------------------------------------------------------------------------------


def test_a_thread_leaves_the_cpu_of_its_caller():
    """Threads that share a CPU wait for each other by spinning on it; whoever may not leave it stays."""
    import fastconv as fc

    if fc.config()["cpus_available"] < 2:
        pytest.skip("fewer than 2 CPUs")
    run("""
    import fastconv as fc
    fc.set_num_threads(2)
    image = rng.standard_normal((1, 64, 28, 28), dtype=np.float32)
    before = set(os.listdir("/proc/self/task"))
    plan = fc.ConvPlan(image.shape, rng.standard_normal((64, 64, 3, 3), dtype=np.float32), padding=1)
    plan(image)
    [thread] = map(int, set(os.listdir("/proc/self/task")) - before)
    both = set(sorted(os.sched_getaffinity(0))[:2])
    for cpu in both:
        os.sched_setaffinity(thread, {cpu})
        os.sched_setaffinity(0, {cpu})
        for _ in range(20):
            plan(image)
        assert os.sched_getaffinity(thread) == {cpu}
        patience = time.monotonic() + 30
        while os.sched_getaffinity(thread) == {cpu}:
            os.sched_setaffinity(0, {cpu})  # brings the caller there, who may then leave
            os.sched_setaffinity(0, both)
            plan(image)
            assert time.monotonic() < patience, "never"
        assert os.sched_getaffinity(thread) < both
    """)


# --- neighbours -----------------------------------------------------------------------------------


def test_two_threads_beside_two_busy_processes():
    """Nine turns in ten through a small network take at most three times as long as on one thread.

    Where threads wait for each other by spinning, and the one that is waited for does not run, they take seven times as
    long and more, time and again. Other load comes and goes: two good measurements in a row are enough.
    """
    import fastconv as fc

    if fc.config()["cpus_available"] < 2:
        pytest.skip("fewer than 2 CPUs")
    run("""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):  # as it is without a word from the user
        os.environ.pop(name, None)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])

    def measure():
        import fastconv as fc
        fc.set_num_threads(1)
        calls = []
        for channels, filters, kernel, size in (64, 64, 3, 28), (64, 64, 1, 28), (128, 128, 3, 14), (32, 32, 3, 28):
            image = rng.standard_normal((1, channels, size, size), dtype=np.float32)
            weight = rng.standard_normal((filters, channels, kernel, kernel), dtype=np.float32)
            calls.append((fc.ConvPlan(image.shape, weight, padding=kernel // 2), image))

        def most(threads):
            turns, end = [], time.monotonic() + 1
            with fc.threads(threads):
                while (start := time.monotonic()) < end:
                    for plan, image in calls:
                        plan(image)
                    turns.append(time.monotonic() - start)
            assert tasks() == threads
            return np.percentile(turns, 90)

        return 3 * most(1) >= most(2)  # in this order, and in a process of its own: its team may go on spinning

    patience = time.monotonic() + 45
    busy = []
    try:
        for _ in range(2):
            busy.append(os.fork())
            if busy[-1] == 0:
                signal.alarm(60)
                while True:
                    pass
        while not (in_child(measure) and in_child(measure)):
            assert time.monotonic() < patience, "never"
    finally:
        for process in filter(None, busy):
            os.kill(process, signal.SIGKILL)
    """)


# --- floating-point modes -------------------------------------------------------------------------


def test_all_threads_round_as_the_caller_does():
    run("""
    import platform
    import fastconv as fc
    upward = {"x86_64": 0x800, "aarch64": 0x400000}.get(platform.machine())
    if upward is None:
        sys.exit()
    libm = ctypes.CDLL("libm.so.6")
    nearest = work(2)
    libm.fesetround(upward)
    one, two = work(1), work(2)
    assert libm.fegetround() == upward
    libm.fesetround(0)
    assert same(one, two)
    assert not any(map(np.array_equal, one, nearest))
    assert same(work(2), nearest)
    """)


# --- memory between calls -------------------------------------------------------------------------


def test_scratch_that_is_kept_has_a_bound():
    """Also after several threads at once have used more: of small buffers, and with results of all others."""
    run("""
    import fastconv as fc
    from fastconv import _core
    plan = fc.ConvPlan((1, 64, 512, 512), np.ones((64, 64, 3, 3), np.float32), algorithm="winograd_f4")
    image = np.ones((1, 64, 512, 512), np.float32)
    weights = np.ones((1024, 1024, 3, 3), np.float32)  # 36 MiB once they are packed
    small = np.ones((1, 1024, 3, 3), np.float32)
    gate = threading.Barrier(4)
    def call(_=None):
        gate.wait()
        for _ in range(3):
            plan(image)
            fc.conv2d(small, weights, algorithm="im2col")
    others = [threading.Thread(target=call) for _ in range(4)]
    for t in others: t.start()
    for t in others: t.join()
    kept, most = _core.scratch()
    assert kept <= most == 16 << 20, (kept, most)
    in_use = 4 * (image.nbytes + (56 << 20))
    assert 36 << 20 < _core.results() <= 1.5 * in_use, (_core.results(), in_use)
    """)


def test_small_and_large_requests_go_on_in_what_they_had():
    """Otherwise a large one that follows, within the same call, allocates another."""
    run("""
    import fastconv as fc
    from fastconv import _core
    weights = np.ones((1024, 1024, 3, 3), np.float32)
    large = lambda: fc.conv2d(np.ones((1, 1024, 20, 20), np.float32), weights, algorithm="im2col")
    little = lambda: fc.conv2d(np.ones((1, 8, 30, 30), np.float32), np.ones((8, 8, 3, 3), np.float32))
    large()
    kept = _core.results()
    assert kept > 36 << 20
    little()
    small = _core.scratch()[0]
    for _ in range(3):
        little()
        large()
    assert (_core.results(), _core.scratch()[0]) == (kept, small)
    """)


# --- signals --------------------------------------------------------------------------------------

LONG = {
    "direct": "fc.conv2d(images, weights, algorithm='direct')",
    "im2col": "fc.conv2d(images, weights, algorithm='im2col')",
    "winograd": "fc.conv2d(images, weights, algorithm='winograd')",
    "pointwise": "fc.conv2d(images, weights[:, :, :1, :1], algorithm='pointwise')",
    "reference": "fc.conv2d(images, weights, algorithm='reference')",
    "depthwise": "fc.conv2d(images, np.ones((256, 1, 45, 45), 'f4'), groups=256)",
    "few large tasks": "fc.conv2d(row, np.ones((1, 1, 501, 501), 'f4'), algorithm='reference', padding=250)",
    "transposed": "fc.conv_transpose2d(images[:60], weights[:, :, :2, :2], stride=2)",
    "few tiles of many blocks": "fc.grad.conv2d_weight(tall, (8, 8, 1500, 1500), tall[:, :, :1501, :1501])",
    "one row of channels": "fc.conv2d(tall.transpose(0, 2, 3, 1), taps, groups=2, layout='NHWC')",
    "gradient of weights": "fc.grad.conv2d_weight(images, weights.shape, np.broadcast_to(grad, (99, 256, 54, 54)))",
    "max_pool": "fc.max_pool2d(images, 27, 1, return_indices=True)",
    "avg_pool": "fc.avg_pool2d(images, 29, 1)",
    "a row of large windows": "fc.max_pool2d(tall.transpose(0, 2, 3, 1), 1999, 1, layout='NHWC')",
    "a row of wide windows": "fc.max_pool2d(tall, 1999, 1, return_indices=True)",
    "gradient of avg_pool": "fc.grad.avg_pool2d(tall[:, :, :1002, :1002], tall.shape, 1999, 1)",
    "gradient of avg_pool, channels last": (
        "fc.grad.avg_pool2d(tall[:, :, :1002, :1002].transpose(0, 2, 3, 1), (1, 3000, 3000, 8), 1999, 1, layout='NHWC')"
    ),
    "stencil": "nd.convolve(row[0, 0], np.ones((501, 501), 'f4'))",
    "float16": "fc.conv2d(images.astype('f2'), weights.astype('f2'))",
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("call", LONG)
def test_a_signal_ends_a_long_call(call, threads):
    """With what its handler raises; and the next call is right."""
    if call == "stencil":
        pytest.importorskip("scipy")
    run(f"""
    import fastconv as fc
    if {call == "stencil"}:
        import fastconv.scipy.ndimage as nd
    fc.set_num_threads({threads})
    images = np.broadcast_to(np.ones((1, 256, 56, 56), 'f4'), (99, 256, 56, 56))
    weights, row = np.ones((256, 256, 3, 3), 'f4'), np.ones((1, 1, 8, 40000), 'f4')
    grad = np.ones((1, 256, 54, 54), 'f4')
    tall = np.broadcast_to(np.ones((1, 8, 1, 1), 'f4'), (1, 8, 3000, 3000))
    taps = np.broadcast_to(np.ones((8, 4, 1, 1), 'f4'), (8, 4, 700, 700))
    def handler(*_):
        fc.conv2d(x, w)  # a handler may call us, too
        raise TimeoutError("enough")
    signal.signal(signal.SIGUSR1, handler)
    expected, sent = fc.conv2d(x, w), []
    def end():
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGUSR1)
    threading.Timer(0.2, end).start()
    try:
        while True:
            {LONG[call]}
    except TimeoutError:
        took = time.monotonic() - sent[0]
    assert took < 5, took
    assert np.array_equal(fc.conv2d(x, w), expected)
    """)


def test_ctrl_c():
    run("""
    import fastconv as fc
    images = np.broadcast_to(np.ones((1, 256, 56, 56), 'f4'), (999, 256, 56, 56))
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    out, started = np.zeros((999, 256, 54, 54), 'f4'), time.monotonic()
    try:
        fc.conv2d(images, np.ones((256, 256, 3, 3), 'f4'), out=out, algorithm="reference")
    except KeyboardInterrupt:
        assert time.monotonic() - started < 10
    else:
        sys.exit("the call went on to its end")
    assert not out[-1].any()
    """)
