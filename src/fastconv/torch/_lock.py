# SPDX-License-Identifier: BSD-3-Clause
"""The lock of all that threads share here."""

from __future__ import annotations

import os
import threading

__all__ = ["LOCK"]

#: Held for a few dictionary operations at a time. Reentrant, since a finalizer may convolve while it is held.
LOCK = threading.RLock()

if hasattr(os, "register_at_fork"):
    # A child has the forking thread alone: what another held it would wait for without end. So nobody holds it at a
    # fork. A new lock for the child would not do: it might find what another thread had half changed.
    os.register_at_fork(before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=LOCK.release)
