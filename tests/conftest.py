# SPDX-License-Identifier: BSD-3-Clause
"""Before anything of fastconv is imported."""

import os

# Machines that run tests are shared. OpenMP's threads wait for each other by spinning unless told otherwise, and where
# their cores are also wanted by others, a call of microseconds then takes many milliseconds.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# What somebody tuned on this machine is not what the tests are about.
os.environ["FASTCONV_TUNE"] = "off"
