from __future__ import annotations

import pytest
from gevent.event import Event

from checkpoints import CheckpointMoved, TailKey
from pillows.databases.turns.turn import TurnEnd, TurnMonitor, classify
from pillows.errors import (
    AccessError,
    ConfigError,
    FatalError,
    InvalidSeqError,
    PurgesMissedError,
    RecreatedError,
    RetryableError,
    SourceMissingError,
    StoppedError,
)
from tests.support.clock import FakeClock


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (CheckpointMoved("edited"), TurnEnd.MORE),
        (StoppedError(), TurnEnd.MORE),
        (SourceMissingError("gone"), TurnEnd.MISSING),
        (RecreatedError("another"), TurnEnd.RECREATED),
        (PurgesMissedError("some"), TurnEnd.PURGED),
        (RetryableError("503"), TurnEnd.BACK_OFF),
        (AccessError("403"), TurnEnd.BACK_OFF),
        (ConfigError("no such filter"), TurnEnd.BACK_OFF),
        (InvalidSeqError("malformed"), TurnEnd.FAILED),
        (FatalError("too many"), TurnEnd.FAILED),
        (ValueError("a defect"), TurnEnd.BACK_OFF),
    ],
)
def test_errors_end_the_turn_of_one_database(error: Exception, end: TurnEnd) -> None:
    assert classify(error).end is end


def test_a_turn_ends_when_its_source_fails_and_waits_while_its_target_does() -> None:
    halt = Event()
    monitor = TurnMonitor(TailKey("users", "couch/a"), FakeClock(), halt)
    monitor.note_trouble("write", "target: away")
    assert not halt.is_set()
    monitor.note_trouble("read", "source: 503")
    assert halt.is_set()
    assert monitor.failure == "source: 503"
