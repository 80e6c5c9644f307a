# SPDX-License-Identifier: BSD-3-Clause
"""Number by number: activations, sums, products."""

from __future__ import annotations

import math
from collections.abc import Callable

from fastconv._names import only
from fastconv.graph.doors.onnx.site import TRANSLATORS, Site, Translated, translates
from fastconv.graph.programs import Program, clamp

__all__: list[str] = []
__dir__ = only(__all__)

#: Functions of one number: the program, from the node.
_PROGRAMS: dict[str, Callable[[Site], Program | None]] = {
    "Relu": lambda site: (clamp(0),),
    "LeakyRelu": lambda site: (("leaky_relu", float(site.attribute("alpha", 0.01))),),
    "Sigmoid": lambda site: (("sigmoid",),),
    "HardSigmoid": lambda site: (
        ("affine", float(site.attribute("alpha", 0.2)), float(site.attribute("beta", 0.5))),
        clamp(0, 1),
    ),
    "HardSwish": lambda site: (("hardswish",),),
    "Tanh": lambda site: (("tanh",),),
    "Elu": lambda site: (("elu", float(site.attribute("alpha", 1.0))),),
    "Selu": lambda site: (
        ("elu", float(site.attribute("alpha", 1.6732632423543772848170429916717))),
        ("affine", float(site.attribute("gamma", 1.0507009873554804934193349852946)), 0.0),
    ),
    "Gelu": lambda site: (("gelu_tanh" if site.attribute("approximate", "none") == "tanh" else "gelu",),),
    "Softplus": lambda site: (("softplus",),),
    "Mish": lambda site: (("mish",),),
    "Swish": lambda site: (("silu",),) if site.attribute("alpha", 1.0) == 1 else None,
    "Exp": lambda site: (("exp",),),
    "Log": lambda site: (("log",),),
    "Sqrt": lambda site: (("sqrt",),),
    "Abs": lambda site: (("abs",),),
    "Neg": lambda site: (("neg",),),
    "Erf": lambda site: (("erf",),),
    "Floor": lambda site: (("floor",),),
    "Ceil": lambda site: (("ceil",),),
    "Round": lambda site: (("round",),),
    "Sign": lambda site: (("sign",),),
    "Reciprocal": lambda site: (("reciprocal",),),
}


def _function(site: Site) -> Translated:
    program = _PROGRAMS[site.node.op_type](site)
    return site.add("map", [site.input(0)], program=program) if site.is_float(0) and program is not None else None


for _name in _PROGRAMS:
    TRANSLATORS["", _name] = _function


@translates("Clip")
def _clip(site: Site) -> Translated:
    if not site.is_float(0):
        return None
    if site.opset < 11:
        bounds = [site.attribute("min", -math.inf), site.attribute("max", math.inf)]
    else:
        bounds = [-math.inf, math.inf]
        for i in (0, 1):
            if site.input(1 + i) is not None:
                array = site.array(1 + i)
                if array is None or array.size != 1:
                    return None
                bounds[i] = float(array.reshape(()))
    return site.add("map", [site.input(0)], program=(clamp(*bounds),))


_PAIRS = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Pow": "pow", "PRelu": "prelu"}
_POWERS: dict[float, Program] = {
    -2.0: (("square",), ("reciprocal",)),
    -1.0: (("reciprocal",),),
    -0.5: (("rsqrt",),),
    0.5: (("sqrt",),),
    1.0: (),
    2.0: (("square",),),
    3.0: (("square",), ("mul", 1)),
    4.0: (("square",), ("square",)),
}
_REVERSED = {"add": "add", "mul": "mul", "sub": "rsub", "div": "rdiv"}


@translates(*_PAIRS)
def _pair(site: Site) -> Translated:
    """A constant is the second operand where that says the same."""
    if not site.is_float(0, 1):
        return None
    name, operands = _PAIRS[site.node.op_type], [site.input(0), site.input(1)]
    if site.array(0) is not None and site.array(1) is None and name in _REVERSED:
        name, operands = _REVERSED[name], operands[::-1]
    exponent = site.array(1) if name == "pow" else None
    if exponent is not None and exponent.size == 1 and float(exponent.reshape(())) in _POWERS:
        same = exponent.ndim <= (site.rank(0) or 0)
        program = _POWERS[float(exponent.reshape(()))]
        reads = [operands[0]] * (1 + any(step[0] == "mul" for step in program))
        return site.add("map", reads, program=program) if same else None
    return site.add("map", operands, program=((name, 1),))


_SERIES = {"Sum": "add", "Min": "min", "Max": "max"}


@translates(*_SERIES)
def _series(site: Site) -> Translated:
    if not site.is_float(*range(len(site.inputs))):
        return None
    name, (total, *others) = _SERIES[site.node.op_type], site.inputs
    if not others:
        return site.add("identity", [total])
    for i, value in enumerate(others):
        total = site.add("map", [total, value], "" if i == len(others) - 1 else str(i), program=((name, 1),))
    return total


@translates("Identity", "Dropout")
def _identity(site: Site) -> Translated:
    """Dropout leaves its input as it is, unless it is told to train."""
    if site.writes(1) or (site.node.op_type == "Dropout" and site.opset >= 12 and site.input(2) is not None):
        training = site.array(2)
        if site.writes(1) or training is None or training.any():
            return None
    if site.dtype(0) is None:
        return None
    return site.add("identity", [site.input(0)])
