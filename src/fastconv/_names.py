# SPDX-License-Identifier: BSD-3-Clause
"""What ``dir()`` and the tabulator show of a module."""

from collections.abc import Callable, Sequence


def only(names: Sequence[str]) -> Callable[[], list[str]]:
    """A ``__dir__`` that shows the public names of a module, and nothing that it imports."""
    return lambda: sorted(names)
