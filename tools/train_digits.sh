#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The weights that come with fastconv: LeNet-5 learns the handwritten digits of scikit-learn. Half a minute.
#
#   tools/train_digits.sh          writes src/fastconv/training/digits
#   tools/train_digits.sh --check  compares with what is there, byte for byte
#
# The same version makes the same bytes, on any number of threads; one whose kernels round otherwise makes others.
set -euo pipefail

home=$(cd "$(dirname "$0")/.." && pwd)/src/fastconv/training/digits
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

FASTCONV_ISA=avx2 FASTCONV_TUNE=off python -m fastconv train --data digits --drawings --model lenet5 --held-out 0.25 \
    --epochs 60 --batch 32 --shift 2 --crop 0.6 --smoothing 0.1 --ema 0.995 --threads 1 --output "$work"
if [[ ${1-} == --check ]]; then
    cmp "$work/model.json" "$home/model.json"
    cmp "$work/weights.safetensors" "$home/weights.safetensors"
    echo "the same bytes"
else
    mkdir -p "$home"
    cp "$work/model.json" "$work/weights.safetensors" "$home"
fi
