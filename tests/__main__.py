"""Run all tests, or those of some folders, in worker processes side by side.

    python -m tests [FOLDER ...]
    python -m tests PYTEST ARGUMENTS

With other arguments than folders it is one ordinary run of pytest.

Workers are one more than cores: most tests wait for servers, not for the machine. They claim the tests file
by file, the longest first, and share one server of each kind. While they run, a line tells how far they
are; at the end come the failures and the slowest tests.

The machine is busy then. One or two tests that failed are run again when it is quiet. A test that passes
then is named as UNSTEADY and recorded in `build/unsteady.json`: a defect like any other, to be mended, but
it does not stop a change that has nothing to do with it. Tests that nothing is lost (`tests.runner.rooms`)
get no second look. A worker that does not end says where it hangs, and is ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.runner.journal import TestResult
from tests.runner.report import (
    Progress,
    collect_results,
    record_durations,
    record_unsteady,
    say,
    say_broken,
    say_skipped,
    say_slowest,
)
from tests.runner.rooms import is_run_again
from tests.runner.shared_servers import SharedServers
from tests.runner.worker import Worker

ALL = ["tests"]
WORKERS = max(2, os.cpu_count() or 1) + 1
#: Twice as long as all takes on two busy cores.
LIMIT_SECONDS = float(os.environ.get("PILLOWD_TEST_LIMIT_SECONDS") or 25 * 60)
PROGRESS_SECONDS = 15.0
#: More failures than these are no accident of a busy machine.
MOST_RUN_AGAIN = 2


def main(arguments: list[str]) -> int:
    """Return 0 if everything has passed."""
    if not all(Path(argument).is_dir() for argument in arguments):
        return subprocess.call([sys.executable, "-m", "pytest", "-q", *arguments])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # and so in good order
    with tempfile.TemporaryDirectory(prefix="pillowd-tests-") as folder, ExitStack() as stack:
        servers = stack.enter_context(SharedServers(Path(folder)))
        workers = [Worker(Path(folder), number, arguments or ALL) for number in range(WORKERS)]
        is_late = _run(workers, servers, stack)
        results = collect_results(workers)
        failed = [result for result in results.values() if result.outcome == "failed"]
        say_broken(workers)
        say("", *(result.text for result in failed))
        say_skipped(results)
        say_slowest(results)
        if not arguments and not is_late:
            record_durations(results)
        is_broken = is_late or any(worker.is_broken for worker in workers)
        say("", f"{len(results)} tests, {len(failed)} failed", *(f"FAILED: {each.name}" for each in failed))
        if is_broken or not failed:
            return int(is_broken)
        if len(failed) > MOST_RUN_AGAIN or not all(is_run_again(result.name) for result in failed):
            return 1
        return _run_again(Path(folder), failed, servers, stack)


def _run_again(folder: Path, failed: list[TestResult], servers: SharedServers, stack: ExitStack) -> int:
    """Run tests once more, now that the machine is quiet. Return 0 if all of them pass."""
    say("", "Once more, since the machine was busy:")
    names = [result.name for result in failed]
    worker = Worker(folder, WORKERS, names, environ={"PILLOWD_TEST_CLAIMS": "0"})
    _run([worker], servers, stack)
    again = worker.journal.results
    steady = [name for name in names if name not in again or again[name].outcome != "passed"]
    say(worker.read_output(), *(f"FAILED twice: {name}" for name in steady))
    unsteady = [result for result in failed if result.name not in steady]
    if unsteady:
        record_unsteady(unsteady)
    say(*(f"UNSTEADY, passed when it was run again: {result.name}" for result in unsteady))
    return int(bool(steady) or worker.is_broken)


def _run(workers: list[Worker], servers: SharedServers, stack: ExitStack) -> bool:
    """Run workers and tell how far they are. Return whether there was not enough time."""
    progress = Progress(workers)
    for worker in workers:
        stack.enter_context(worker)
    told_at, is_late = 0.0, False
    while any(worker.code is None for worker in workers):
        time.sleep(0.1)
        servers.start_wanted()
        for worker in workers:
            worker.journal.read()
        if progress.seconds > told_at + PROGRESS_SECONDS:
            told_at = progress.seconds
            say(progress.describe())
        if progress.seconds > LIMIT_SECONDS:
            is_late = True
            say(f"Not over after {LIMIT_SECONDS:.0f} s:", progress.describe())
            for worker in workers:
                if worker.code is None:
                    worker.hang_up()
    for worker in workers:
        worker.journal.read()
    return is_late


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
