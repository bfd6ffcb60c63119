"""Importing the library changes nothing."""

from __future__ import annotations

from tests.unit.checkpoints.scripts import run


def test_importing_leaves_logging_signals_and_warnings_as_they_are():
    script = """
import atexit, importlib, logging, pathlib, signal, sys, threading, warnings

def facts():
    handlers = [signal.getsignal(number) for number in sorted(signal.valid_signals())]
    return [
        list(logging.root.handlers), logging.root.level, handlers, list(warnings.filters),
        atexit._ncallbacks(), threading.active_count(), "gevent" in sys.modules,
    ]

import msgspec                                  # what others do is theirs
before = facts()
for file in sorted(pathlib.Path("checkpoints").glob("*.py")):
    importlib.import_module(f"checkpoints.{file.stem}".removesuffix(".__init__"))
assert facts() == before, (before, facts())
print("fine")
"""
    assert run(script) == "fine\n"
