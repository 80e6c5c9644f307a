# SPDX-License-Identifier: BSD-3-Clause
"""Build ``fastconv._core``: the Cython binding and the C core, linked into one limited-API module.

pyproject.toml holds the metadata; this file holds what it cannot say. Every file of the core is
compiled for the oldest CPU of its family, except the one file per instruction set in csrc/kernels,
which has flags of its own: at run time the CPU decides which of them are called. A part that the
compiler cannot build is left out, and the build log says so.

Environment
-----------
FASTCONV_DISABLE
    Parts to leave out although the compiler could build them, separated by commas:
    avx2, avx512, neon, openmp.
FASTCONV_WERROR
    ``1`` turns the warnings of the C core into errors.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, SetupError

CSRC = Path("csrc")
BINDING = Path("src/fastconv/_core.pyx")
BUILD = Path("build")

#: The limited API of the oldest supported Python, as the C macro and as the tag of the wheel.
LIMITED_API, WHEEL_TAG = "-DPy_LIMITED_API=0x030B0000", "cp311"

#: One spelling for the CPU families that have a baseline of their own.
MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
BASELINE = {"x86_64": ["-march=x86-64"], "aarch64": ["-march=armv8-a"]}

#: No -ffast-math: rounding, NaN and infinity are kept. No contraction: compilers differ in it.
CORE_FLAGS = ["-std=c11", "-O3", "-fno-math-errno", "-ffp-contract=off", "-fvisibility=hidden"]
CORE_FLAGS += ["-Wall", "-Wextra", f"-I{CSRC}", "-D_POSIX_C_SOURCE=200809L"]


@dataclass(frozen=True)
class Part:
    """What not every compiler can build: its flags, and a program that shows if this one can."""

    name: str
    title: str
    machine: str | None
    flags: tuple[str, ...]
    program: str

    @property
    def is_isa(self) -> bool:
        return self.machine is not None


AVX2_FLAGS = ("-mavx2", "-mfma", "-mf16c")
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
OPENMP_PROGRAM = """\
#include <omp.h>
int main(void) { return omp_get_max_threads() < 1; }
"""
PARTS = (
    Part("avx2", "AVX2 kernels", "x86_64", AVX2_FLAGS, AVX2_PROGRAM),
    Part("avx512", "AVX-512 kernels", "x86_64", AVX512_FLAGS, AVX512_PROGRAM),
    Part("neon", "NEON kernels", "aarch64", (), NEON_PROGRAM),
    Part("openmp", "OpenMP threads", None, ("-fopenmp",), OPENMP_PROGRAM),
)


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


def disabled_parts(value: str) -> set[str]:
    """Parse FASTCONV_DISABLE."""
    names = {name.strip() for name in value.split(",") if name.strip()}
    known = [part.name for part in PARTS]
    if unknown := names.difference(known):
        raise SetupError(f"FASTCONV_DISABLE names {sorted(unknown)}; it may name {', '.join(known)}")
    return names


def refusal(part: Part, compiler: list[str]) -> str | None:
    """Try to build the part's program; None if that worked, else the compiler's own words."""
    step = ["-c"] if part.is_isa else []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(part.program)
        command = [*compiler, *part.flags, *step, str(source), "-o", str(Path(folder, "probe.out"))]
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode == 0:
        return None
    words = result.stderr.strip().splitlines() or [f"exit status {result.returncode}"]
    reason = next((line for line in words if "error" in line), words[0])
    return f"compiler rejects {' '.join(part.flags) or 'its header'}: {reason}"


def buildable_parts(machine: str | None, compiler: list[str], disabled: set[str]) -> list[Part]:
    """The parts this compiler can build for this machine; the build log hears about each."""
    built = []
    for part in PARTS:
        if part.machine not in (None, machine):
            continue
        reason = "FASTCONV_DISABLE" if part.name in disabled else refusal(part, compiler)
        print(
            f"fastconv: {part.title}: {'built' if reason is None else f'not built ({reason})'}",
            flush=True,
        )
        if reason is None:
            built.append(part)
    return built


def core_sources(isas: list[Part]) -> list[tuple[Path, tuple[str, ...], str]]:
    """Every C file of the core that is to be compiled, the flags that it alone needs, and the name of its object.

    The kernels take longest and so come first, each dtype by itself.
    """
    kernels = [(isa.name, isa.flags) for isa in reversed(isas)] + [("scalar", ())]
    files = sorted([*CSRC.glob("*.c"), *CSRC.glob("algo/*.c")])
    return [
        (CSRC / f"kernels/isa_{name}.c", (*flags, f"-DFC_BITS={bits}"), f"kernels/isa_{name}_f{bits}.o")
        for bits in (32, 64)
        for name, flags in kernels
    ] + [(path, (), str(path.relative_to(CSRC).with_suffix(".o"))) for path in files]


def core_command(compiler: list[str], machine: str | None, isas: list[Part], openmp: list[str]) -> list[str]:
    """The compiler call that every file of the core shares; the macros name what is built."""
    return [
        *compiler,
        *CORE_FLAGS,
        *BASELINE.get(machine, []),
        *(openmp or ["-Wno-unknown-pragmas"]),
        *(["-Werror"] if os.environ.get("FASTCONV_WERROR") == "1" else []),
        *(f"-DFC_HAVE_{isa.name.upper()}=1" for isa in isas),
    ]


class BuildCore(build_ext):
    """Compile the core and the binding, as little as has changed, and link them."""

    def build_extension(self, ext: Extension) -> None:
        if self.compiler.compiler_type != "unix":
            raise SetupError(f"fastconv is built with gcc or clang, not with {self.compiler.compiler_type!r}")
        compiler = list(self.compiler.compiler_so)
        machine = MACHINES.get(self.plat_name.rpartition("-")[2].lower())
        disabled = disabled_parts(os.environ.get("FASTCONV_DISABLE", ""))
        parts = buildable_parts(machine, compiler, disabled)
        isas = [part for part in parts if part.is_isa]
        openmp = [flag for part in parts if not part.is_isa for flag in part.flags]

        objects = BUILD / f"objects-{self.plat_name}"
        command = core_command(compiler, machine, isas, openmp)
        jobs = [
            Compilation((*command, *flags), source, objects / CSRC / name) for source, flags, name in core_sources(isas)
        ]
        jobs.append(self.binding(compiler, ext.name, objects / "_core.o"))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(Compilation.run, jobs))
        self.compiler.link_shared_object(
            [str(job.output) for job in jobs],
            self.get_ext_fullpath(ext.name),
            libraries=["m", *self.get_libraries(ext)],
            extra_postargs=openmp,
            export_symbols=self.get_export_symbols(ext),
        )

    def binding(self, compiler: list[str], name: str, output: Path) -> Compilation:
        """Translate the Cython module to C; how to compile that."""
        from Cython.Build import cythonize

        extensions = [Extension(name, [str(BINDING)])]
        [translated] = cythonize(extensions, build_dir=str(BUILD / "cython"), language_level=3)
        includes = [f"-I{folder}" for folder in [CSRC, *self.compiler.include_dirs]]
        command = (*compiler, *includes, "-O2", "-fvisibility=hidden", LIMITED_API)
        return Compilation(command, Path(translated.sources[0]), output)


setup(
    ext_modules=[
        Extension(
            "fastconv._core",
            sources=[str(BINDING)],
            depends=sorted(str(path) for path in CSRC.rglob("*") if path.is_file()),
            py_limited_api=True,
        )
    ],
    cmdclass={"build_ext": BuildCore},
    options={"bdist_wheel": {"py_limited_api": WHEEL_TAG}},
)
