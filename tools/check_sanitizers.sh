#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Build the C core with the address and the undefined-behaviour sanitizer and run tests/c with it.
#
# Scalar kernels alone: they go through the same loops as those in vectors, and build sooner. What vectors
# touch beyond an array, the tests see that lay pages around arrays that nobody may touch.
# CC names the compiler (default: gcc).
set -euo pipefail

cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags=(-std=c11 -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all -fopenmp
    -ffp-contract=off -Wall -Wextra -Icsrc -D_POSIX_C_SOURCE=200809L)
compile() { "${CC:-gcc}" "${flags[@]}" "$@"; }

for part in csrc/kernels/*.part.h; do
    for bits in 32 64; do
        compile -DFC_BITS=$bits -DFC_PART="\"${part#csrc/}\"" -c csrc/kernels/isa_scalar.c \
            -o "$work/$(basename "$part" .part.h)_$bits.o" &
    done
done
find csrc -name '*.c' -not -path 'csrc/kernels/*' | while read -r source; do
    compile -c "$source" -o "$work/$(tr / _ <<<"${source%.c}").o"
done
wait
export UBSAN_OPTIONS=print_stacktrace=1 OMP_WAIT_POLICY=passive
for test in tests/c/*.c; do
    compile "$test" "$work"/*.o -lm -ldl -o "$work/smoke"
    "$work/smoke"
done
