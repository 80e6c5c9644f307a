# SPDX-License-Identifier: BSD-3-Clause
"""Build ``fastconv._core``: the Cython binding and the C core, linked into one limited-API module.

pyproject.toml holds the metadata; this file holds what it cannot say. Every file of the core is
compiled for the oldest CPU of its family, except the one file per instruction set in csrc/kernels,
which has flags of its own: at run time the CPU decides which of them are called. Instruction sets that the
compiler cannot build are left out, and the build log says so; anything else that is missing ends the
build before it begins, with one sentence that says what to install.

The same sources, compiler and SOURCE_DATE_EPOCH make the same bytes, wherever they lie.

Environment
-----------
FASTCONV_DISABLE
    Parts to leave out although the compiler could build them, separated by commas:
    avx2, avx512, neon, openmp.
FASTCONV_DEBUG
    ``1`` keeps debug symbols; without it there are none, whatever Python itself was built with.
FASTCONV_WERROR
    ``1`` turns the warnings of the C core into errors.
"""

from __future__ import annotations

import gzip
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist
from setuptools.errors import CompileError, SetupError

CSRC = Path("csrc")
BINDING = Path("src/fastconv/_core.pyx")
PARTS_OF_BINDING = [*BINDING.parent.glob("_core*.pxi"), BINDING.with_suffix(".pxd")]  # Cython knows them, too
BUILD = Path("build")

#: The limited API of the oldest supported Python, as the C macro and as the tag of the wheel.
LIMITED_API, WHEEL_TAG = "-DPy_LIMITED_API=0x030B0000", "cp311"

#: One spelling for the CPU families that have a baseline of their own.
MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
BASELINE = {"x86_64": ["-march=x86-64"], "aarch64": ["-march=armv8-a"]}

#: Arithmetic as it is written: rounding, NaN and infinity are kept, and no contraction, in which compilers differ.
CORE_FLAGS = ["-std=c11", "-fno-math-errno", "-ffp-contract=off", "-fvisibility=hidden"]
CORE_FLAGS += ["-Wall", "-Wextra", f"-I{CSRC}", "-D_POSIX_C_SOURCE=200809L"]
#: Threads of some systems have 128 KiB of stack.
CORE_FLAGS += ["-Wframe-larger-than=28672"]
#: Nothing throws, and so nothing is ever unwound: 48 kB less. With debug symbols debuggers have tables; without,
#: who unwinds by tables would get no further than a kernel, which is where calls are.
NEVER_UNWOUND = "-fno-asynchronous-unwind-tables"
CORE_FLAGS += [NEVER_UNWOUND]

#: Beside the kernels, -O2 is as fast as -O3 and takes three quarters of its room, if plain loops become vectors all the
#: same: without those they take 1.5 to 3 times as long. The reference takes 2.7 times as long by it, bicubic resizing a
#: fourteenth more, and a call perhaps a fortieth.
CORE_LEVEL, KEEN_LEVEL = ("-O2", "-ftree-vectorize"), ("-O3",)
KEEN = (CSRC / "core", CSRC / "resize", CSRC / "conv/reference.c")

#: Symbols make the library twelve times as large. Where they are wanted, they name files relative to the sources.
DEBUG_FLAGS = ["-g", f"-ffile-prefix-map={Path.cwd()}=."] if os.environ.get("FASTCONV_DEBUG") == "1" else ["-g0"]


@dataclass(frozen=True)
class Isa:
    """An instruction set, which not every compiler can build: its flags, and a program that shows if this one can."""

    name: str
    title: str
    machine: str
    flags: tuple[str, ...]
    program: str


AVX2_FLAGS = ("-mavx2", "-mfma", "-mf16c", "-mprfchw")
AVX512_FLAGS = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", *AVX2_FLAGS)
AVX2_PROGRAM = """\
#include <immintrin.h>
__m256 f(__m256 a) { return _mm256_fmadd_ps(a, a, _mm256_cvtph_ps(_mm256_cvtps_ph(a, 0))); }
"""
AVX512_PROGRAM = """\
#include <immintrin.h>
__m512 f(__m512 a) { return _mm512_fmadd_ps(a, a, a); }
"""
NEON_PROGRAM = """\
#include <arm_neon.h>
float32x4_t f(float32x4_t a) { return vfmaq_f32(a, a, a); }
"""
ISAS = (
    Isa("avx2", "AVX2 kernels", "x86_64", AVX2_FLAGS, AVX2_PROGRAM),
    Isa("avx512", "AVX-512 kernels", "x86_64", AVX512_FLAGS, AVX512_PROGRAM),
    Isa("neon", "NEON kernels", "aarch64", (), NEON_PROGRAM),
)


