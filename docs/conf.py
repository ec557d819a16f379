"""Sphinx's configuration; scripts/docs builds."""

import bridgetask

project = "bridgetask"
author = "the bridgetask maintainers"
release = version = bridgetask.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
nitpicky = False
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]
