"""Libraries are imported without what they do not need here, and a user's functions can still import that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[4]


def run(code: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", dedent(code)], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize(
    ("name", "library", "without"),
    [("import_requests", "requests", "charset_normalizer"), ("import_structlog", "structlog", "rich")],
)
def test_a_library_is_imported_alone_and_a_user_may_import_the_rest(name, library, without):
    run(f"""
        import sys
        from daemon.process.lean_imports import {name}
        {name}()
        assert "{library}" in sys.modules and "{without}" not in sys.modules
        import {without}
    """)


def test_a_text_of_unknown_encoding_is_taken_as_utf8():
    run("""
        from daemon.process.lean_imports import import_requests
        import_requests()
        from requests import Response
        answer = Response()
        answer._content = "Grüße".encode()
        assert answer.encoding is None and answer.text == "Grüße"
    """)


def test_a_worker_imports_nothing_of_the_daemons_own_work():
    """Each worker would take 11 MB more."""
    run("""
        import sys
        from daemon.process.lean_imports import import_requests
        import_requests()
        import daemon.workers.serving
        unwanted = {"structlog", "rich", "charset_normalizer", "daemon.assembly.services", "daemon.backfill"}
        assert not unwanted & set(sys.modules), unwanted & set(sys.modules)
    """)
