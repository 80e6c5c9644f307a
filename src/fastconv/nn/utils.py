# SPDX-License-Identifier: BSD-3-Clause
"""What is done to gradients between `backward` and an optimiser's step, with the names of `torch.nn.utils`."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from fastconv import _args
from fastconv._maps import Map, op
from fastconv._names import only
from fastconv.nn.module import Module
from fastconv.nn.parameter import Parameter
from fastconv.ops import _folds
from fastconv.ops._operand import widened

__all__ = ["clip_grad_norm_", "get_total_norm"]
__dir__ = only(__all__)


def get_total_norm(parameters: Iterable[Parameter], norm_type: float = 2.0) -> float:
    """The norm of all gradients as if they were one vector.

    Parameters
    ----------
    parameters : iterable of Parameter
        Those without a gradient count for nothing.
    norm_type : float
        The power p of ``(sum |g|^p)^(1/p)``; infinity for the largest ``|g|``.

    Returns
    -------
    float
        NaN or infinity where a gradient is.

    Raises
    ------
    TypeError
        `parameters` holds something else.
    ValueError
        `norm_type` is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> p = nn.Parameter([0.0, 0.0])
    >>> p.accumulate(np.array([3.0, -4.0]))
    >>> nn.utils.get_total_norm([p]), nn.utils.get_total_norm([p], norm_type=float("inf"))
    (5.0, 4.0)
    """
    if not _args.real(norm_type, "norm_type") > 0:
        raise ValueError(f"norm_type is {_args.said(norm_type)}; it needs to be above 0")
    gradients = [p.grad for p in _listed(parameters) if p.grad is not None and p.grad.size]
    norms = np.array([_norm(widened(gradient), norm_type) for gradient in gradients])
    if not gradients:
        return 0.0
    largest = float(norms.max())
    if math.isinf(norm_type) or not 0 < largest < math.inf:
        return largest
    return largest * float(np.sum((norms / largest) ** norm_type)) ** (1 / norm_type)


def clip_grad_norm_(
    parameters: Iterable[Parameter] | Parameter,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> float:
    """Scale all gradients, in place, so that their common norm is at most `max_norm`.

    As `torch.nn.utils.clip_grad_norm_`: the factor is ``min(1, max_norm / (norm + 1e-6))``.

    Parameters
    ----------
    parameters : iterable of Parameter, or one
    max_norm : float
    norm_type : float
        See `get_total_norm`.
    error_if_nonfinite : bool
        Whether a norm that is NaN or infinite is an error. Otherwise gradients become NaN or 0, as the factor says.

    Returns
    -------
    float
        The norm before.

    Raises
    ------
    TypeError
        `parameters` holds something else.
    ValueError
        `max_norm` is negative or NaN, or `norm_type` is not above 0.
    RuntimeError
        The norm is not finite, and that is an error. No gradient has changed.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> p = nn.Parameter([0.0, 0.0])
    >>> p.accumulate(np.array([3.0, -4.0]))
    >>> nn.utils.clip_grad_norm_([p], max_norm=1.0)
    5.0
    >>> p.grad.round(4)
    array([ 0.6, -0.8])
    """
    parameters = _listed(parameters)
    if not _args.real(max_norm, "max_norm") >= 0:
        raise ValueError(f"max_norm is {_args.said(max_norm)}; it needs to be at least 0")
    norm = get_total_norm(parameters, norm_type)
    if error_if_nonfinite and not math.isfinite(norm):
        raise RuntimeError(f"the norm of the gradients is {norm}; it needs to be finite to be clipped")
    factor = max_norm / (norm + 1e-6)
    if not factor >= 1:
        scale = Map(op("affine", a=factor))
        for parameter in parameters:
            if parameter.grad is None:
                continue
            if parameter.grad.dtype == _args.HALF or not parameter.grad.flags.writeable:
                parameter.grad = (widened(parameter.grad) * np.float32(factor)).astype(parameter.grad.dtype)
            else:
                scale(parameter.grad, out=parameter.grad)
    return norm


def _listed(parameters: Iterable[Parameter] | Parameter) -> list[Parameter]:
    if isinstance(parameters, Module):
        raise TypeError(f"parameters is a {type(parameters).__name__}; it needs its parameters: model.parameters()")
    found = [parameters] if isinstance(parameters, Parameter) else list(parameters)
    for parameter in found:
        if not isinstance(parameter, Parameter):
            raise TypeError(f"parameters holds {_args.said(parameter)}; every entry must be a Parameter")
    return found


def _norm(gradient: np.ndarray, norm_type: float) -> float:
    """Of one gradient; sums go over it in an order that does not depend on the number of threads."""
    if math.isinf(norm_type):
        return float(np.abs(gradient).max())
    if norm_type in (1, 2):
        return _folds.length(gradient, int(norm_type))
    return float(np.sum(np.abs(gradient.astype(np.float64)) ** norm_type)) ** (1 / norm_type)