PLAIN, SMALL = ("-O2",), ("-Os",)
#: GCC copies the test of each loop before it. In straight code by vectors, a tile at a time, that takes 7 % of the room
#: and no time away; taps, pools, packing and whatever scalars do are up to a fifth slower without, some maps a tenth.
GCC_ALONE = "-fno-tree-ch"
LEAN = (*PLAIN, GCC_ALONE)

#: The kernels in parts that are compiled by themselves, csrc/kernels/PART.part.h, what takes longest first, with -O of
#: those for float32 in vectors, for float64 in vectors, and of scalars. Most are as fast by -O2, which builds in half
#: the time and takes two thirds of the room that -O3 does. It is not enough for the taps of float32, of which some lose
#: a sixth, nor for plain loops that the compiler makes vectors of. -Os takes as much again away: what waits for memory
#: does not notice, and scalars that pool or map are a tenth slower by it; but pools in vectors are so by an eighth,
#: some functions and sums of columns by up to 40 %, and single precision products and Winograd of scalars take 1.6 to
#: 2.5 times as long. On a busy machine pools of float64 in vectors took 1.15 to 1.2 times as long by it, its taps by
#: AVX-512 1.12, some of either 1.4. All kernels by -Os would be 2.2 MB instead of 3.0. Alignment of loops and
#: jumps is 1 % of the room, functions that come out the same in several objects are 6 kB.
PARTS = {
    "taps": (KEEN_LEVEL, PLAIN, PLAIN),
    "pools": (PLAIN, PLAIN, SMALL),
    "winograd": (LEAN, PLAIN, PLAIN),
    "products": (LEAN, LEAN, PLAIN),
    "maps": (PLAIN, PLAIN, SMALL),
    "packs": (KEEN_LEVEL, PLAIN, PLAIN),
    "spreads": (SMALL, SMALL, SMALL),
}


@dataclass(frozen=True)
class Need:
    """What every build needs: a program that shows if it is there, and how each platform installs it."""

    title: str
    program: str
    flags: tuple[str, ...]
    install: dict[str, str]
    otherwise: str = ""

    def sentence(self) -> str:
        here = platform_name()
        commands = [self.install[here]] if here in self.install else [f"{k}: {v}" for k, v in self.install.items()]
        return f"fastconv cannot be built without {self.title}; install it with: {', '.join(commands)}{self.otherwise}"


OPENMP_FLAGS = ("-fopenmp",)
COMPILER = Need(
    "a C compiler (gcc or clang)",
    "int main(void) { return 0; }\n",
    ("-c",),
    {
        "Debian": "apt install gcc libc6-dev",
        "Fedora": "dnf install gcc",
        "Alpine": "apk add gcc musl-dev",
        "macOS": "xcode-select --install",
    },
)
LIBC = Need(
    "the headers of the C library",
    "#include <stdlib.h>\nint main(void) { return abs(0); }\n",
    (),
    {
        "Debian": "apt install libc6-dev",
        "Fedora": "dnf install glibc-devel",
        "Alpine": "apk add musl-dev",
        "macOS": "xcode-select --install",
    },
)
PYTHON = Need(
    f"Python.h, the header of Python {platform.python_version()}",
    "#include <Python.h>\nint main(void) { return 0; }\n",
    ("-c",),
    {
        "Debian": "apt install python3-dev",
        "Fedora": "dnf install python3-devel",
        "Alpine": "apk add python3-dev",
        "macOS": "brew install python",
    },
)
OPENMP = Need(
    "OpenMP, which this compiler lacks",
    "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n",
    OPENMP_FLAGS,
    {
        "Debian": "apt install libomp-dev",
        "Fedora": "dnf install libomp-devel",
        "Alpine": "apk add openmp-dev",
        "macOS": "brew install llvm, and build with CC=$(brew --prefix llvm)/bin/clang",
    },
    " (or build with FASTCONV_DISABLE=openmp for one thread)",
)


def platform_name() -> str:
    """The key of `Need.install` for this platform, or one that is not there."""
    if sys.platform == "darwin":
        return "macOS"
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return sys.platform
    family = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    return next((name for name in ("Debian", "Fedora", "Alpine") if name.lower() in family), sys.platform)


