# SPDX-License-Identifier: BSD-3-Clause
"""Graphs to compile: random ones, and what they mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.graph import OPERATORS, Graph, Value
from fastconv.graph.programs import clamp


def interpret(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs, node by node, by the meaning in NumPy that each operator has."""
    known: dict[Value, np.ndarray] = dict(zip(graph.inputs, arrays, strict=True))
    for value in graph.constants():
        assert value.constant is not None
        known[value] = value.constant.array()
    for node in graph.nodes:
        given = [None if value is None else known[value] for value in node.inputs]
        known.update(zip(node.outputs, OPERATORS[node.op].evaluate(node, given), strict=True))
    return [known[value] for value in graph.outputs]


class Random:
    """A graph of random operators on images.

    Every value is one that some later node may read, so that values have several readers, are concatenated twice, and
    are returned while others read them.
    """

    def __init__(self, seed: int, dtype: Any = np.float64, nodes: int = 12, batch: int | None = None) -> None:
        self.rng, self.dtype = np.random.default_rng(seed), np.dtype(dtype)
        self.graph = Graph(f"random{seed}")
        shape = (int(self.rng.integers(1, 3)), int(self.rng.integers(1, 7)), *map(int, self.rng.integers(5, 12, 2)))
        shape = shape if batch is None else (batch, *shape[1:])
        x = self.graph.input("x", shape, dtype)
        self.values: list[tuple[Value, tuple[int, ...]]] = [(x, shape)]
        makers = [
            self.conv, self.conv, self.norm, self.norm, self.function, self.function, self.sum, self.sum, self.scaled,
            self.concat, self.concat, self.pool, self.pad, self.part, self.twice, self.gate, self.turned, self.number,
            self.layer, self.layer,
        ]  # fmt: skip
        for _ in range(nodes):
            makers[int(self.rng.integers(len(makers)))]()
        self.finish()
        self.graph.verify()
        self.inputs = [self.array(shape)]

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(self.dtype)

    def constant(self, *shape: int) -> Value:
        return self.graph.constant(self.array(shape))

    def pick(self) -> tuple[Value, tuple[int, ...]]:
        """A value, the last ones more often."""
        back = min(int(self.rng.geometric(0.5)), len(self.values))
        return self.values[-back]

    def keep(self, value: Value, shape: tuple[int, ...]) -> None:
        self.values.append((value, shape))

    def conv(self) -> None:
        x, (n, c, h, w) = self.pick()
        groups = c if self.rng.random() < 0.2 else 1
        out = c if groups > 1 else int(self.rng.integers(1, 9))
        k, stride = int(self.rng.choice([1, 3])), int(self.rng.choice([1, 1, 2]))
        padding = int(self.rng.integers(0, 2)) if k == 3 else 0
        if min(h, w) + 2 * padding < k:
            return
        weights = [self.constant(out, c // groups, k, k), self.constant(out) if self.rng.random() < 0.7 else None]
        attributes = {"stride": stride, "padding": padding, "groups": groups}
        y = self.graph.add("conv", [x, *weights], **attributes)
        self.keep(y, (n, out, *((s + 2 * padding - k) // stride + 1 for s in (h, w))))

    def norm(self) -> None:
        x, shape = self.pick()
        c = shape[1]
        variance = self.graph.constant(self.rng.random(c).astype(self.dtype) + 0.5)
        given = [self.constant(c), self.constant(c) if self.rng.random() < 0.8 else None, self.constant(c), variance]
        self.keep(self.graph.add("batch_norm", [x, *given], eps=1e-3), shape)

    def function(self) -> None:
        x, shape = self.pick()
        programs: list[tuple[Any, ...]] = [
            (clamp(0),), (clamp(0, 6),), (("silu",),), (("leaky_relu", 0.1),), (("tanh",),), (("sigmoid",),),
            (("affine", 0.5, 1.0), clamp(-1, 1)), (("hardswish",),), (("gelu",),),
        ]  # fmt: skip
        self.keep(self.graph.add("map", [x], program=programs[int(self.rng.integers(len(programs)))]), shape)

    def sum(self) -> None:
        x, shape = self.pick()
        same = [value for value, other in self.values if other == shape]
        y = same[int(self.rng.integers(len(same)))]
        name = str(self.rng.choice(["add", "add", "add", "sub", "mul", "max"]))
        self.keep(self.graph.add("map", [x, y], program=((name, 1),)), shape)

    def scaled(self) -> None:
        x, shape = self.pick()
        other = self.constant(1, shape[1], 1, 1) if self.rng.random() < 0.5 else self.constant(shape[3])
        self.keep(self.graph.add("map", [x, other], program=(("mul", 1), ("affine", 0.5, 0.25))), shape)

    def concat(self) -> None:
        x, shape = self.pick()
        fits = [entry for entry in self.values if (entry[1][0], *entry[1][2:]) == (shape[0], *shape[2:])]
        parts = [(x, shape), *(fits[int(i)] for i in self.rng.integers(len(fits), size=int(self.rng.integers(1, 4))))]
        channels = sum(part[1][1] for part in parts)
        if channels < 40:
            y = self.graph.add("concat", [part[0] for part in parts], axis=int(self.rng.choice([1, -3])))
            self.keep(y, (shape[0], channels, *shape[2:]))

    def pool(self) -> None:
        x, (n, c, h, w) = self.pick()
        if min(h, w) < 3:
            return
        op = str(self.rng.choice(["max_pool", "avg_pool"]))
        stride = int(self.rng.integers(1, 3))
        if op == "max_pool" and stride == 2 and (h + w) % 2 == 0:
            self.keep(self.graph.add(op, [x], kernel_size=2, stride=2), (n, c, h // 2, w // 2))
            return
        y = self.graph.add(op, [x], kernel_size=3, stride=stride, padding=1)
        self.keep(y, (n, c, (h - 1) // stride + 1, (w - 1) // stride + 1))

    def pad(self) -> None:
        x, (n, c, h, w) = self.pick()
        value = float(self.rng.choice([0.0, 0.0, 1.5]))
        y = self.graph.add("pad", [x], pairs=((0, 0), (0, 0), (1, 0), (2, 1)), value=value)
        self.keep(y, (n, c, h + 1, w + 3))

    def part(self) -> None:
        x, (n, c, h, w) = self.pick()
        if c > 1:
            cut = int(self.rng.integers(1, c))
            self.keep(self.graph.add("slice", [x], axis=1, start=0, stop=cut), (n, cut, h, w))
            self.keep(self.graph.add("slice", [x], axis=1, start=cut, stop=None), (n, c - cut, h, w))

    def twice(self) -> None:
        x, shape = self.pick()
        self.keep(self.graph.add("identity", [x]), shape)

    def gate(self) -> None:
        x, shape = self.pick()
        gate = self.graph.add("map", [x], program=(("sigmoid",),))
        self.keep(self.graph.add("map", [x, gate], program=(("mul", 1),)), shape)

    def turned(self) -> None:
        x, (n, c, h, w) = self.pick()
        y = self.graph.add("transpose", [x], order=(0, 1, 3, 2))
        self.keep(self.graph.add("transpose", [y], order=(0, 1, 3, 2)) if self.rng.random() < 0.5 else y, (n, c, h, w))
        if self.values[-1][0] is y:
            self.values[-1] = (y, (n, c, w, h))

    def number(self) -> None:
        x, shape = self.pick()
        inputs = [x, self.graph.constant(np.asarray(self.rng.random() + 0.5, self.dtype))]
        name = str(self.rng.choice(["add", "sub", "mul", "div", "min", "max"]))
        if self.rng.random() < 0.5 and name != "div":
            inputs.reverse()
        self.keep(self.graph.add("map", inputs, program=((name, 1),)), shape)

    def layer(self) -> None:
        """A linear layer of channels, what may stand behind it, and a sum, with the channels last and back again."""
        x, (n, c, h, w) = self.pick()
        out = int(self.rng.integers(1, 7))
        y = self.graph.add("transpose", [x], order=(0, 2, 3, 1))
        y = self.graph.add("linear", [y, self.constant(out, c)])
        if self.rng.random() < 0.5:
            y = self.graph.add("map", [self.constant(out), y], program=(("add", 1),))
        if self.rng.random() < 0.5:
            bell = self.graph.add("map", [y], program=(("affine", float(np.sqrt(0.5)), 0.0), ("erf",)))
            gate = self.graph.add("map", [bell], program=(("affine", 1.0, 1.0),))
            y = self.graph.add("map", [y, gate], program=(("mul", 1),))
        y = self.graph.add("transpose", [y], order=(0, 3, 1, 2))
        if self.rng.random() < 0.5:
            y = self.graph.add("map", [y, self.constant(out, 1, 1)], program=(("mul", 1),))
        same = [value for value, shape in self.values if shape == (n, out, h, w)]
        if same:
            y = self.graph.add("map", [y, same[int(self.rng.integers(len(same)))]], program=(("add", 1),))
        self.keep(y, (n, out, h, w))

    def finish(self) -> None:
        """A classifier at the end, and some values that are returned besides."""
        x, (_, c, h, w) = self.values[-1]
        flat = self.graph.add("flatten", [x])
        scores = self.graph.add("linear", [flat, self.constant(5, c * h * w), self.constant(5)])
        others = [self.values[int(i)][0] for i in self.rng.integers(len(self.values), size=2)]
        self.graph.outputs = [scores, self.graph.add("softmax", [scores], axis=-1), *others]
