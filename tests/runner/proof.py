"""The tests at full size, part by part: `make proof`, or `make proof PART=chaos`.

Each part takes at most 40 minutes on two quiet cores. `build/proof/PART.json` holds the commit and the
outcome of each test, and is written while the part runs. What has passed at the same commit is not run
again, so that a proof that was interrupted or killed goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.runner.report import read_commit, say, say_skipped, write_json
from tests.runner.shared_servers import SharedServers
from tests.runner.worker import Worker

FOLDER = Path("build/proof")
LIMIT_SECONDS = 40 * 60.0
PROGRESS_SECONDS = 60.0
SAVE_SECONDS = 5.0

#: Part -> its files and folders; together they are all tests.
PARTS: dict[str, tuple[str, ...]] = {
    "unit": ("tests/unit", "tests/tooling", "tests/golden", "tests/fuzz"),
    "integration": ("tests/integration",),
    "acceptance-a": ("tests/acceptance/test_[a-m]*.py",),
    "acceptance-b": ("tests/acceptance/test_[n-z]*.py",),
    "chaos-run": ("tests/chaos/test_chaos.py::test_nothing_is_lost_phantom_stale_corrupted_or_resurrected",),
    "chaos-without-bugs": ("tests/chaos/test_chaos.py::test_without_a_planted_bug_the_same_is_green",),
    "chaos-bugs": ("tests/chaos/test_chaos.py::test_a_planted_bug_is_noticed",),
    "chaos-parts": ("tests/chaos/test_[!c]*.py",),
}


def main() -> int:
    """Return 0 if every chosen part has passed."""
    parser = argparse.ArgumentParser(prog="make proof")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all by default")
    given = parser.parse_args()
    verdicts = {part: run_part(part) for part in given.parts or PARTS}
    say("", *(f"{part}: {'passed' if passed else 'NOT PASSED'}" for part, passed in verdicts.items()))
    return int(not all(verdicts.values()))


def run_part(part: str) -> bool:
    """Run what of a part has not passed at this commit. Return whether all of it has passed now."""
    commit = read_commit()
    result = load_result(part, commit)
    if result["passed"]:
        say(f"{part}: passed before at {commit}")
        return True
    tests: dict[str, dict[str, Any]] = result["tests"]
    done = [name for name, test in tests.items() if test["outcome"] != "failed"]
    say(f"{part}: {len(done)} tests have passed before")
    with tempfile.TemporaryDirectory(prefix="pillowd-proof-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "left-out").write_text("\n".join(done))
        environ = {
            "PILLOWD_PROOF": "1",
            "PILLOWD_TEST_CLAIMS": "0",
            "PILLOWD_TEST_LEFT_OUT": str(folder / "left-out"),
        }
        arguments = ("-q", "-s", "--timeout", "3600")
        servers = stack.enter_context(SharedServers(folder))
        worker = Worker(folder, 0, find_paths(part), environ=environ, arguments=arguments)
        is_over = _run(worker, servers, stack, result)
        total = sum(worker.journal.tests.values()) + len(done)
        result |= {
            "passed": is_over and worker.code in (0, 5) and len(tests) == total,
            "exit_code": worker.code,
        }
        _save(result)
        say(worker.read_output())
        say_skipped(worker.journal.results)
    return bool(result["passed"])


def find_paths(part: str) -> list[str]:
    """Return the files, folders and tests of a part.

    Raises:
        FileNotFoundError: nothing is there that one of its patterns fits; pytest would run other tests then.
    """
    paths: list[str] = []
    for pattern in PARTS[part]:
        path, colons, test = pattern.partition("::")
        found = sorted(Path().glob(path))
        if not found:
            raise FileNotFoundError(f"nothing fits {pattern!r} of the part {part}")
        paths += [f"{each}{colons}{test}" for each in found]
    return paths


def load_result(part: str, commit: str) -> dict[str, Any]:
    """Return what an earlier run at the same commit has found; nothing of a working copy that was changed."""
    try:
        result: dict[str, Any] = json.loads((FOLDER / f"{part}.json").read_bytes())
    except FileNotFoundError:
        result = {}
    if result.get("commit") == commit and not commit.endswith("-dirty"):
        return result
    return {
        "part": part,
        "commit": commit,
        "passed": False,
        "seconds": 0.0,
        "cores": os.cpu_count(),
        "tests": {},
    }


def _run(worker: Worker, servers: SharedServers, stack: ExitStack, result: dict[str, Any]) -> bool:
    """Run a worker, and keep what it has found so far. Return whether it came to its end."""
    before, began = result["seconds"], time.monotonic()
    saved_at = told_at = began
    stack.enter_context(worker)
    while True:
        is_over = worker.code is not None
        servers.start_wanted()
        worker.journal.read()
        now = time.monotonic()
        if is_over or now - saved_at > SAVE_SECONDS:
            saved_at = now
            result["tests"] |= _outcomes(worker)
            result["seconds"] = round(before + now - began, 1)
            _save(result)
        if is_over:
            return True
        if now - told_at > PROGRESS_SECONDS:
            told_at = now
            done, total = len(worker.journal.results), sum(worker.journal.tests.values())
            say(f"{(now - began) / 60:.0f} min  {done}/{total} tests, now {worker.journal.running}")
        if now - began > LIMIT_SECONDS:
            say(f"Not over after {LIMIT_SECONDS / 60:.0f} min; run it again to go on.")
            worker.hang_up()
            return False
        time.sleep(0.2)


def _save(result: dict[str, Any]) -> None:
    """Replace the file of a part, so that whoever is killed meanwhile leaves the old one."""
    path = FOLDER / f"{result['part']}.json"
    half = path.with_suffix(".half")
    write_json(half, result)
    half.rename(path)


def _outcomes(worker: Worker) -> dict[str, dict[str, Any]]:
    return {
        name: {"outcome": result.outcome, "seconds": round(result.seconds, 2), "text": result.text}
        for name, result in worker.journal.results.items()
    }


if __name__ == "__main__":
    sys.exit(main())
