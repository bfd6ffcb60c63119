"""Steps that the suite's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest

from pillows.errors import RetryableError
from pillows.models import Batch, WriteResult
from pillows.transports.base import Transport
from tests.conformance.target import Target, at, document


@contextmanager
def opened(target: Target, *outputs: str, epoch: int = 1, claim: bool = True, **more: Any) -> Iterator[Any]:
    """An open transport, its `TargetState` at `.state`; claimed under `epoch` unless told not to."""
    transport: Any = target.transport(*outputs, **more)
    try:
        transport.state = transport.open()
        if claim:
            transport.acquire(at("0", epoch=epoch))
        yield transport
    finally:
        transport.close()


def rows(target: Target, output: str = "docs") -> dict[str, list[dict[str, Any]]]:
    """Returns the rows in the target, without the fields that CouchDB and pillowd add."""
    return {
        id: [{k: v for k, v in row.items() if k not in {"_id", "_rev", "_version"}} for row in its_rows]
        for id, its_rows in target.read(output).items()
    }


def assert_applied(result: WriteResult) -> None:
    """Every document was applied."""
    assert result == WriteResult()


def assert_not_final(transport: Transport, written: Batch) -> None:
    """The write says that it may succeed later, of the whole batch or of some documents."""
    try:
        result = transport.write(written)
    except RetryableError:
        return
    assert result.retry
    assert not result.dead


def write_until_answered(transport: Transport, written: Batch) -> WriteResult:
    """Writes as the pipeline does: again while the target is away or busy."""
    for _ in range(600):
        try:
            result = transport.write(written)
        except RetryableError:
            gevent.sleep(0.1)
            continue
        if not result.retry:
            return result
        gevent.sleep(0.1)
    raise AssertionError("the target never came back")


def only_transactional(target: Target) -> None:
    """Skips where the checkpoint is not saved with the rows."""
    if not target.transactional:
        pytest.skip("this target does not keep the checkpoint")


def pair(id: str, version: int, second: str) -> Any:
    """A document with a row in each of two outputs, both telling the version."""
    more: Any = {second: [{"n": version}]}
    return document(id, version, {"n": version}, **more)


def assert_whole(target: Target, ids: list[str], outputs: tuple[str, ...]) -> None:
    """Every document is whole in each output; where all outputs are one transaction, in step too."""
    stored = _at_one_moment(target, outputs)
    for id in ids:
        seen = [its_rows.get(id) for its_rows in stored]
        assert all(one in ([{"n": 1}], [{"n": 2}]) for one in seen), (id, seen)
        if target.transactional:
            assert seen[0] == seen[1], (id, seen)


def _at_one_moment(target: Target, outputs: tuple[str, ...]) -> list[dict[str, list[dict[str, Any]]]]:
    """Returns the rows of the outputs; reads again if a commit of the killed writer came between."""
    stored = [rows(target, output) for output in outputs]
    while (again := [rows(target, output) for output in outputs]) != stored:
        stored = again
    return stored
