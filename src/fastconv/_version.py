# SPDX-License-Identifier: BSD-3-Clause
"""The version, said once: pyproject.toml, the package and the C core all read it here."""

__version__ = "0.1.0"
