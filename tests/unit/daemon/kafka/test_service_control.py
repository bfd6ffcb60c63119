"""What becomes of a record in the topic `control`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest

from daemon.kafka import service_control as module
from daemon.kafka.service_control import ServiceControl
from pillows.kafka.options import KafkaConnection
from tests.support.waiting import wait_until

encode = msgspec.msgpack.encode


class Record:
    """A message of the topic."""

    def __init__(self, offset: int, key: bytes | None, value: bytes | None) -> None:
        self._offset, self._key, self._value = offset, key, value

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value


def pause(offset: int, name: str) -> Any:
    return Record(offset, encode(("pause", name)), encode(True))


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceControl]:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)
    unused: Any = None
    with closing(ServiceControl(KafkaConnection(servers=("a:1",)), "control", unused)) as control:
        yield control


def test_a_change_that_could_not_be_applied_is_applied_later(control: ServiceControl) -> None:
    """Else a daemon with a full disk would go on to write in a pillow that was paused on another one."""
    applied: list[frozenset[str]] = []

    def apply() -> None:
        applied.append(control.paused)
        if len(applied) == 1:
            raise OSError(28, "No space left on device")

    control.watch(apply)
    control._take(pause(0, "cases"))
    wait_until(lambda: len(applied) == 2)
    control._take(pause(1, "others"))
    wait_until(lambda: len(applied) == 3)
    assert applied == [{"cases"}, {"cases"}, {"cases", "others"}]


def test_what_changed_before_it_was_watched_is_applied_too(control: ServiceControl) -> None:
    applied: list[frozenset[str]] = []
    control._take(pause(0, "cases"))
    control.watch(lambda: applied.append(control.paused))
    wait_until(lambda: applied == [{"cases"}])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, None),
        (b"foreign", b"record"),
        (encode(()), encode(True)),
        (encode(("pause",)), encode(True)),
        (encode(("pause", "odd")), b"\xa1\xff"),
        (encode(("pause", "odd")), b"\x91" * 5000),
    ],
)
def test_a_foreign_record_is_left_out(
    control: ServiceControl, key: bytes | None, value: bytes | None
) -> None:
    foreign: Any = Record(0, key, value)
    control._take(foreign)
    control._take(pause(1, "cases"))
    assert control.paused == {"cases"}
    assert control.has_pauses
