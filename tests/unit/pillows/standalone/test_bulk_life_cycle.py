"""BulkPusher: each call returns or raises, whatever becomes of the target, the pusher and the process."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import gevent
import pytest
from gevent.event import Event

from pillows import BulkOptions, BulkPusher
from pillows.standalone.bulk_couch import _replace_rev
from pillows.standalone.bulk_models import BulkDocument
from pillows.standalone.bulk_pusher import PusherClosed
from tests.support.program import run_python
from tests.unit.pillows.standalone.bulk_life_cycle import live


def waiting_for(go: Event) -> Callable[[Sequence[BulkDocument]], None]:
    def write(_documents: Sequence[BulkDocument]) -> None:
        go.wait(60)

    return write


def test_e1_each_call_returns_or_raises_in_a_patched_program() -> None:
    live()


def test_e1_each_call_returns_or_raises_in_an_ordinary_program() -> None:
    run_python("-m", "tests.unit.pillows.standalone.bulk_life_cycle")


@pytest.mark.parametrize("name", ["flush", "finish"])
def test_e1_what_was_closed_too_early_is_not_taken_for_written(name: str) -> None:
    go = Event()
    pusher = BulkPusher(waiting_for(go), BulkOptions(threshold=1))
    pusher.push({"_id": "a"})
    pusher.close()
    with gevent.Timeout(10), pytest.raises(PusherClosed):
        getattr(pusher, name)()
    assert pusher.counts.ok == 0


def test_e1_finish_after_an_error_in_the_block_says_that_it_is_closed() -> None:
    go, pusher = Event(), None

    def produce() -> None:
        nonlocal pusher
        with BulkPusher(waiting_for(go), BulkOptions(threshold=1)) as pusher:
            pusher.push({"_id": "a"})
            raise KeyError("mine")

    with pytest.raises(KeyError):
        produce()
    assert pusher is not None
    with gevent.Timeout(10), pytest.raises(PusherClosed):
        pusher.finish()


def test_e1_a_producer_that_waits_is_told_that_it_was_closed() -> None:
    go = Event()
    pusher = BulkPusher(waiting_for(go), BulkOptions(threshold=1, jobsbuffersizemax=0))

    def produce() -> None:
        for number in range(10):
            pusher.push({"_id": str(number)})

    producer = gevent.spawn(produce)
    gevent.sleep(0.01)
    assert not producer.dead
    pusher.close()
    with pytest.raises(PusherClosed):
        producer.get(timeout=10)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (gevent.Timeout(5), RuntimeError),
        (gevent.GreenletExit(), RuntimeError),
        (asyncio.CancelledError(), RuntimeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=lambda each: type(each).__name__,
)
def test_e1_whatever_a_target_raises_reaches_the_caller(raised: BaseException, expected: Any) -> None:
    def fail(_: object) -> None:
        raise raised

    pusher = BulkPusher(fail, BulkOptions(threshold=1))
    pusher.push({"_id": "a"})
    for call in (pusher.flush, lambda: pusher.push({"_id": "b"}), pusher.finish):
        with (
            gevent.Timeout(10),
            pytest.raises(expected),
        ):
            call()
    assert pusher.counts.ok == 0


FORK = """
import os, sys
if sys.argv[1] == "patched":
    from gevent import monkey
    monkey.patch_all()
import threading
from gevent.monkey import get_original
from pillows import BulkOptions, BulkPusher
from pillows.standalone.bulk_pusher import PusherClosed

went, written = threading.Event(), []
def write(documents):
    went.wait(60)
    written.extend((os.getpid(), document.id) for document in documents)

pusher = BulkPusher(write, BulkOptions(threshold=1))
for name in "abc":
    pusher.push({"_id": name})
child = os.fork()
if not child:
    code = 1
    try:
        for call in (lambda: pusher.push({"_id": "d"}), pusher.flush, pusher.finish):
            try:
                call()
            except PusherClosed as error:
                assert "was forked" in str(error), error
            else:
                raise AssertionError(call)
        went.set()
        threading.Event().wait(0.1)
        pusher.close()
        assert not written, written
        code = 0
    finally:
        os._exit(code)
assert get_original("os", "waitpid")(child, 0)[1] == 0  # gevent's may miss the end of a child
went.set()
assert pusher.finish().ok == 3
assert written == [(os.getpid(), name) for name in "abc"], written
"""


@pytest.mark.parametrize("mode", ["patched", "ordinary"])
def test_e1_a_forked_child_writes_nothing_and_is_told_so(mode: str) -> None:
    run_python("-c", FORK, mode)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (math.nan, r"a\.b\[1\] is nan \(float\)"),
        (-math.inf, r"a\.b\[1\] is -inf \(float\)"),
        (Decimal("NaN"), r"a\.b\[1\] is NaN \(Decimal\)"),
        ({1}, r"a\.b\[1\] is of type set"),
        (b"x", r"a\.b\[1\] is of type bytes"),
        ({None: 1}, r"a\.b\[1\] has the name None \(NoneType\)"),
        ("\ud800", r"a\.b\[1\] is text with a lone surrogate"),
        ({"\ud800": 1}, r"a\.b\[1\] has the name '\\ud800'"),
    ],
    ids=repr,
)
def test_a4_what_json_cannot_hold_is_refused_with_path_and_type(value: Any, told: str) -> None:
    written: list[BulkDocument] = []
    with BulkPusher(written.extend) as pusher:
        with pytest.raises(ValueError, match=told):
            pusher.push({"_id": "x", "a": {"b": [0, value]}})
        pusher.push({"_id": "y"})
    assert [document.id for document in written] == ["y"]


def test_a4_numbers_keep_their_digits() -> None:
    digits = "0.10000000000000000555111512312578270211815834045410156251"
    document = BulkDocument.of({"_id": "x", "n": Decimal(digits), "big": 2**80, "t": (1, True, None)})
    expected = f'"n":{digits},"big":{2**80},"t":[1,true,null]'
    assert document.body.decode() == f'{{"_id":"x",{expected}}}'
    assert _replace_rev(document, "1-a").body.decode() == f'{{"_id":"x",{expected},"_rev":"1-a"}}'
    assert _replace_rev(_replace_rev(document, "1-a"), "").body == document.body


@pytest.mark.parametrize("body", [b'{"_id":"x","a":"\xff"}', b'{"_id":"x","a":NaN}', b"[]", b"{} {}"])
def test_a4_bytes_are_refused_unless_they_are_a_json_object(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"utf-8|malformed|Expected|trailing"):
        BulkDocument.of(body)
