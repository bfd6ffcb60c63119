from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
import structlog
from structlog.testing import capture_logs

from checkpoints import Checkpoint, Seq, TailKey
from daemon.logs.observer import LogObserver
from daemon.logs.setup import Logs, configure_logging
from pillows.observer import Observer, Rewind
from pillows.redaction import Redactor
from tests.support.clock import FakeClock

PILLOW = TailKey("cases", "couch/cases")


class Sink:
    """A log at level info, and what was written to it."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.clock = FakeClock(auto=False)
        self.logs: Logs

    @property
    def events(self) -> list[dict[str, Any]]:
        assert self.logs.drain()
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    with configure_logging(
        format="json", level="info", stream=sink.stream, clock=sink.clock, redactor=Redactor(["hunter2"])
    ) as sink.logs:
        yield sink


def test_an_event_is_one_json_line_with_level_and_time(sink: Sink) -> None:
    structlog.get_logger().info("daemon.started", pillows=3)

    (event,) = sink.events
    assert event.pop("time").endswith("Z")
    assert event == {"event": "daemon.started", "level": "info", "pillows": 3}


def test_debug_is_left_out_at_level_info(sink: Sink) -> None:
    structlog.get_logger().debug("batch.written")
    assert sink.events == []


def test_no_secret_is_written(sink: Sink) -> None:
    structlog.get_logger().error("x", url="http://u:p@h/", password="a", reason="got hunter2")
    assert {"url": "http://***@h/", "password": "***", "reason": "got ***"}.items() <= sink.events[0].items()


def test_i4_event_names_and_pillows_are_never_masked() -> None:
    stream = io.StringIO()
    with configure_logging(
        format="json",
        level="info",
        stream=stream,
        clock=FakeClock(auto=False),
        redactor=Redactor(["hunter2"], is_foreign=True),
    ) as logs:
        structlog.get_logger().info("hunter2.state", pillow="hunter2", error="got hunter2")
        assert logs.drain()
    event = json.loads(stream.getvalue())
    assert (event["event"], event["pillow"], event["error"]) == ("hunter2.state", "hunter2", "got ***")


def test_a_repeated_error_is_written_once_in_ten_seconds_with_its_count(sink: Sink) -> None:
    observer = LogObserver()
    for attempt in range(1, 6):
        observer.retry(PILLOW, where="search", error="503", attempt=attempt, delay_seconds=1)
        sink.clock.advance(1)
    observer.retry(TailKey("other", "couch/other"), where="search", error="503", attempt=1, delay_seconds=1)
    assert [(e["pillow"][:5], e.get("repeated")) for e in sink.events] == [("cases", None), ("other", None)]

    sink.clock.advance(5)
    sink.logs.flush()
    sink.logs.flush()
    assert len(sink.events) == 3
    assert {"pillow": str(PILLOW), "attempt": 5, "repeated": 4}.items() <= sink.events[2].items()


def test_a_burst_that_goes_on_carries_the_count_with_its_next_line(sink: Sink) -> None:
    for _ in range(3):
        LogObserver().dead_letter(PILLOW, transport="search", id="a", stage="write", error="mapping")
    sink.clock.advance(10)
    LogObserver().dead_letter(PILLOW, transport="search", id="b", stage="write", error="mapping")

    assert [(e["id"], e.get("repeated")) for e in sink.events] == [("a", None), ("b", 2)]


def test_facts_are_never_held_back(sink: Sink) -> None:
    for state in ("starting", "catching-up", "live"):
        LogObserver().state(PILLOW, state=state, reason="")
    assert [event["state"] for event in sink.events] == ["starting", "catching-up", "live"]


def test_warnings_of_libraries_are_routed_through_and_their_chatter_is_not(sink: Sink) -> None:
    logging.getLogger("urllib3").info("chatter")
    logging.getLogger("elastic_transport.transport").warning("node %s is away at http://u:p@h/", "n1")

    (event,) = sink.events
    assert (event["event"], event["logger"]) == ("library.warning", "elastic_transport.transport")
    assert event["message"] == "node n1 is away at http://***@h/"


def test_b8_an_error_that_ends_a_greenlet_is_an_event_without_its_text(
    sink: Sink, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(document: str) -> None:
        raise ZeroDivisionError(document)

    gevent.spawn(fails, "078-05-1120").join()
    (event,) = sink.events
    assert event["event"] == "greenlet.failed"
    assert re.fullmatch(r"ZeroDivisionError \(.*test_setup.py:\d+, in fails\)", event["error"])
    assert event["greenlet"].endswith("fails")
    assert "in fails" in event["stack"]
    assert "078-05-1120" not in str(event)
    assert capsys.readouterr().err == ""


def test_the_set_up_is_undone() -> None:
    before = list(logging.getLogger().handlers)
    with configure_logging(
        format="console", level="info", stream=io.StringIO(), clock=FakeClock(auto=False), redactor=Redactor()
    ):
        assert logging.getLogger().handlers != before
    assert logging.getLogger().handlers == before
    assert not structlog.is_configured()


def test_console_lines_are_for_people() -> None:
    stream = io.StringIO()
    with configure_logging(
        format="console", level="info", stream=stream, clock=FakeClock(auto=False), redactor=Redactor()
    ):
        LogObserver().state(PILLOW, state="live", reason="")
    assert "pillow.state" in stream.getvalue()
    assert "pillow=cases@couch/cases" in stream.getvalue()
    assert "\x1b" not in stream.getvalue(), "no colours where nobody looks"


HOOKS: dict[str, tuple[dict[str, Any], str, str]] = {
    "change": ({"count": 3, "kept": 1, "filtered": 2}, "changes.taken", "debug"),
    "batch": ({"documents": 2, "refused": 0, "dead": 0, "seconds": 0.1}, "batch.written", "debug"),
    "retry": ({"where": "search", "error": "503", "attempt": 1, "delay_seconds": 1.0}, "retry", "warning"),
    "rewind": ({"kind": Rewind.REPEATED, "reason": "pending jumped"}, "source.rewound", "warning"),
    "verified": ({"differences": {"search": {"missing": 1}}}, "pillow.verified", "warning"),
    "removed": ({}, "pillow.removed", "info"),
    "dead_letter": (
        {"transport": "search", "id": "a", "stage": "write", "error": "mapping"},
        "dead_letter.added",
        "warning",
    ),
    "checkpoint": (
        {"checkpoint": Checkpoint(seq=Seq.of("7-x")), "seconds": 0.01},
        "checkpoint.saved",
        "debug",
    ),
    "state": ({"state": "failed", "reason": "401"}, "pillow.state", "error"),
    "workers": ({"count": 2}, "workers.running", "debug"),
    "worker_ended": ({"pid": 7, "cause": "hung", "how": "it hung"}, "worker.ended", "warning"),
    "notice": ({"event": "tail.resumed", "details": {"seq": "7-x"}}, "tail.resumed", "info"),
    "warning": (
        {"event": "transform.slow", "details": {"id": "a"}},
        "transform.slow",
        "warning",
    ),
}


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_is_one_event_with_the_pillow_bound(hook: str) -> None:
    arguments, name, level = HOOKS[hook]
    with capture_logs() as logs:
        getattr(LogObserver(), hook)(PILLOW, **arguments)

    (event,) = logs
    assert (event["event"], event["log_level"], event["pillow"]) == (name, level, str(PILLOW))


#: Hooks that are called for every batch and carry figures for metrics only.
MEASURING_HOOKS = {"stage", "queue", "in_flight", "write", "acknowledged"}


def test_every_hook_of_an_observer_is_written_but_for_figures() -> None:
    hooks = {name for name, value in vars(Observer).items() if callable(value) and not name.startswith("_")}
    assert hooks == set(HOOKS) | MEASURING_HOOKS
