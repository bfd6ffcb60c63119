"""The records of rebuilds outlive the daemon; a damaged file is never taken for an empty one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from checkpoints import IntegrityError, StoreWriteError, TailKey
from daemon.rebuilds.record import FORMAT, Definition, Rebuild, Rebuilds, RebuildState, parse_key
from pillows.transports.common.builds import Exchange
from tests.support.dict_replica import DictReplica

KEY = TailKey("cases", "couch/cases")
RECORD = Rebuild(
    state=RebuildState.SWITCHING,
    live=1,
    other=2,
    last=2,
    live_definition=Definition("a", ("code",)),
    before=RebuildState.READY,
    steps=("search",),
)


def test_a_record_is_there_after_reopening(tmp_path: Path) -> None:
    rebuilds = Rebuilds(tmp_path / "rebuilds.json")
    assert rebuilds.get(KEY) is None
    rebuilds.put(KEY, RECORD)
    again = Rebuilds(tmp_path / "rebuilds.json")
    assert again.all == {KEY: RECORD}
    assert again.get(KEY) == RECORD


@pytest.mark.parametrize("content", ["", "{", '{"format": 1}', '{"format": 99, "rebuilds": {}}'])
def test_a_file_that_is_not_understood_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rebuilds.json"
    path.write_text(content)
    with pytest.raises(IntegrityError, match="Remedy"):
        Rebuilds(path)
    assert FORMAT == 1


def test_a_record_names_the_other_tail_and_the_exchange() -> None:
    assert RECORD.name_other(KEY) == TailKey("cases~2", "couch/cases")
    exchange = RECORD.make_exchange(KEY)
    assert exchange == Exchange(key=KEY, outgoing=1, incoming=2)
    assert (exchange.shadow.pillow, exchange.parked.pillow) == ("cases~2", "cases~1")
    assert parse_key("cases~2@couch/a@b") == TailKey("cases~2", "couch/a@b")


def test_records_follow_a_replica(tmp_path: Path) -> None:
    replica = DictReplica()
    key, other = TailKey("cases", "couch/cases"), TailKey("forms", "couch/forms")
    record = Rebuild(state=RebuildState.READY, live=1, other=2, last=2)
    first = Rebuilds(tmp_path / "one.json")
    first.put(key, record)
    first.attach(replica)
    first.put(other, msgspec.structs.replace(record, live=3, steps=("a",)))
    second = Rebuilds(tmp_path / "two.json")
    second.put(TailKey("foreign", "couch/x"), record)
    second.attach(replica)
    for each in (second, Rebuilds(tmp_path / "two.json")):
        assert dict(each.all) == dict(first.all)
    replica.fails = True
    with pytest.raises(StoreWriteError):
        second.put(key, msgspec.structs.replace(record, live=9))
    assert second.get(key) == record
