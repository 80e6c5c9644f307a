# SPDX-License-Identifier: BSD-3-Clause
"""``python -m fastconv`` is ``fastconv``."""

import sys

from fastconv.cli import main

sys.exit(main())
