"""How Sphinx builds the site: `make docs`. Pages are Markdown; warnings are errors."""

from __future__ import annotations

from importlib.metadata import version as version_of

project = "pillowd"
release = version = version_of("pillowd")
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["conf.py", "generate.py", "log_events.py", "screenshots.py"]
myst_heading_anchors = 3
smartquotes = False  # `--once` must stay as it is typed
nitpicky = True
html_theme = "furo"
html_title = "pillowd"
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
