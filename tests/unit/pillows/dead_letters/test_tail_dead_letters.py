"""What a tail's writer stores of a document that cannot be written."""

from __future__ import annotations

from pathlib import Path

from pillows.dead_letters.dead_letter import DeadLetter, ErrorOptions
from pillows.dead_letters.store import DeadLetters
from pillows.dead_letters.tail_dead_letters import TailDeadLetters
from tests.support.memory_transport import KEY
from tests.support.recorder import Recorder


def test_it_is_stored_with_the_limits_of_its_tail_and_reported(tmp_path: Path) -> None:
    store, seen = DeadLetters(tmp_path / "dead"), Recorder()
    dead = DeadLetter(
        tail=KEY, transport="memory", id="a", rev="1-x", leaf_version=1, stage="transport", error="no"
    )
    TailDeadLetters(
        tail=KEY, store=store, options=ErrorOptions(max_tries=1), config="digest", observer=seen
    ).add([dead])
    (stored,) = store.list(KEY)
    assert (stored.id, stored.error, stored.config, stored.aborted) == ("a", "no", "digest", True)
    assert [each["id"] for each in seen.of("dead_letter")] == ["a"]
    store.close()
