from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import gevent
from msgspec.structs import replace

from checkpoints import Checkpoint, Seq, TailKey
from pillows.databases.shared_transport import DatabaseTransport, SharedTransport, compare_checkpoints
from pillows.delivery.batcher import BatchOptions
from pillows.errors import FatalError, RetryableError, StoppedError
from pillows.models import Batch, DocumentRows, WriteResult
from pillows.options import Options, OutputOptions
from pillows.transports.base import KeyedTransport, TargetState

PILLOW = TailKey("users", "couch/user-*")


class Recording(KeyedTransport):
    """Keeps what is written, and answers as it is told."""

    Connection = Options
    Output = OutputOptions
    transactional = True
    shareable = True

    def __init__(self) -> None:
        super().__init__("target", PILLOW, None, {"docs": OutputOptions()})
        self.batches: list[Batch] = []
        self.acquired: list[int] = []
        self.answer: WriteResult | Exception = WriteResult()
        self.swept: list[tuple[str, int, set[str]]] = []
        self.remembered: dict[TailKey, TargetState] = {}

    def open(self) -> TargetState:
        return TargetState()

    def acquire(self, checkpoint: Checkpoint) -> None:
        self.acquired.append(checkpoint.epoch)

    def write(self, batch: Batch) -> WriteResult:
        gevent.sleep(0)  # others gather meanwhile
        if isinstance(self.answer, Exception):
            raise self.answer
        self.batches.append(batch)
        return self.answer

    def finish_pass(self, epoch: int, kept: Collection[str] = ()) -> int:
        return 0

    def list_checkpoints(self) -> Iterable[tuple[TailKey, TargetState]]:
        return self.remembered.items()

    def sweep_database(self, database: str, epoch: int, kept: Collection[str] = ()) -> int:
        self.swept.append((database, epoch, set(kept)))
        return 3

    def close(self) -> None:
        pass


def tail(name: str) -> TailKey:
    return TailKey("users", f"couch/{name}")


def batch(*ids: str, epoch: int = 1, changes: int = 1) -> Batch:
    documents = [DocumentRows(id=id, rev="1-a", leaf_version=1, rows={"docs": [{"n": 1}]}) for id in ids]
    checkpoint = Checkpoint(seq=Seq.of("1-a"), epoch=epoch, changes=changes)
    return Batch(documents=documents, epoch=epoch, checkpoint=checkpoint)


def shared_of(target: Recording, failures: list[Exception] | None = None, **bounds: Any) -> SharedTransport:
    on_failure = (failures if failures is not None else []).append
    return SharedTransport(target, BatchOptions(**bounds), Checkpoint(seq=Seq.BEGINNING), on_failure)


def write_all(shared: SharedTransport, batches: Mapping[str, Batch]) -> dict[str, WriteResult | Exception]:
    def write(name: str) -> WriteResult | Exception:
        try:
            return shared.write(tail(name), batches[name])
        except Exception as error:  # noqa: BLE001 - compared
            return error

    greenlets = {name: gevent.spawn(write, name) for name in batches}
    gevent.joinall(list(greenlets.values()), timeout=10)
    return {name: each.get(timeout=1) for name, each in greenlets.items()}


def test_batches_of_several_databases_are_one_call() -> None:
    target = Recording()
    shared = shared_of(target)
    write_all(shared, {name: batch("1", "2") for name in "abc"})
    shared.close()
    (written,) = target.batches
    assert [each.id for each in written.documents] == ["a:1", "a:2", "b:1", "b:2", "c:1", "c:2"]
    assert written.checkpoints.keys() == {tail("a"), tail("b"), tail("c")}
    assert written.checkpoint is None


def test_calls_stay_within_their_bounds_and_one_epoch() -> None:
    target = Recording()
    shared = shared_of(target, max_docs=4)
    write_all(shared, {"a": batch("1", "2"), "b": batch("1", "2"), "c": batch("1"), "d": batch("1", epoch=2)})
    shared.close()
    assert [len(each.documents) for each in target.batches] == [4, 1, 1]
    assert [each.epoch for each in target.batches] == [1, 1, 2]


def test_each_database_gets_its_own_part_of_the_result() -> None:
    target = Recording()
    target.answer = WriteResult(refused={"a:1": 7}, dead={"b:2": "no"})
    shared = shared_of(target)
    found = write_all(shared, {name: batch("1", "2") for name in "abc"})
    shared.close()
    assert found["a"] == WriteResult(refused={"1": 7})
    assert found["b"] == WriteResult(dead={"2": "no"})
    assert found["c"] == WriteResult()


def test_a_batch_keeps_back_only_the_checkpoints_of_databases_with_trouble() -> None:
    checkpoint = Checkpoint(seq=Seq.of("1-a"))
    whole = Batch(documents=(), epoch=1, checkpoints={tail(name): checkpoint for name in "abc"})
    assert whole.checkpoints_without(["a:1", "c:x:y"]).keys() == {tail("b")}


