#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Build the C core for aarch64 on another machine and run tests/c under emulation.
#
# Needs Debian's gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user. The objects are those of
# setup.py, its probes and flags included; only Python itself is left out.
# PYTHON names the interpreter (default: python3).
set -euo pipefail

cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CC=aarch64-linux-gnu-gcc FASTCONV_WERROR=1
platform=linux-aarch64

"${PYTHON:-python3}" -m venv "$work/venv"
python=$work/venv/bin/python
"$python" -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
    >"$work/requires"
"$python" -m pip install --quiet --requirement "$work/requires"
"$python" setup.py --quiet build_ext --plat-name "$platform" --build-lib "$work/lib" | grep '^fastconv:'
built="build/objects-$platform"
for object in $(find "$built/csrc" -name '*.o'); do # but those of sources that are there no more
    source=${object#"$built/"}
    source=${source%.o}
    [[ ! -f $source.c && ! -f ${source%%_*}.part.h ]] || objects+=("$object") # of a part of the kernels: PART_ISA_DTYPE
done
export OMP_WAIT_POLICY=passive # threads that wait busily are most of what is emulated otherwise
for test in tests/c/*.c; do
    $CC -std=c11 -O1 -Wall -Wextra -Werror -Icsrc "$test" "${objects[@]}" -fopenmp -lm -ldl -o "$work/smoke"
    qemu-aarch64 -L /usr/aarch64-linux-gnu "$work/smoke"
done
