# SPDX-License-Identifier: BSD-3-Clause
"""The site made of these pages and of the docstrings: ``sphinx-build --fail-on-warning docs build/docs``."""

import fastconv

project = "fastconv"
copyright = "fastconv developers, BSD-3-Clause"
release = version = fastconv.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # CONTRIBUTING.md and its like are no pages of the site

autodoc_member_order = "bysource"
numpydoc_show_class_members = False
html_theme = "alabaster"
html_theme_options = {"description": "Convolutional networks on the CPU", "page_width": "1100px"}
