"""Write the golden files again: `python -m tests.golden`."""

from __future__ import annotations

import tests.patched  # noqa: F401  # isort: skip - before anything else, as in every test run

from tests.golden.made import write_all

write_all()
