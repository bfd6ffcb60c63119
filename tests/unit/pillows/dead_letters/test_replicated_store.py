"""Dead letters with a second copy, which counts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from checkpoints import StoreWriteError, TailKey
from checkpoints.replica import Key
from pillows.dead_letters.dead_letter import DeadLetter
from pillows.dead_letters.store import DeadLetters
from tests.support.dict_replica import DictReplica, SlowReplica

KEY = TailKey("p", "couch/db")
OTHER = TailKey("p", "couch/other")


class HeldReplica(DictReplica):
    """Writes when the test lets it."""

    def __init__(self, entries: Mapping[Key, bytes]) -> None:
        super().__init__(entries)
        self.begun = Event()
        self.may_end = Event()

    def write(self, entries: Mapping[Key, bytes | None]) -> None:
        self.begun.set()
        self.may_end.wait()
        super().write(entries)


def dead_letter(id: str, error: str = "no", tail: TailKey = KEY) -> DeadLetter:
    return DeadLetter(
        tail=tail, transport="t", id=id, rev="1-a", leaf_version=1, stage="transport", error=error
    )


def ids(store: DeadLetters) -> list[str]:
    return sorted(each.id for each in store.list(KEY))


def test_an_empty_replica_is_filled_and_followed(tmp_path: Path) -> None:
    replica = DictReplica()
    with closing(DeadLetters(tmp_path / "one")) as store:
        store.add([dead_letter("before"), dead_letter("odd \0 \u2028 ü", error="\ud800")])
        store.attach(replica)
        store.add([dead_letter("after"), dead_letter("gone")])
        store.sync(KEY)
        store.discard(KEY, [("t", "gone")])
        store.retry(KEY, [("t", "before")])
    with closing(DeadLetters(tmp_path / "two")) as store:
        store.add([dead_letter("foreign")])
        store.attach(replica)
        assert ids(store) == ["after", "before", "odd \0 \u2028 ü"]
        (before,) = (each for each in store.list(KEY) if each.id == "before")
        assert (before.tries, before.error) == (0, "no")
        assert not store.unsynced(KEY)
        assert store.count(KEY) == 3
    with closing(DeadLetters(tmp_path / "two")) as store:
        assert ids(store) == ["after", "before", "odd \0 \u2028 ü"], "on its own disk, too"


def test_nothing_is_synced_before_the_replica_has_it(tmp_path: Path) -> None:
    replica = DictReplica({})
    with closing(DeadLetters(tmp_path)) as store:
        store.attach(replica)
        store.add([dead_letter("a")])
        replica.fails = True
        with pytest.raises(StoreWriteError):
            store.sync(KEY)
        assert store.unsynced(KEY), "so no checkpoint passes it"
        replica.fails = False
        store.sync(KEY)
        assert not store.unsynced(KEY)
        assert replica.entries is not None
        assert [key[2] for key in replica.entries] == ["a"]


def test_a_tail_whose_place_in_the_replica_fails_holds_up_no_other(tmp_path: Path) -> None:
    class HalfAwayReplica(DictReplica):
        def write(self, entries: Mapping[Key, bytes | None]) -> None:
            if any(tail == str(KEY) for tail, *_ in entries):
                raise StoreWriteError("its partition has no leader")
            super().write(entries)

    replica = HalfAwayReplica({})
    with closing(DeadLetters(tmp_path)) as store:
        store.attach(replica)
        store.add([dead_letter("a")])
        store.add([dead_letter("b", tail=OTHER)])
        with pytest.raises(StoreWriteError):
            store.sync(KEY)
        store.sync(OTHER)
        assert not store.unsynced(OTHER)
        assert store.unsynced(KEY)
        assert replica.entries is not None
        assert [key[2] for key in replica.entries] == ["b"]


def test_what_was_handed_over_is_never_without_a_copy(tmp_path: Path) -> None:
    replica = DictReplica({})
    with closing(DeadLetters(tmp_path)) as store:
        store.attach(replica)
        store.add([dead_letter("a")])
        store.sync(KEY)
        replica.fails = True
        with pytest.raises(StoreWriteError):
            store.hand_over(KEY, OTHER)
        assert replica.entries is not None
        assert [key[0] for key in replica.entries] == [str(KEY)]
        replica.fails = False
        store.sync(OTHER)
        store.sync(KEY)
        assert [key[0] for key in replica.entries] == [str(OTHER)]


def test_a_change_during_a_write_is_written_by_the_next_one(tmp_path: Path) -> None:
    replica = HeldReplica({})
    with closing(DeadLetters(tmp_path)) as store:
        store.attach(replica)
        store.add([dead_letter("a")])
        first = gevent.spawn(store.sync, KEY)
        assert replica.begun.wait(5)
        store.forget(KEY, "a")
        replica.may_end.set()
        first.get(timeout=5)
        assert store.unsynced(KEY)
        store.sync(KEY)
        assert not replica.entries


def test_a_write_that_fails_after_its_tail_moved_away_is_not_repeated(tmp_path: Path) -> None:
    """Else the former owner of a partition would clear what the next one has written."""

    replica = HeldReplica({})
    with closing(DeadLetters(tmp_path)) as store:
        store.replicate_to(replica)
        store.add([dead_letter("a")])
        replica.fails = True
        first = gevent.spawn(store.sync, KEY)
        assert replica.begun.wait(5)
        store.load(KEY, {})
        replica.may_end.set()
        with pytest.raises(StoreWriteError):
            first.get(timeout=5)
        replica.begun.clear()
        store.sync(KEY)
        assert not replica.begun.is_set()


def test_a_second_sync_waits_for_what_the_first_one_writes(tmp_path: Path) -> None:
    replica = SlowReplica({})
    with closing(DeadLetters(tmp_path)) as store:
        store.attach(replica)
        store.add([dead_letter("a")])
        first = gevent.spawn(store.sync, KEY)
        gevent.sleep(0)
        store.sync(KEY)
        assert replica.entries
        first.get(timeout=5)


def test_without_a_replica_nothing_is_remembered_for_one(tmp_path: Path) -> None:
    with closing(DeadLetters(tmp_path)) as store:
        store.add([dead_letter("a")])
        store.sync(KEY)
        assert not store._known[KEY].unreplicated