@dataclass(frozen=True)
class Compilation:
    """One call of the compiler; the object is kept between builds, and what it was made from."""

    command: tuple[str, ...]
    source: Path
    output: Path

    @property
    def full_command(self) -> list[str]:
        # -MMD lists the headers in a .d file beside the object.
        return [*self.command, "-MMD", "-c", str(self.source), "-o", str(self.output)]

    def is_current(self) -> bool:
        """Whether this command made the object, after the last change to any of its files."""
        try:
            built = self.output.stat().st_mtime_ns
            if self.output.with_suffix(".cmd").read_text() != "\n".join(self.full_command):
                return False
            rule = self.output.with_suffix(".d").read_text().replace("\\\n", " ")
            return all(Path(p).stat().st_mtime_ns < built for p in rule.split(": ", 1)[1].split())
        except FileNotFoundError:
            return False

    def run(self) -> None:
        if self.is_current():
            return
        started = time.time_ns()
        self.output.parent.mkdir(parents=True, exist_ok=True)
        result = subprocess.run(self.full_command, capture_output=True, text=True)
        print(" ".join(self.full_command) + "\n" + result.stderr, end="", flush=True)
        if result.returncode != 0:
            raise CompileError(f"{self.source} does not compile\n{result.stderr}")
        os.utime(self.output, ns=(started, started))  # a file saved meanwhile counts as changed
        self.output.with_suffix(".cmd").write_text("\n".join(self.full_command))


def disabled_parts() -> set[str]:
    """Parse FASTCONV_DISABLE."""
    names = {name.strip() for name in os.environ.get("FASTCONV_DISABLE", "").split(",") if name.strip()}
    known = [*(isa.name for isa in ISAS), "openmp"]
    if unknown := names.difference(known):
        raise SetupError(f"FASTCONV_DISABLE names {sorted(unknown)}; it may name {', '.join(known)}")
    return names


def refusal(command: list[str], program: str) -> str | None:
    """Try to build a program; None if that worked, else the compiler's own words."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(program)
        try:
            result = subprocess.run(
                [*command, str(source), "-o", str(Path(folder, "probe.out"))], capture_output=True, text=True
            )
        except OSError as error:
            return str(error)
    if result.returncode == 0:
        return None
    words = result.stderr.strip().splitlines() or [f"exit status {result.returncode}"]
    return next((line for line in words if "error" in line), words[0])


@cache
def check_needs(compiler: tuple[str, ...], includes: tuple[str, ...]) -> None:
    """Raise, with the sentence that helps, if anything is missing that a build cannot do without."""
    if shutil.which(compiler[0]) is None:
        raise SetupError(f"{COMPILER.sentence()} ({compiler[0]!r} is not there)")
    needs = [COMPILER, LIBC, PYTHON] + ([] if "openmp" in disabled_parts() else [OPENMP])
    for need in needs:
        folders = includes if need is PYTHON else ()
        if reason := refusal([*compiler, *folders, *need.flags], need.program):
            raise SetupError(f"{need.sentence()} ({compiler[0]} says: {reason})")


def buildable_isas(machine: str | None, compiler: list[str]) -> list[Isa]:
    """The instruction sets that this compiler can build for this machine; the build log hears about each."""
    built = []
    for isa in ISAS:
        if isa.machine != machine:
            continue
        if isa.name in disabled_parts():
            reason = "FASTCONV_DISABLE"
        else:
            reason = refusal([*compiler, *isa.flags, "-c"], isa.program)
        print(f"fastconv: {isa.title}: {'built' if reason is None else f'not built ({reason})'}", flush=True)
        if reason is None:
            built.append(isa)
    return built


def core_sources(isas: list[Isa]) -> list[tuple[Path, tuple[str, ...], str]]:
    """Every C file of the core that is to be compiled, the flags that it alone needs, and the name of its object.

    The kernels take longest and so come first, each part and dtype by itself. They know nothing of threads nor of each
    other, so that their objects serve builds with other parts, too.
    """
    kernels = [(isa.name, isa.flags) for isa in reversed(isas)] + [("scalar", ())]
    files = sorted(p for p in CSRC.rglob("*.c") if CSRC / "kernels" not in p.parents)
    openmp = ("-Wno-unknown-pragmas",) if "openmp" in disabled_parts() else OPENMP_FLAGS
    shared = (*openmp, *(f"-DFC_HAVE_{isa.name.upper()}=1" for isa in isas))

    def level(path: Path) -> tuple[str, ...]:
        return KEEN_LEVEL if any(path.is_relative_to(keen) for keen in KEEN) else CORE_LEVEL

    return [
        (
            CSRC / f"kernels/isa_{name}.c",
            (
                *flags,
                f"-DFC_BITS={bits}",
                f'-DFC_PART="kernels/{part}.part.h"',
                *(scalar if name == "scalar" else single if bits == 32 else double),
            ),
            f"kernels/{part}_{name}_f{bits}.o",
        )
        for bits in (32, 64)
        for part, (single, double, scalar) in PARTS.items()
        for name, flags in kernels
    ] + [(path, (*level(path), *shared), str(path.relative_to(CSRC).with_suffix(".o"))) for path in files]


class BuildCore(build_ext):
    """Compile the core and the binding, as little as has changed, and link them."""

    def build_extension(self, ext: Extension) -> None:
        compiler = [*self.compiler.compiler_so, *DEBUG_FLAGS]
        machine = MACHINES.get(self.plat_name.rpartition("-")[2].lower())
        isas = buildable_isas(machine, compiler)
        openmp = "openmp" not in disabled_parts()
        print(f"fastconv: OpenMP threads: {'built' if openmp else 'not built (FASTCONV_DISABLE)'}", flush=True)

        objects = BUILD / f"objects-{self.plat_name}"
        werror = ["-Werror"] if os.environ.get("FASTCONV_WERROR") == "1" else []
        command = (*compiler, *CORE_FLAGS, *BASELINE.get(machine, []), *werror)
        unknown = refusal([*compiler, GCC_ALONE, "-c"], COMPILER.program) is not None
        jobs = [
            Compilation((*command, *(f for f in flags if f != GCC_ALONE or not unknown)), source, objects / CSRC / name)
            for source, flags, name in core_sources(isas)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            # Cython's own seconds, too, pass beside the compiler's.
            binding = pool.submit(self.build_binding, compiler, ext.name, objects / "_core.o")
            list(pool.map(Compilation.run, jobs))
        self.compiler.link_shared_object(
            [*(str(job.output) for job in jobs), str(binding.result())],
            self.get_ext_fullpath(ext.name),
            libraries=["m", "dl", *self.get_libraries(ext)],
            extra_postargs=[*DEBUG_FLAGS, *(OPENMP_FLAGS if openmp else ())],
            export_symbols=self.get_export_symbols(ext),
        )

    def build_binding(self, compiler: list[str], name: str, output: Path) -> Path:
        """Translate the Cython module to C and compile that; the object."""
        from Cython.Build import cythonize

        extensions = [Extension(name, [str(BINDING)])]
        [translated] = cythonize(extensions, build_dir=str(BUILD / "cython"), language_level=3)
        includes = [f"-I{folder}" for folder in [CSRC, *self.compiler.include_dirs]]
        # A call takes no more instructions with -Os than with -O2, and the binding two thirds of the room.
        command = (*compiler, *includes, "-Os", NEVER_UNWOUND, "-fvisibility=hidden", LIMITED_API)
        Compilation(command, Path(translated.sources[0]), output).run()
        return output


class ReproducibleSdist(sdist):
    """With SOURCE_DATE_EPOCH: the contents of the archive decide its bytes, not who packs it, when and where."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None) -> str:
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        if epoch is None or format != "gztar":
            return super().make_archive(base_name, format, root_dir, base_dir, owner, group)

        def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
            member.mtime, member.uid, member.gid, member.uname, member.gname = int(epoch), 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            return member

        target = Path(f"{base_name}.tar.gz").resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            open(target, "wb") as file,
            gzip.GzipFile("", "wb", mtime=int(epoch), fileobj=file) as packed,
            tarfile.open(mode="w", fileobj=packed) as archive,
        ):
            archive.add(Path(root_dir or ".", base_dir), arcname=base_dir, filter=plain)
        return str(target)


