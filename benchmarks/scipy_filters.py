# SPDX-License-Identifier: BSD-3-Clause
"""fastconv.scipy beside SciPy and OpenCV on one image: a table in Markdown.

    python -m pip install ".[scipy]" opencv-python-headless
    python benchmarks/scipy_filters.py

Everything takes and gives NumPy arrays. OpenCV is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import scipy.ndimage
import scipy.signal

import fastconv as fc
from fastconv.bench import peak
from fastconv.bench.timing import SETTLE
from fastconv.scipy import ndimage, signal

try:
    import cv2
except ModuleNotFoundError:
    cv2 = None

KERNELS, SIGMAS = (3, 7, 15, 31), (2, 8)


def seconds(function: Callable[[], np.ndarray], budget: float) -> float:
    """The median of as many calls as fit into the budget, at least one, after one that is not timed."""
    time.sleep(SETTLE)
    function()
    times = []
    while not times or sum(times) < budget:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return median(times)


def kernel_contenders(image: np.ndarray, kernel: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """The same filter everywhere but for what lies beyond the borders."""
    contenders = {
        "fastconv ndimage": lambda: ndimage.convolve(image, kernel),
        "fastconv convolve2d": lambda: signal.convolve2d(image, kernel, "same"),
        "convolve2d": lambda: scipy.signal.convolve2d(image, kernel, "same"),
        "fftconvolve": lambda: scipy.signal.fftconvolve(image, kernel, "same"),
        "ndimage": lambda: scipy.ndimage.convolve(image, kernel),
    }
    if cv2:
        flipped = np.ascontiguousarray(kernel[::-1, ::-1])
        contenders["OpenCV"] = lambda: cv2.filter2D(image, -1, flipped, borderType=cv2.BORDER_REFLECT)
    return contenders


def gaussian_contenders(image: np.ndarray, sigma: float) -> dict[str, Callable[[], np.ndarray]]:
    contenders = {
        "fastconv ndimage": lambda: ndimage.gaussian_filter(image, sigma),
        "ndimage": lambda: scipy.ndimage.gaussian_filter(image, sigma),
    }
    if cv2:
        side = 2 * int(4 * sigma + 0.5) + 1
        contenders["OpenCV"] = lambda: cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REFLECT)
    return contenders


def check(results: dict[str, np.ndarray], inside: int) -> None:
    """Away from the borders all contenders agree."""
    first, *others = (result[inside:-inside, inside:-inside] for result in results.values())
    for other in others:
        assert np.abs(first - other).max() < 1e-4 * np.abs(first).max()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024, help="side of the image (1024)")
    parser.add_argument("--budget", type=float, default=0.5, help="seconds per contender and row (0.5)")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    image = rng.standard_normal((arguments.size, arguments.size), dtype=np.float32)
    if cv2:
        cv2.setNumThreads(fc.get_num_threads())

    cases = []
    for k in KERNELS:
        kernel = rng.standard_normal((k, k), dtype=np.float32)
        cases.append((f"{k}×{k}", k, 2.0 * k * k * image.size, kernel_contenders(image, kernel)))
    for sigma in SIGMAS:
        taps = 2 * int(4 * sigma + 0.5) + 1
        cases.append((f"gaussian, sigma {sigma}", taps, 4.0 * taps * image.size, gaussian_contenders(image, sigma)))

    names = list(cases[0][3])
    print(f"{arguments.size}×{arguments.size} float32, {fc.get_num_threads()} threads, milliseconds\n")
    print("| filter |", " | ".join(names), "| GFLOP/s | ÷ peak |")
    print("| :-- |", " | ".join(["--:"] * (len(names) + 2)), "|")
    rows = {}
    for title, reach, flops, contenders in cases:
        check({name: run() for name, run in contenders.items()}, reach)
        times = {name: seconds(run, arguments.budget) for name, run in contenders.items()}
        rows[title] = {name: 1e3 * value for name, value in times.items()}
        ours = times["fastconv ndimage"]
        cells = []
        for name in names:
            ratio = "" if name.startswith("fastconv") or name not in times else f" ({times[name] / ours:.1f}×)"
            cells.append(f"{times[name] * 1e3:.3g}{ratio}" if name in times else "–")
        print(
            f"| {title} |",
            " | ".join(cells),
            f"| {flops / ours / 1e9:.0f} | {flops / ours / 1e9 / peak.fma_peak():.2f} |",
        )
    print("\nIn brackets: times of fastconv ndimage. GFLOP/s: of the sums as the engine takes them.")
    if arguments.json:
        about = {"isa": fc.isa(), "threads": fc.get_num_threads(), "cpu": fc.config()["cpu"]}
        Path(arguments.json).write_text(json.dumps({**about, "milliseconds": rows}, indent=1))


if __name__ == "__main__":
    main()
