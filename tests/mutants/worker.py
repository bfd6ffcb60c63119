"""Runs the tests of one module against its mutants, each in a process forked from this one.

    python -m tests.mutants.worker MODULE RESULT [MUTANT ...]

What is imported before the fork costs nothing afterwards: all libraries, and none of our modules, because the
changed one must be there before whatever imports it.
"""

from __future__ import annotations

import tests.patched  # noqa: F401  # isort: skip - before anything else, as in every test run

import ast
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import gevent.os
import pytest
from gevent import monkey

from tests.mutants.modules import ROOT, find_tests
from tests.mutants.operators import Mutant, make_mutants

LIBRARIES = (
    "click", "elasticsearch", "hypothesis.stateful", "ibm_cloud_sdk_core", "jmespath", "msgspec", "psycopg",
    "pydantic", "requests", "rich", "structlog", "yaml", "_pytest.assertion.rewrite",
)  # fmt: skip
#: A mutant hangs, and counts as noticed, after this many times what its tests take without a change.
TIMES = 3
SPARE_SECONDS = 10.0

_sleep = monkey.get_original("time", "sleep")
_waitpid = monkey.get_original("os", "waitpid")


class ChangedModule(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import one module from a changed syntax tree."""

    def __init__(self, path: str, tree: ast.Module) -> None:
        self.name = path.removesuffix(".py").replace("/", ".")
        self._path = ROOT / path
        self._tree = tree

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self._path, loader=self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._tree, str(self._path), "exec"), module.__dict__)


def run_tests(path: str, tree: ast.Module, limit_seconds: float) -> tuple[str, float]:
    """Run the tests with a changed module in a forked process.

    Returns:
        `survived`, `killed` or `timeout`, and how many seconds it took.
    """
    began = time.monotonic()
    child = gevent.os.fork()
    if not child:
        _run_in_child(path, tree)
    while True:
        pid, status = _waitpid(child, os.WNOHANG)
        seconds = time.monotonic() - began
        if pid or seconds > limit_seconds:
            break
        _sleep(0.01)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # with all that the tests have started
    if not pid:
        _waitpid(child, 0)
        return "timeout", seconds
    return ("survived" if status == 0 else "killed"), seconds


def _run_in_child(path: str, tree: ast.Module) -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(os.environ.get("MUTANTS_LOG", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    changed = ChangedModule(path, tree)
    assert changed.name not in sys.modules
    sys.meta_path.insert(0, changed)
    code = 1
    try:
        code = int(pytest.main([*ARGUMENTS, *find_tests(path)]))
    except BaseException:  # noqa: BLE001 - this process must not go on as its parent would
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


ARGUMENTS = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]


def main(path: str, result: str, wanted: list[str]) -> int:
    """Write each mutant's outcome as a line of JSON."""
    for name in LIBRARIES:
        importlib.import_module(name)
    os.environ["PILLOWD_TEST_DERANDOMIZE"] = "1"
    source = (ROOT / path).read_text()
    with open(result, "a") as lines:

        def tell(name: str, outcome: str, seconds: float, line: int = 0) -> None:
            print(json.dumps([name, outcome, round(seconds, 2), line]), file=lines, flush=True)

        outcome, seconds = run_tests(path, ast.parse(source), 1800.0)
        tell("", outcome, seconds)
        if outcome != "survived":
            return 1
        limit_seconds = TIMES * seconds + SPARE_SECONDS
        for mutant in _pick(source, wanted):
            tell(mutant.name, *run_tests(path, mutant.tree, limit_seconds), mutant.line)
    return 0


def _pick(source: str, wanted: list[str]) -> list[Mutant]:
    """Return the mutants whose digest is wanted."""
    return [mutant for mutant in make_mutants(source) if digest(mutant.name) in wanted]


def digest(name: str) -> str:
    """Return a short name of a mutant, for command lines."""
    return hashlib.sha256(name.encode()).hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_text().split()))
