# SPDX-License-Identifier: BSD-3-Clause
"""Initialisers with the names and formulas of `torch.nn.init`.

Each fills a `Parameter` or an array in place and returns it. Randomness comes from `rng`: a
`numpy.random.Generator`, which is advanced, an integer seed, or None for fresh entropy. One
generator handed to all layers of a network makes the whole network reproducible.

>>> from fastconv import nn
>>> a, b = (nn.init.normal_(nn.Parameter.empty((2, 3)), rng=7) for _ in range(2))
>>> bool((a.value == b.value).all())
True
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

from fastconv._names import only
from fastconv.nn.parameter import Parameter

__all__ = [
    "calculate_gain",
    "constant_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]
__dir__ = only(__all__)

Target = TypeVar("Target", Parameter, np.ndarray)
RNG = np.random.Generator | int | None


def _array(tensor: Parameter | np.ndarray) -> np.ndarray:
    return tensor.data if isinstance(tensor, Parameter) else tensor


def _fill(tensor: Target, draw: str, scale: float, shift: float, rng: RNG) -> Target:
    """tensor = scale·(standard samples) + shift, drawn in place where that is possible."""
    array = _array(tensor)
    sample = getattr(np.random.default_rng(rng), draw)
    if array.dtype in (np.float32, np.float64) and array.flags.c_contiguous:
        sample(dtype=array.dtype, out=array)
        array *= scale
        array += shift
    else:
        array[...] = scale * sample(array.shape) + shift
    return tensor


def uniform_(tensor: Target, a: float = 0.0, b: float = 1.0, *, rng: RNG = None) -> Target:
    """Fill with samples that are uniform on [a, b)."""
    return _fill(tensor, "random", b - a, a, rng)


def normal_(tensor: Target, mean: float = 0.0, std: float = 1.0, *, rng: RNG = None) -> Target:
    """Fill with normally distributed samples."""
    return _fill(tensor, "standard_normal", std, mean, rng)


def trunc_normal_(
    tensor: Target, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, *, rng: RNG = None
) -> Target:
    """Fill with normally distributed samples of which those outside of [a, b] are drawn again.

    >>> import numpy as np
    >>> from fastconv import nn
    >>> weights = nn.init.trunc_normal_(np.empty(1000), std=0.5, a=-0.5, b=1.0, rng=0)
    >>> bool(weights.min() >= -0.5), bool(weights.max() <= 1.0)
    (True, True)
    """
    if not (std > 0 and a < b):
        raise ValueError(f"std is {std}, a is {a} and b is {b}; std needs to be above 0, and a below b")
    array, generator = _array(tensor), np.random.default_rng(rng)
    low, high = (a - mean) / std, (b - mean) / std
    values = np.empty(array.size)
    wanted = np.arange(array.size)
    while wanted.size:
        drawn, kept = _tried(low, high, wanted.size, generator)
        values[wanted[kept]] = drawn[kept]
        wanted = wanted[~kept]
    # Rounded to the array's dtype a sample may lie beyond the ends again.
    array[...] = np.clip(mean + std * values, a, b).reshape(array.shape)
    return tensor


def _tried(low: float, high: float, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Samples, and which of them to keep so that they are of a standard normal distribution between two ends."""
    below = math.erfc(-low / math.sqrt(2)) / 2
    above = math.erfc(high / math.sqrt(2)) / 2
    if 1 - below - above > 0.1:
        drawn = rng.standard_normal(count)
        return drawn, (drawn >= low) & (drawn <= high)
    # Few of those would be kept: uniform ones, by how likely they are beside the likeliest. Further out than the ends
    # below there is less than a share of e^-40.
    top = min(max(0.0, low), high)
    reach = math.sqrt(top * top + 80)
    drawn = rng.uniform(max(low, -reach), min(high, reach), count)
    return drawn, rng.random(count) < np.exp((top * top - drawn * drawn) / 2)


def constant_(tensor: Target, val: float) -> Target:
    """Fill with one value."""
    _array(tensor)[...] = val
    return tensor


def zeros_(tensor: Target) -> Target:
    """Fill with zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: Target) -> Target:
    """Fill with ones."""
    return constant_(tensor, 1.0)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights must grow to keep the variance through a nonlinearity.

    >>> from fastconv import nn
    >>> round(nn.init.calculate_gain("relu"), 4)
    1.4142
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    gains = {
        "linear": 1.0,
        "conv2d": 1.0,
        "sigmoid": 1.0,
        "tanh": 5 / 3,
        "relu": math.sqrt(2),
        "selu": 3 / 4,
    }
    if nonlinearity not in gains:
        names = ", ".join(map(repr, [*gains, "leaky_relu"]))
        raise ValueError(f"nonlinearity is {nonlinearity!r}; it needs one of {names}")
    return gains[nonlinearity]


def _fans(tensor: Any) -> tuple[int, int]:
    """Inputs that reach one output, and outputs that one input reaches."""
    shape = tensor.shape
    if len(shape) < 2:
        raise ValueError(f"tensor has shape {shape}; fan in and fan out need at least two axes")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _kaiming_std(tensor: Any, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode is {mode!r}; it needs to be 'fan_in' or 'fan_out'")
    fan = _fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan) if fan else 0.0


def kaiming_uniform_(
    tensor: Target,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    rng: RNG = None,
) -> Target:
    """Uniform on ±gain·sqrt(3/fan). Source: He et al. (2015), arXiv:1502.01852."""
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, rng=rng)


def kaiming_normal_(
    tensor: Target,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    rng: RNG = None,
) -> Target:
    """Normal with standard deviation gain/sqrt(fan). Source: He et al. (2015), arXiv:1502.01852."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), rng=rng)


def xavier_uniform_(tensor: Target, gain: float = 1.0, *, rng: RNG = None) -> Target:
    """Uniform on ±gain·sqrt(6/(fan_in + fan_out)). Source: Glorot and Bengio (2010)."""
    bound = gain * math.sqrt(6 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound, rng=rng)


def xavier_normal_(tensor: Target, gain: float = 1.0, *, rng: RNG = None) -> Target:
    """Normal with standard deviation gain·sqrt(2/(fan_in + fan_out)). Source as above."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(_fans(tensor))), rng=rng)


def default_(weight: Parameter, bias: Parameter | None, *, rng: RNG = None) -> None:
    """What torch's linear and convolution layers start with: both uniform on ±1/sqrt(fan_in)."""
    rng = np.random.default_rng(rng)
    kaiming_uniform_(weight, a=math.sqrt(5), rng=rng)
    if bias is not None:
        fan_in = _fans(weight)[0]
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        uniform_(bias, -bound, bound, rng=rng)
