"""What user code raises: confined to its document or its pillow, and described without its words."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from pillows.errors import PermanentError
from pillows.feed.couch_feed import CouchFeed
from pillows.models import Batch, Change, WriteResult
from pillows.pillow import Pillow
from pillows.runtime.status import State
from pillows.stages.filters import Filter, KeepAll, PythonFilter
from pillows.stages.transforms import Chain, ChunkedTransform, PassThrough, PythonTransform, Transform
from pillows.user_code import UserCodeExit, confine, describe_error
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.recorder import Recorder
from tests.support.tails import plan

SECRET = "078-05-1120"


class Unspeakable(ValueError):
    """An exception that has no text."""

    def __str__(self) -> str:
        raise SystemExit(SECRET)


RAISED: list[BaseException] = [
    SystemExit(SECRET),
    KeyboardInterrupt(SECRET),
    gevent.GreenletExit(SECRET),
    gevent.Timeout(1),
    asyncio.CancelledError(SECRET),
    GeneratorExit(SECRET),
    BaseException(SECRET),
    ValueError(SECRET),
    Unspeakable(),
    RecursionError(SECRET),
]


def spoil(error: BaseException) -> Callable[[Any], Any]:
    """A function that raises for the document `bad`."""

    def rows(doc: Any) -> Any:
        id = doc.id if isinstance(doc, Change) else doc["_id"]
        if id == "bad":
            raise error
        return {"_id": id}

    return rows


def _filtered(error: BaseException, *, needs_document: bool) -> tuple[Filter, Transform]:
    return PythonFilter(spoil(error), needs_document=needs_document), PassThrough(("cases",))


def _chunked(error: BaseException) -> ChunkedTransform:
    rows = spoil(error)
    return ChunkedTransform(lambda docs: [rows(doc) for doc in docs], ("cases",), chunk=10)


PLACES: dict[str, Callable[[BaseException], tuple[Filter, Transform]]] = {
    "filter": lambda error: _filtered(error, needs_document=True),
    "filter without document": lambda error: _filtered(error, needs_document=False),
    "transform": lambda error: (KeepAll(), PythonTransform(spoil(error), ("cases",))),
    "step": lambda error: (KeepAll(), Chain([spoil(error), dict], ("cases",))),
    "chunk": lambda error: (KeepAll(), _chunked(error)),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_b7_whatever_user_code_raises_is_a_dead_letter_with_file_and_line(
    tmp_path: Path, running: Any, place: str, error: BaseException
) -> None:
    seen = Recorder()
    target = MemoryTransport()
    feed = ListFeed([batch(1, change("a"), change("bad"), change("z"), caught_up=True)])
    filter, transform = PLACES[place](error)
    pillow = Pillow(name="cases", outputs=("cases",), filter=filter, transform=transform)
    run = running(plan(tmp_path, feed, target, pillow=pillow, observer=seen))
    run.until(lambda: seen.of("dead_letter") and {"a", "z"} <= target.target["rows"].keys())
    (failed,) = seen.of("dead_letter")
    line = spoil.__code__.co_firstlineno + 6
    assert failed["id"] == "bad"
    assert failed["error"] == f"{type(error).__name__} ({__file__}:{line}, in rows)"
    run.finish()


@pytest.mark.parametrize("error", RAISED[:3], ids=lambda error: type(error).__name__)
def test_b7_whatever_the_retry_of_a_dead_letter_raises_is_a_dead_letter(
    tmp_path: Path, running: Any, error: BaseException
) -> None:
    seen = Recorder()
    feed = ListFeed([batch(1, change("bad"), caught_up=True)])
    filter, transform = PLACES["transform"](error)
    pillow = Pillow(name="cases", outputs=("cases",), filter=filter, transform=transform)
    run = running(plan(tmp_path, feed, MemoryTransport(), pillow=pillow, observer=seen))
    run.until(lambda: seen.of("dead_letter"))
    run.settings.dead_letters.retry(KEY, [("-", "bad")])
    run.until(lambda: len(seen.of("dead_letter")) == 2, seconds=20)
    assert run.tail.status().state is State.LIVE
    run.finish()


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_b7_a_prefilter_that_raises_wants_the_document(error: BaseException) -> None:
    feed = CouchFeed.__new__(CouchFeed)
    feed._prefilter = spoil(error)
    assert feed._wants(change("bad")) is True


@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_b7_a_transport_that_raises_crashes_its_tail(
    tmp_path: Path, running: Any, error: BaseException, targets: int
) -> None:
    class Own(MemoryTransport):
        def write(self, batch: Batch) -> WriteResult:
            raise error

    others = [MemoryTransport() for _ in range(targets - 1)]
    run = running(plan(tmp_path, ListFeed([batch(1, change("a"), caught_up=True)]), Own(), *others))
    run.greenlet.join(timeout=20)
    assert run.greenlet.ready()
    raised = run.greenlet.exception
    assert raised is error or (isinstance(raised, UserCodeExit) and raised.__cause__ is error)
    assert f"{type(error).__name__} ({__file__}:" in describe_error(raised)


def test_b7_a_kill_is_no_error_of_user_code() -> None:
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            gevent.sleep(60)
        except BaseException as error:  # noqa: BLE001
            try:
                confine(error)
            except BaseException as passed:  # noqa: BLE001
                caught.append(passed)

    greenlet = gevent.spawn(wait)
    gevent.sleep(0)
    greenlet.kill()
    assert isinstance(caught[0], gevent.GreenletExit)


def test_b7_an_interrupt_by_the_terminal_is_no_error_of_user_code() -> None:
    def wait() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            gevent.sleep(1)
        except BaseException as error:
            raise confine(error) from error

    # A shell starts what runs in the background with the signal ignored.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            wait()
    finally:
        signal.signal(signal.SIGINT, former)


def test_b8_a_description_quotes_an_exception_only_where_asked() -> None:
    def fail() -> None:
        raise ValueError(SECRET)

    with pytest.raises(ValueError, match=SECRET) as raised:
        fail()
    assert re.fullmatch(r"ValueError \(.*test_user_code.py:\d+, in fail\)", describe_error(raised.value))
    shown = describe_error(raised.value, with_text=True)
    assert re.fullmatch(rf"ValueError: {SECRET} \(.*, in fail\)", shown)


def test_b8_our_own_errors_keep_their_words() -> None:
    assert describe_error(PermanentError("The field 'n' has a text.")) == (
        "PermanentError: The field 'n' has a text."
    )


def test_b7_a_text_that_raises_is_described_all_the_same() -> None:
    assert (
        describe_error(Unspeakable(), with_text=True) == "Unspeakable: its text cannot be read: UserCodeExit"
    )


@pytest.mark.parametrize("place", PLACES)
def test_b8_the_text_of_an_exception_is_kept_where_configured(
    tmp_path: Path, running: Any, place: str
) -> None:
    seen = Recorder()
    filter, transform = PLACES[place](ValueError(SECRET))
    pillow = Pillow(name="cases", outputs=("cases",), filter=filter, transform=transform)
    feed = ListFeed([batch(1, change("bad"), caught_up=True)])
    run = running(plan(tmp_path, feed, MemoryTransport(), pillow=pillow, observer=seen, exception_text=True))
    run.until(lambda: seen.of("dead_letter"))
    assert seen.of("dead_letter")[0]["error"].startswith(f"ValueError: {SECRET} (")