class EarlyChecks(Distribution):
    """Ask for what a build needs before the first of its commands runs.

    pip asks for the metadata first, then downloads the dependencies, copies, and compiles at last: who lacks a header
    would wait for all of that. Archives of the sources need no compiler and are not held up.
    """

    def run_command(self, command: str) -> None:
        if command in ("dist_info", "bdist_wheel", "editable_wheel", "build", "build_ext"):
            self.check_needs()
        super().run_command(command)

    def check_needs(self) -> None:
        from distutils.ccompiler import new_compiler
        from distutils.sysconfig import customize_compiler

        build = self.get_command_obj("build_ext")
        build.ensure_finalized()
        compiler = new_compiler()
        if compiler.compiler_type != "unix":
            raise SetupError(f"fastconv is built with gcc or clang, not with {compiler.compiler_type!r}")
        customize_compiler(compiler)
        check_needs(tuple(compiler.compiler_so), tuple(f"-I{folder}" for folder in build.include_dirs))


def long_description() -> str:
    """The README for readers elsewhere, without the pictures and the links that lead to files beside it."""
    text = Path("README.md").read_text(encoding="utf-8")
    text = re.sub(r"^!\[[^]]*\]\((?!https?:)[^)]*\)\n+", "", text, flags=re.MULTILINE)
    return re.sub(r"\[([^]]+)\]\((?!https?:|#)[^)]*\)", r"\1", text)


setup(
    long_description=long_description(),
    long_description_content_type="text/markdown",
    ext_modules=[
        Extension(
            "fastconv._core",
            sources=[str(BINDING)],
            depends=sorted(map(str, [*PARTS_OF_BINDING, *filter(Path.is_file, CSRC.rglob("*"))])),
            py_limited_api=True,
        )
    ],
    distclass=EarlyChecks,
    cmdclass={"build_ext": BuildCore, "sdist": ReproducibleSdist},
    options={"bdist_wheel": {"py_limited_api": WHEEL_TAG}},
)