def test_a_target_that_is_away_fails_all_who_wait_and_not_the_pillow() -> None:
    target, failures = Recording(), list[Exception]()
    target.answer = RetryableError("away")
    shared = shared_of(target, failures)
    found = write_all(shared, {name: batch("1") for name in "ab"})
    shared.close()
    assert all(isinstance(each, RetryableError) for each in found.values())
    assert failures == []


def test_a_target_that_refuses_us_fails_the_pillow() -> None:
    target, failures = Recording(), list[Exception]()
    target.answer = FatalError("fenced")
    shared = shared_of(target, failures)
    found = write_all(shared, {"a": batch("1")})
    shared.close()
    assert failures == [found["a"]] == [target.answer]


def test_a_batch_that_was_given_up_is_not_written_later() -> None:
    target = Recording()
    shared = shared_of(target)
    with shared._lock:
        waiting = gevent.spawn(shared.write, tail("a"), batch("1"))
        gevent.sleep(0)
        waiting.kill()
    shared.close()
    assert target.batches == []


def test_who_waits_at_the_end_is_stopped() -> None:
    shared = shared_of(Recording())
    with shared._lock:
        waiting = gevent.spawn(write_all, shared, {"a": batch("1")})
        gevent.sleep(0.01)
        shared.close()
    assert isinstance(waiting.get(timeout=5)["a"], StoppedError)


def test_a_new_database_has_nothing_to_sweep() -> None:
    target = Recording()
    shared = shared_of(target)
    stored = Checkpoint(seq=Seq.of("1-a"))
    assert DatabaseTransport(shared, tail("a"), None, first_pass=True).finish_pass(2) == 0
    assert DatabaseTransport(shared, tail("b"), stored, first_pass=False).finish_pass(2, ["x"]) == 3
    shared.close()
    assert target.swept == [("b", 2, {"b:x"})]


def test_a_transactional_target_that_lost_a_database_says_so() -> None:
    shared = shared_of(Recording())
    stored = Checkpoint(seq=Seq.of("9-a"), changes=9, epoch=3)
    shared.lost.add("a")
    lost = DatabaseTransport(shared, tail("a"), stored, first_pass=False).open()
    shared.lost.clear()
    same = DatabaseTransport(shared, tail("a"), stored, first_pass=False).open()
    shared.ahead["a"] = TargetState(epoch=4, empty=False, checkpoint=stored)
    ahead = DatabaseTransport(shared, tail("a"), stored, first_pass=False).open()
    new = DatabaseTransport(shared, tail("b"), None, first_pass=True).open()
    shared.close()
    assert (lost.epoch, lost.empty) == (None, False)
    assert (same.epoch, same.checkpoint) == (3, stored)
    assert ahead.epoch == 4
    assert new == TargetState()


def test_target_and_state_directory_are_compared_at_the_start() -> None:
    target = Recording()
    stored = {tail(name): Checkpoint(seq=Seq.of("9-a"), changes=9) for name in ("same", "behind", "lost")}
    newer = replace(stored[tail("behind")], seq=Seq.of("12-a"), changes=12)
    unreadable = TargetState(epoch=1, empty=False, unreadable="no JSON")
    target.remembered = {
        tail("same"): TargetState(epoch=1, empty=False, checkpoint=stored[tail("same")]),
        tail("behind"): TargetState(epoch=1, empty=False, checkpoint=newer),
        tail("unreadable"): unreadable,
    }
    shared = shared_of(target)
    assert compare_checkpoints(shared, stored, stored.get) == target.remembered.keys()
    assert shared.ahead == {"behind": target.remembered[tail("behind")], "unreadable": unreadable}
    assert shared.lost == {"lost"}
    DatabaseTransport(shared, tail("behind"), stored[tail("behind")], first_pass=False).write(batch("1"))
    DatabaseTransport(shared, tail("lost"), stored[tail("lost")], first_pass=False).write(batch("1"))
    shared.close()
    assert shared.ahead.keys() == {"unreadable"}
    assert shared.lost == set()


def test_a_target_that_keeps_no_checkpoints_has_lost_none() -> None:
    target = Recording()
    target.transactional = False  # type: ignore[misc]
    shared = shared_of(target)
    assert compare_checkpoints(shared, {tail("a")}, lambda _: None) == set()
    shared.close()
    assert shared.lost == set()


def test_only_a_database_that_was_there_before_ends_its_pass_apart() -> None:
    shared = shared_of(Recording())
    assert not DatabaseTransport(shared, tail("a"), None, first_pass=True).needs_finish
    assert DatabaseTransport(shared, tail("a"), None, first_pass=False).needs_finish
    shared.close()
