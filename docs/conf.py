"""The documentation as a site: `python -m sphinx -n -W docs build/docs`, as scripts/check does. A dead link fails."""

project = "edgeproxy"
author = "the edgeproxy authors"
copyright = "the edgeproxy authors, Apache-2.0"
extensions = ["myst_parser"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "edgeproxy"
html_copy_source = False
html_show_sphinx = False
suppress_warnings = ["misc.highlighting_failure"]  # the configuration of gdnsd has no lexer
