# SPDX-License-Identifier: BSD-3-Clause
"""Docstrings of the forms along one and three axes, from that of the form along two."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_EXAMPLES = "Examples\n--------\n"

#: What a docstring says of two axes, of one, and of three. They are replaced as they stand, in this order.
_WORDS = (
    ("((top, bottom), (left, right))", "((left, right),)", "((front, back), (top, bottom), (left, right))"),
    ("(int or None, int or None)", "(int or None,)", "(int or None, int or None, int or None)"),
    ("(int, int)", "(int,)", "(int, int, int)"),
    ("2d", "1d", "3d"),
    ("NCHW", "NCW", "NCDHW"),
    ("NHWC", "NWC", "NDHWC"),
    ("OIHW", "OIW", "OIDHW"),
    ("OH, OW", "OW", "OD, OH, OW"),
    ("KH, KW", "KW", "KD, KH, KW"),
    ("kH, kW", "kW", "kD, kH, kW"),
    ("H, W", "W", "D, H, W"),
    # Formulas are of one axis: the first of two, the only one, and the second of three.
    ("OH", "OW", "OH"),
    ("KH", "KW", "KH"),
    ("(H ", "(W ", "(H "),
    (" H ", " W ", " H "),
    ("+ top + bottom", "+ left + right", "+ top + bottom"),
    ("- top - bottom", "- left - right", "- top - bottom"),
    ("image", "signal", "volume"),
    ("kernels of two columns or more", "kernels of two elements or more", "kernels of two columns or more"),
    (" along rows", "", " along rows"),
)


def _reworded(text: str, rank: int) -> str:
    """What is said of two axes, of one or of three."""
    for two, one, three in _WORDS:
        text = text.replace(two, one if rank == 1 else three)
    return text


def _without(parameters: set[str], body: str) -> str:
    """A docstring's body without the entries of some parameters, which this form does not have."""
    for name in parameters:
        body = re.sub(rf"^{name} : .*\n(?:    .*\n)*", "", body, flags=re.MULTILINE)
        body = re.sub(rf", {name}\b|\b{name}, ", "", body)
    return body


def of_rank(rank: int, two: Callable[..., Any]) -> Callable[[F], F]:
    """A decorator: between its first line and its examples, a docstring says what that of `two` says, of `rank` axes.

    It changes nothing else, so that the form is, to Python and to its tools, the function or class that is written.
    """

    def document(form: F) -> F:
        if two.__doc__ is None or form.__doc__ is None:  # python -OO
            return form
        summary, _, examples = inspect.cleandoc(form.__doc__).partition(f"\n\n{_EXAMPLES}")
        body = inspect.cleandoc(two.__doc__).partition("\n\n")[2].partition(_EXAMPLES)[0]
        absent = set(inspect.signature(two).parameters) - set(inspect.signature(form).parameters)
        body = _without(absent, _reworded(body, rank))
        form.__doc__ = f"{summary}\n\n{body}{_EXAMPLES}{examples}\n"
        return form

    return document
