# SPDX-License-Identifier: BSD-3-Clause
"""Which program this process runs, for whoever has to know before the command line can be imported."""

from __future__ import annotations

import os
import sys


def started_this_process() -> bool:
    """Whether this process is ``fastconv`` or ``python -m fastconv``."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # while the module is looked for
        given = " ".join(sys.orig_argv[1:]) + " "
        return "-m fastconv " in given or "-mfastconv " in given
    return os.path.splitext(os.path.basename(program))[0] == "fastconv"
