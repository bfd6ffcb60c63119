"""pytest plugin of a worker: claims the tests file by file, and tells in a journal how each ends.

`PILLOWD_TEST_RUN` names the folder of the run, `PILLOWD_TEST_JOURNAL` the worker's file. A file of tests
belongs to the worker that creates its claim first. Without claims (`PILLOWD_TEST_CLAIMS=0`) the worker runs
all there is.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runner.rooms import sort_key

FOLDER = Path(os.environ["PILLOWD_TEST_RUN"])
JOURNAL = open(os.environ["PILLOWD_TEST_JOURNAL"], "a")  # noqa: SIM115 - as long as the process
CLAIMS = os.environ.get("PILLOWD_TEST_CLAIMS") != "0"
#: Names of tests, a line each, that are left out.
LEFT_OUT = os.environ.get("PILLOWD_TEST_LEFT_OUT")


def tell(event: str, **facts: Any) -> None:
    """Write one line into the journal."""
    JOURNAL.write(json.dumps({"event": event, **facts}) + "\n")
    JOURNAL.flush()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has passed before."""
    if LEFT_OUT is None:
        return
    names = set(Path(LEFT_OUT).read_text().splitlines())
    left_out = [item for item in items if item.nodeid in names]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.nodeid not in names]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tell how many tests there are."""
    tell("collected", tests=Counter(_file_of(item) for item in session.items))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run claimed tests; the next file is claimed before the last test of one, so that fixtures live on."""
    if not CLAIMS or session.testsfailed:
        return None
    items = _claimed(session.items)
    item = next(items, None)
    while item is not None:
        following = next(items, None)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
    return True


def _claimed(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(_file_of(item), []).append(item)
    for file in sorted(files, key=sort_key):
        try:
            (FOLDER / f"claim-{file.replace('/', '~')}").touch(exist_ok=False)
        except FileExistsError:
            continue
        yield from files[file]


def _file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Tell when a test begins and ends."""
    tell("began", test=item.nodeid)
    try:
        return (yield)
    finally:
        tell("ended", test=item.nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell how a phase of a test went."""
    text = ""
    if report.skipped:
        text = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else report.longreprtext
    elif report.failed:
        shown = [report.longreprtext, *(f"--- {name}\n{content}" for name, content in report.sections)]
        text = f"{'_' * 10} {report.nodeid} ({report.when}) {'_' * 10}\n" + "\n".join(shown) + "\n"
    tell("phase", test=report.nodeid, outcome=report.outcome, seconds=report.duration, text=text)
