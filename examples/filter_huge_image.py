# SPDX-License-Identifier: BSD-3-Clause
"""Filter an image that is larger than the memory that is used for it.

    python examples/filter_huge_image.py --size 20000 --output filtered.npy

Blocks of the image are made, filtered with their neighbours' borders and written to a file, a few at a time.
"""

from __future__ import annotations

import argparse
import resource
import time

import dask
import dask.array as da
import numpy as np
from dask.diagnostics import ProgressBar

import fastconv.dask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=20_000, help="of each side (%(default)s)")
    parser.add_argument("--block", type=int, default=2_000, help="of each side (%(default)s)")
    parser.add_argument("--output", default="filtered.npy", help="where the result goes (%(default)s)")
    args = parser.parse_args()

    image = da.random.default_rng(0).random(
        (1, args.size, args.size), chunks=(1, args.block, args.block), dtype="float32"
    )
    profile = np.exp(-(np.arange(-7, 8) ** 2) / 18).astype(np.float32)
    kernel = np.outer(profile, profile)
    smooth = fastconv.dask.conv2d(image, (kernel / kernel.sum())[None, None], padding=7, mode="reflect")

    target = np.lib.format.open_memmap(args.output, mode="w+", dtype=np.float32, shape=smooth.shape)
    start = time.perf_counter()
    with ProgressBar(), dask.config.set(scheduler="threads"):
        da.store(smooth, target)
    seconds = time.perf_counter() - start
    target.flush()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{args.size} x {args.size} pixels, 15 x 15 kernel: {seconds:.1f} s, peak memory of the process {peak:.2f} GiB"
    )
    print(
        f"(image and result take {2 * 4 * args.size**2 / 2**30:.2f} GiB; pages of the file that is written count too)"
    )


if __name__ == "__main__":
    main()
