# SPDX-License-Identifier: BSD-3-Clause
"""What an argument is, in the words of an error."""

from __future__ import annotations

import reprlib
from typing import Any


def said(value: Any) -> str:
    """What an argument is, in a few words: arrays by their shape, anything long without its middle."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, (str, bytes, int, float, complex, type(None))):
        text = repr(value)
    elif hasattr(value, "shape") and hasattr(value, "dtype") and getattr(value, "ndim", 0) != 0:
        return f"an array of shape {tuple(value.shape)} and dtype {value.dtype}"
    elif callable(value) and hasattr(value, "__name__"):
        return f"the {'class' if isinstance(value, type) else type(value).__name__} {value.__name__}"
    elif type(value).__module__.startswith("fastconv."):
        return f"a {type(value).__name__}"
    else:
        text = reprlib.repr(value)
    return text if len(text) <= 80 else f"{text[:50]}...{text[-20:]}"
