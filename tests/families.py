# SPDX-License-Identifier: BSD-3-Clause
"""More than two thousand seeded convolutions, around every edge that a kernel can stumble over.

The edges are those of all instruction sets at once (GEMM tiles of 4, 6, 8 and 14 rows and of 4 to 32
columns, half of that in float64; vectors of 4, 8 and 16; blocks of 256 terms; Winograd tiles of 2, 3
and 4 pixels in segments of 14), so that the same problems are run on any machine.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np

from fastconv.bench.shapes import NETWORKS, conv_layers
from problems import Pair, Pairs, Problem

ROWS = (*range(1, 10), 11, 12, 13, 14, 15, 16, 17, 20, 24, 27, 28, 29, 40, 43)
COLUMNS = (*range(1, 10), *range(11, 18), 23, 24, 25, 31, 32, 33, 47, 48, 49, 63, 64, 65, 127, 129)
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65)
DEPTHS = (1, 2, 3, 7, 31, 127, 128, 129, 255, 256, 257, 258, 511, 512, 513, 767, 769)
KERNELS = (1, 2, 3, 4, 5, 6, 7, 11)
ACTIVATIONS = (None, "relu", "relu6")
LARGEST = 1_500_000  # products, so that the slowest of the algorithms takes milliseconds


class _Dice:
    """Random choices, as Python's own integers."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def one(self, choices):
        return choices[int(self.rng.integers(len(choices)))]

    def upto(self, largest: int, smallest: int = 1) -> int:
        return int(self.rng.integers(smallest, largest, endpoint=True))

    def pair(self, choices) -> Pair:
        return self.one(choices), self.one(choices)

    def epilogue(self) -> dict[str, object]:
        return {
            "bias": self.one((False, True)),
            "activation": self.one(ACTIVATIONS),
            "residual": self.one((False, False, True)),
        }

    def padding(self, kernel: Pair, dilation: Pair = (1, 1)) -> Pairs:
        """Each side by itself; now and then wider than the kernel, so that windows miss the image."""
        most = [d * (k - 1) + self.one((0, 0, 0, 1)) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((self.upto(m, 0), self.upto(m, 0)) for m in most)


def _for_output(out: Pair, kernel: Pair, padding: Pairs) -> Pair:
    """The size of the image that has this output at stride 1; less than 1 if there is none."""
    axes = zip(out, kernel, padding, strict=True)
    height, width = (o + k - 1 - sum(p) for o, k, p in axes)
    return height, width


def _gemm_tiles() -> Iterator[Problem]:
    """Matrices around the tile: rows, columns (one row of pixels, or flat over many) and depth."""
    dice = _Dice(1)

    def problem(rows: int, out: Pair, depth: int, kernel: Pair) -> Problem:
        padding = dice.padding(kernel)
        channels = max(1, round(depth / (kernel[0] * kernel[1])))
        size = _for_output(out, kernel, padding)
        return Problem(
            size,
            channels,
            rows,
            kernel,
            dice.one((1, 1, 2, 3)),
            padding=padding,
            **dice.epilogue(),
        )

    kernels = ((1, 1), (3, 3), (1, 3), (2, 2), (3, 1), (5, 5))
    for _ in range(3):
        for rows in ROWS:
            for kernel in kernels[:3]:
                out = dice.upto(5), dice.one(COLUMNS)
                yield problem(rows, out, dice.upto(40), kernel)
        for columns in COLUMNS:
            for kernel in kernels[:4]:
                out = dice.one(((1, columns), (columns, 1), (dice.upto(4), columns)))
                yield problem(dice.one(ROWS), out, dice.upto(40), kernel)
        for depth in DEPTHS:
            for kernel in kernels:
                yield problem(dice.one(ROWS), (dice.upto(4), dice.upto(9)), depth, kernel)


def _winograd_tiles() -> Iterator[Problem]:
    """Stride 1: outputs that fill their tiles and segments, or miss by one; blocks of channels."""
    dice = _Dice(2)
    for tile, taps in ((2, 3), (3, 3), (4, 3), (6, 3), (2, 5), (3, 2)):
        for tiles in (1, 2, 3, 5, 6, 8, 9, 11, 12, 15, 16, 17, 31, 32, 33):
            for rest in (-1, 0, 1):
                for _ in range(2):
                    padding = tuple((dice.upto(taps - 1, 0), dice.upto(taps - 1, 0)) for _ in range(2))
                    yield Problem(
                        _for_output((dice.upto(9), tile * tiles + rest), (taps, taps), padding),
                        dice.one(CHANNELS),
                        dice.one(CHANNELS),
                        (taps, taps),
                        dice.one((1, 1, 2, 3)),
                        padding=padding,
                        **dice.epilogue(),
                    )
    for channels in (255, 256, 257, 300, 511, 512, 513, 600):
        for outputs in (1, 3, 33):
            yield Problem((dice.upto(9, 3), dice.upto(9, 3)), channels, outputs, (3, 3), **dice.epilogue())
    for size in (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 16, 17):
        for _ in range(4):
            groups = dice.one((1, 1, 1, 2, 3))
            yield Problem(
                (size, size),
                groups * dice.one(CHANNELS),
                groups * dice.one(CHANNELS),
                (3, 3),
                dice.one((1, 2)),
                padding=((1, 1), (1, 1)),
                groups=groups,
                **dice.epilogue(),
            )


def _winograd_blocks() -> Iterator[Problem]:
    """Kernels of several blocks of taps, whole and cut; rows alone, under any steps from row to row."""
    dice = _Dice(10)
    both = ((2, 3), (3, 2), (4, 4), (4, 2), (3, 5), (6, 6), (7, 7), (5, 4), (8, 3), (2, 9))
    rows = ((1, 2), (1, 3), (1, 4), (1, 5), (1, 7), (1, 9), (1, 13))
    for kernel in (*both, *rows):
        for width in (1, 2, 3, 4, 5, 6, 11, 12, 13, 24, 36, 47, 48, 49, 63, 64, 65, 97, 145, 289):
            padding = tuple((dice.upto(k - 1, 0), dice.upto(k - 1, 0)) for k in kernel)
            yield Problem(
                _for_output((dice.upto(9), width), kernel, padding),
                dice.one(CHANNELS),
                dice.one(CHANNELS),
                kernel,
                dice.one((1, 1, 2)),
                padding=padding,
                **dice.epilogue(),
            )
    for stride, dilation in ((2, 1), (3, 1), (1, 2), (2, 3)):
        for kernel in ((2, 2), (3, 3), (2, 5), (3, 7)):
            for width in (5, 24, 57):
                yield Problem(
                    (dice.upto(20, 8), width),
                    dice.one(CHANNELS),
                    dice.one(CHANNELS),
                    kernel,
                    dice.one((1, 2)),
                    (stride, 1),
                    ((1, 2), (1, 0)),
                    (dilation, 1),
                    **dice.epilogue(),
                )


def _winograd_phases() -> Iterator[Problem]:
    """Outputs two apart along rows, or along both sides: kernels of an odd and an even number of taps, any padding."""
    dice = _Dice(12)
    for kernel in ((3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (3, 5), (4, 7), (13, 3), (1, 3), (2, 3), (3, 4)):
        for width in (1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 24, 31, 32, 33):
            padding = tuple((dice.upto(k, 0), dice.upto(k, 0)) for k in kernel)
            height, width = (
                2 * o - 1 + k - 1 - sum(p) + dice.upto(1, 0)
                for o, k, p in zip((dice.upto(9), width), kernel, padding, strict=True)
            )
            groups = dice.one((1, 1, 1, 2))
            yield Problem(
                (height, width),
                groups * dice.one(CHANNELS),
                groups * dice.one(CHANNELS),
                kernel,
                dice.one((1, 1, 2)),
                (dice.one((2, 2, 2, 1, 3)), 2),
                padding,
                groups=groups,
                **dice.epilogue(),
            )


def _pointwise() -> Iterator[Problem]:
    """1 x 1: short and long rows, tiles that run on into the next row, channel or image."""
    dice = _Dice(3)
    for width in COLUMNS:
        for height in (1, 2, 3, 5, 8):
            groups = dice.one((1, 1, 1, 1, 2, 3))
            yield Problem(
                (height, width),
                groups * dice.one(CHANNELS),
                groups * dice.one(CHANNELS),
                batch=dice.one((1, 1, 2, 3)),
                groups=groups,
                **dice.epilogue(),
            )
    for depth in DEPTHS:
        for _ in range(3):
            yield Problem(
                (dice.upto(4), dice.upto(12)),
                depth,
                dice.one(CHANNELS),
                batch=dice.one((1, 1, 2, 3)),
                stride=dice.pair((1, 1, 2)),
                **dice.epilogue(),
            )
    for batch in (*ROWS, 33):  # one pixel each, as linear layers have
        yield Problem((1, 1), dice.one(DEPTHS), dice.one(CHANNELS), batch=batch, bias=True)


def _depthwise() -> Iterator[Problem]:
    """One input channel per group: rows and channels around one vector and around four."""
    dice = _Dice(4)

    def problem(size: Pair, channels: int, kernel: Pair) -> Problem:
        dilation = dice.pair((1, 1, 1, 2, 3))
        return Problem(
            size,
            channels,
            channels * dice.one((1, 1, 1, 2, 3)),
            kernel,
            dice.one((1, 1, 2)),
            dice.pair((1, 1, 2, 3)),
            dice.padding(kernel, dilation),
            dilation,
            channels,
            **dice.epilogue(),
        )

    for kernel in KERNELS:
        for _ in range(12):
            yield problem((dice.upto(12), dice.one(COLUMNS)), dice.upto(9), (kernel, kernel))
    for channels in CHANNELS:
        for _ in range(6):
            yield problem((dice.upto(9), dice.upto(12)), channels, dice.pair((1, 2, 3, 3, 5)))
    for width in (*range(1, 22), *range(30, 38), *range(62, 70), *range(127, 133)):
        for stride in (1, 2):
            yield Problem(
                (3, width),
                2,
                2,
                (3, 3),
                1,
                (1, stride),
                ((1, 1), (1, 1)),
                groups=2,
                **dice.epilogue(),
            )
        taps = dice.one((2, 3, 4, 9))
        yield Problem(
            (dice.one((1, 2, 3)), width), 3, 3, (1, taps), 1, (1, dice.one((1, 2))), ((0, 0), (2, 1)), groups=3
        )
    # outputs further apart: the vectors in which their inputs lie, and where these end with the row
    for stride in (3, 4, 5, 7, 8, 9, 15, 16, 17, 20):
        for width in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33):
            kernel = dice.pair((1, 2, 3, 3, 5, 7))
            dilation = dice.pair((1, 1, 2))
            padding = dice.padding(kernel, dilation)
            reach = dilation[1] * (kernel[1] - 1) + 1 - sum(padding[1])
            channels = dice.one((2, 3, 3, 7, 8, 9, 15, 16, 17, 33))
            yield Problem(
                (dice.one((1, 2, 9, 25)), stride * (width - 1) + reach + dice.one((0, 0, 1, stride - 1))),
                channels,
                channels * dice.one((1, 1, 1, 2)),
                kernel,
                dice.one((1, 1, 2)),
                (dice.one((1, 2, 3, stride)), stride),
                padding,
                dilation,
                channels,
                **dice.epilogue(),
            )
    # kernels that are unrolled, on patches of two by four pixels and of seven rows by a vector, with some more or less
    for kernel in (2, 3, 5, 7):
        for stride in (1, 2):
            for rows in (1, 2, 3, 6, 7, 8, 13, 14, 15):
                size = (stride * rows, stride * dice.one((1, 3, 4, 5, 8, 9, 15, 17, 33)))
                padding = ((dice.upto(kernel - 1, 0), kernel - 1), (dice.upto(kernel - 1, 0), kernel - 1))
                channels = dice.one((1, 3, 7, 8, 9, 15, 16, 17, 31, 33))
                yield Problem(
                    size,
                    channels,
                    channels,
                    (kernel, kernel),
                    1,
                    (stride, stride),
                    padding,
                    groups=channels,
                    **dice.epilogue(),
                )


def _grouped() -> Iterator[Problem]:
    """Several groups of a few channels."""
    dice = _Dice(5)
    for groups in (2, 3, 4, 5, 8, 16):
        for _ in range(45):
            kernel = dice.pair((1, 2, 3, 3, 5))
            dilation = dice.pair((1, 1, 2))
            yield Problem(
                (dice.upto(16), dice.upto(36)),
                groups * dice.one((2, 3, 4, 5, 8, 9)),
                groups * dice.one((1, 2, 3, 4, 7, 8, 9, 17)),
                kernel,
                dice.one((1, 1, 2)),
                dice.pair((1, 1, 2)),
                dice.padding(kernel, dilation),
                dilation,
                groups,
                **dice.epilogue(),
            )


def _few_channels() -> Iterator[Problem]:
    """As many outputs as inputs in each group, a power of two: vectors of several groups, blocks of four pixels."""
    dice = _Dice(7)
    for size in (1, 2, 4, 8, 16):
        for width in (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 17):
            for _ in range(3):
                kernel = dice.pair((1, 2, 3, 3, 5))
                dilation = dice.pair((1, 1, 2))
                groups = dice.one((2, 3, 4, 7, 8, 9, 16, 17, 33)) if size < 8 else dice.one((2, 3, 4, 5))
                yield Problem(
                    (dice.upto(9), width),
                    groups * size,
                    groups * size,
                    kernel,
                    dice.one((1, 1, 2)),
                    dice.pair((1, 1, 2, 3)),
                    dice.padding(kernel, dilation),
                    dilation,
                    groups,
                    **dice.epilogue(),
                )


def _few_outputs() -> Iterator[Problem]:
    """A few outputs of many channels that are neighbours: vectors along these, in blocks of k that end within a tap
    and between taps, or over pixels, which are turned as they are read."""
    dice = _Dice(11)
    for channels in (64, 100, 128, 129, 255, 256, 257, 300, 520):
        for outputs in (1, 2, 4, 7, 8, 11, 12, 15):
            kernel = dice.one(((1, 1), (1, 1), (1, 3), (3, 3)))
            yield Problem(
                (dice.upto(4), dice.one((1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33))),
                channels,
                outputs,
                kernel,
                dice.one((1, 1, 2)),
                dice.pair((1, 1, 2)),
                dice.one((((0, 0), (0, 0)), dice.padding(kernel))),
                **dice.epilogue(),
            )
    for channels in (4, 7, 8, 15, 16, 17, 33, 70):
        for outputs in (1, 2, 3, 5):
            for width in (1, 7, 8, 9, 15, 16, 17, 31, 34):
                kernel = dice.pair((1, 3, 3, 5, 9))
                dilation = dice.pair((1, 1, 1, 2))
                yield Problem(
                    (dice.upto(9), width),
                    channels,
                    outputs,
                    kernel,
                    dice.one((1, 1, 2)),
                    dice.pair((1, 1, 2, 3)),
                    dice.padding(kernel, dilation),
                    dilation,
                    **dice.epilogue(),
                )


def _kernel_rows() -> Iterator[Problem]:
    """Kernel rows that are one segment of k, or several, or parts of one; images read where they lie, or a copy."""
    dice = _Dice(8)
    for channels in (1, 3, 5, 28, 64, 85, 86, 100, 128, 129, 256, 257, 300):
        for kernel in ((1, 1), (1, 3), (3, 1), (3, 3), (2, 5), (7, 7), (11, 11)):
            for stride in (1, 2, 3, 4):
                dilation = dice.pair((1, 1, 1, 2))
                yield Problem(
                    _for_output((dice.upto(4), dice.one((1, 2, 7, 13, 14, 15, 27, 28, 29))), kernel, ((0, 0), (0, 0))),
                    channels,
                    dice.one((1, 9, 16, 17, 32, 33, 65)),
                    kernel,
                    dice.one((1, 1, 2)),
                    (stride, stride),
                    dice.one((((0, 0), (0, 0)), dice.padding(kernel, dilation))),
                    dilation,
                    **dice.epilogue(),
                )
    for kernel, stride in ((7, 2), (11, 4)):  # first layers, unpadded: as they lie in an image of 3 channels
        for width in (kernel, 2 * kernel, 45, 51, 52):
            yield Problem((kernel + stride, width), 3, dice.one((17, 33)), (kernel, kernel), stride=(stride, stride))


def _dilated() -> Iterator[Problem]:
    """Phases of a dilation: ends of image and output between them, paddings that shift them, strides of whole steps."""
    dice = _Dice(10)
    for dilation in (2, 3, 5, 12):
        for size in (1, dilation - 1, dilation, dilation + 1, 2 * dilation, 3 * dilation + 1, 26):
            for kernel in ((3, 3), (2, 3), (1, 3), (3, 1), (5, 4)):
                reach = dilation * (max(kernel) - 1)
                groups = dice.one((1, 1, 2))
                yield Problem(
                    (size, dice.one((size, 25))),
                    groups * dice.one((1, 3, 17)),
                    groups * dice.one((1, 5, 33)),
                    kernel,
                    dice.one((1, 1, 2, 3)),
                    dice.pair((1, 1, 1, 2, dilation, 2 * dilation)),
                    tuple((dice.upto(reach), dice.upto(reach)) for _ in range(2)),
                    (dilation, dice.one((dilation, dilation, 1, 4))),
                    groups,
                    **dice.epilogue(),
                )


def _winograd_chunks() -> Iterator[Problem]:
    """Channels on both sides of where Winograd's stages are fused on some machine; one chunk of tiles, and several."""
    dice = _Dice(9)
    same = ((1, 1), (1, 1))
    for channels in (112, 113, 144, 145, 272, 273, 300, 304, 305, 432, 433, 688, 689, 720, 721):
        for out in ((1, 1), (4, 5), (13, 14), (25, 27)):
            yield Problem(out, channels, dice.one((1, 3, 17, 33)), (3, 3), padding=same, **dice.epilogue())
        groups, batch = dice.one((2, 3)), dice.one((1, 3))
        yield Problem((9, 10), groups * channels, groups * 2, (3, 3), batch, padding=same, groups=groups, bias=True)
        yield Problem((10, 9), channels, 5, (5, 5), batch, padding=((2, 2), (2, 2)), **dice.epilogue())
    yield Problem((66, 65), 300, 3, (3, 3), padding=same, bias=True, activation="relu")


def _general() -> Iterator[Problem]:
    """Everything at once."""
    dice = _Dice(6)
    while True:
        kernel = dice.pair(KERNELS)
        dilation = dice.pair((1, 1, 2, 3))
        groups = dice.one((1, 1, 1, 2, 3))
        yield Problem(
            (dice.upto(30), dice.upto(40)),
            groups * dice.upto(12),
            groups * dice.upto(20),
            kernel,
            dice.upto(3),
            dice.pair((1, 1, 2, 3)),
            dice.padding(kernel, dilation),
            dilation,
            groups,
            **dice.epilogue(),
        )


def _large() -> Iterator[Problem]:
    """The few that need more than one strip, chunk or pass."""
    same = ((1, 1), (1, 1))
    yield Problem((73, 70), 3, 5, (3, 3), padding=same, bias=True, activation="relu")
    yield Problem((73, 70), 17, 5, (3, 3), padding=same, residual=True)
    yield Problem((60, 61), 6, 4, (3, 3), 2, padding=same, groups=2, bias=True)
    yield Problem((37, 35), 720, 3, (3, 3), padding=same, bias=True)
    yield Problem((150, 131), 1, 3, (7, 7), padding=((3, 3), (3, 3)), activation="relu6")
    yield Problem((61, 67), 7, 9, (5, 5), stride=(2, 2), padding=((2, 2), (2, 2)), residual=True)
    yield Problem((5, 3001), 3, 4, (3, 3), padding=same, bias=True)
    yield Problem((3001, 5), 3, 4, (3, 3), padding=same, bias=True)
    yield Problem((40, 40), 33, 31, batch=3, bias=True, activation="relu")
    yield Problem((9, 9), 130, 129, (3, 3), padding=same, bias=True, activation="relu")
    yield Problem((14, 13), 300, 34, residual=True)
    yield Problem((90, 90), 8, 8, (3, 3), padding=same, groups=8, activation="relu")


def _layers() -> Iterator[Problem]:
    """Those of real networks, all their channels, on smaller images."""
    for layer in (layer for network in NETWORKS for layer in conv_layers(network)):
        most = tuple(8 * s + k - 1 for s, k in zip(layer.stride, layer.kernel, strict=True))
        yield Problem(
            tuple(min(n, m) for n, m in zip((layer.height, layer.width), most, strict=True)),
            layer.in_channels,
            layer.out_channels,
            layer.kernel,
            stride=layer.stride,
            padding=(layer.sides[:2], layer.sides[2:]),
            dilation=layer.dilation,
            groups=layer.groups,
            bias=True,
            activation="relu",
        )


_FAMILIES = {
    "gemm_tiles": (_gemm_tiles, LARGEST, None),
    "winograd_tiles": (_winograd_tiles, 3 * LARGEST, None),
    "winograd_blocks": (_winograd_blocks, 3 * LARGEST, None),
    "winograd_phases": (_winograd_phases, 3 * LARGEST, None),
    "pointwise": (_pointwise, LARGEST, None),
    "depthwise": (_depthwise, LARGEST, None),
    "grouped": (_grouped, LARGEST, None),
    "few_channels": (_few_channels, LARGEST, None),
    "few_outputs": (_few_outputs, LARGEST, None),
    "kernel_rows": (_kernel_rows, 4 * LARGEST, None),
    "winograd_chunks": (_winograd_chunks, None, None),
    "dilated": (_dilated, LARGEST, None),
    "general": (_general, LARGEST // 2, 500),
    "large": (_large, None, None),
    "layers": (_layers, None, None),
}
FAMILIES = tuple(_FAMILIES)


@cache
def family(name: str) -> tuple[Problem, ...]:
    """The problems of a family: those that exist and are small enough, each once."""
    generate, largest, count = _FAMILIES[name]
    kept: dict[Problem, None] = {}
    for problem in generate():
        if problem.exists and (largest is None or problem.products <= largest):
            kept[problem] = None
        if count is not None and len(kept) == count:
            break
    return tuple(kept)
