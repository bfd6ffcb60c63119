"""What an identity check asks, rejects and reports, without a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from pillows.errors import RecreatedError
from pillows.feed.base import DatabaseIdentity
from pillows.feed.identity_check import PURGED_GROUP, IdentityCheck
from pillows.feed.source_database import PurgeInfo
from pillows.models import ChangeBatch


class Source:
    """A database that says what a test sets."""

    def __init__(
        self, found: DatabaseIdentity, *, marked: bool = True, purged: list[str] | None = None
    ) -> None:
        self.options = SimpleNamespace(database="db", identity_token=True)
        self.found = found
        self.marked = marked
        self.purged = purged
        self.limit = 1000
        self.calls: list[str] = []

    def identify(self) -> DatabaseIdentity:
        self.calls.append("identify")
        return self.found

    def info(self, server_uuid: str | None) -> DatabaseIdentity:
        self.calls.append(f"info {server_uuid}")
        return self.found

    def is_marked(self) -> bool:
        return self.marked

    def list_purges(self) -> list[PurgeInfo] | None:
        return None if self.purged is None else [PurgeInfo(id, ("1-a",)) for id in self.purged]

    def read_purges_limit(self) -> int:
        self.calls.append("limit")
        return self.limit

    def read_versions(self, ids: Sequence[str]) -> Mapping[str, int]:
        self.calls.append(f"versions {len(ids)}")
        return {id: 3 for id in ids if id.startswith("live")}


def make_check(
    source: Any, known: DatabaseIdentity | None
) -> tuple[IdentityCheck, list[ChangeBatch], list[str]]:
    batches: list[ChangeBatch] = []
    events: list[str] = []
    check = IdentityCheck(
        source,
        source,
        known,
        put=batches.append,
        warn=lambda event, details: events.append(f"{event} {details}"),
    )
    return check, batches, events


def identity(start: str | None = "1700000000", uuid: str | None = "u", **fields: Any) -> DatabaseIdentity:
    return DatabaseIdentity(server_uuid=uuid, instance_start_time=start, **fields)


def test_the_server_is_asked_first_and_the_database_alone_from_then_on():
    source = Source(identity())
    check, batches, events = make_check(source, None)
    check.check()
    check.check()
    check.confirm()
    assert source.calls == ["identify", "info u", "info u"]
    assert (check.identity, batches, events) == (identity(), [], [])


@pytest.mark.parametrize(
    ("known", "found", "recreated"),
    [
        ("1", "1", False),
        ("1", "2", True),
        ("0", "2", False),
        ("1", "0", False),
        (None, "2", False),
        ("1", None, False),
    ],
)
def test_only_two_known_times_of_creation_contradict_each_other(known, found, recreated):
    check, _, _ = make_check(Source(identity(found)), identity(known))
    for ask in (check.check, check.confirm):
        if recreated:
            with pytest.raises(RecreatedError, match=f"created at {found}"):
                ask()
        else:
            ask()


@pytest.mark.parametrize(
    ("was_marked", "is_marked", "recreated"), [(True, False, True), (False, False, False)]
)
def test_a_marked_database_must_have_its_mark(was_marked, is_marked, recreated):
    check, _, _ = make_check(Source(identity("0"), marked=is_marked), identity("0", marked=was_marked))
    if not recreated:
        check.check()
        return
    with pytest.raises(RecreatedError, match="lacks the identity token"):
        check.check()


@pytest.mark.parametrize(
    ("before", "now", "warned"), [("u", "v", True), ("u", "u", False), (None, "v", False)]
)
def test_another_server_is_reported_and_no_reason_to_stop(before, now, warned):
    check, _, events = make_check(Source(identity(uuid=now)), identity(uuid=before))
    check.check()
    assert [event.split()[0] for event in events] == (["source.other_server"] if warned else [])


def test_purged_documents_are_deletions_unless_they_have_a_leaf_again():
    ids = [f"gone-{n}" for n in range(PURGED_GROUP)] + ["live-1"]
    source = Source(identity(purge_seq="102-x"), purged=ids)
    check, batches, events = make_check(source, identity(purge_seq="1-x"))
    check.check()
    (batch,) = batches
    assert [change.id for change in batch.changes] == ids[:-1]
    assert {(change.leaf_version, change.deleted) for change in batch.changes} == {(0, True)}
    assert (batch.seq, batch.purge_seq, batch.recreated, batch.purges_missed) == (None, "102-x", True, 0)
    assert source.calls == ["identify", "limit", f"versions {PURGED_GROUP}", "versions 1"]
    assert events == [f"source.purged {{'documents': {PURGED_GROUP}}}"]
    check.check()
    assert len(batches) == 1, "reported once"


def test_a3_a_server_that_does_not_list_purges_leaves_a_gap():
    check, batches, events = make_check(Source(identity(purge_seq="2-x")), identity(purge_seq="1-x"))
    check.check()
    (batch,) = batches
    assert (list(batch.changes), batch.purges_missed, batch.recreated) == ([], 1, True)
    assert events == ["source.purges_missed {'purges': 1, 'listed': 0}"]


@pytest.mark.parametrize(
    ("before", "now", "listed", "limit", "missed"),
    [
        (0, 1600, 1600, 1000, 0),  # nothing was dropped
        (0, 1600, 1000, 1000, 1600),
        (600, 1600, 1000, 1000, 0),  # every shard keeps the last 1,000
        (500, 1600, 2000, 1000, 0),  # two shards, nothing dropped
        (3400, 5000, 2000, 1000, 1600),  # two shards: one may have had all of them
        (4999, 5000, 1000, 1000, 0),
        (4000, 5000, 10, 1000, 1000),  # the limit was raised after they were dropped
        (1600, 0, 0, 1000, 0),  # an older state of the database: nothing is known of purges
    ],
)
def test_a3_a_gap_is_noticed_whichever_shard_dropped_the_purges(before, now, listed, limit, missed):
    source = Source(identity(purge_seq=f"{now}-x"), purged=[f"gone-{n}" for n in range(listed)])
    source.limit = limit
    check, batches, _ = make_check(source, identity(purge_seq=f"{before}-y"))
    check.check()
    assert batches[0].purges_missed == missed


def test_a8_only_purges_since_the_last_look_are_looked_at():
    """Of each round all that are still listed were looked at; one that exists again raised the epoch."""
    source = Source(identity(purge_seq="3-x"), purged=["gone-1", "gone-2", "live-1"])
    check, batches, _ = make_check(source, identity(purge_seq="0-x"))
    check.check()
    assert batches[-1].recreated
    source.found, source.purged = identity(purge_seq="4-x"), ["gone-3", "gone-1", "gone-2", "live-1"]
    check.check()
    assert ([change.id for change in batches[-1].changes], batches[-1].recreated) == (["gone-3"], False)
    source.found, source.purged = identity(purge_seq="6-x"), [*source.purged, "live-1", "gone-4"]
    check.check()
    assert ([change.id for change in batches[-1].changes], batches[-1].recreated) == (["gone-4"], True)


def test_a8_if_the_new_purges_cannot_be_told_all_are_looked_at():
    source = Source(identity(purge_seq="2-x"), purged=["gone-1", "live-1"])
    check, batches, _ = make_check(source, identity(purge_seq="0-x"))
    check.check()
    source.found, source.purged = identity(purge_seq="9-x"), ["gone-1", "live-1", "gone-2"]
    check.check()
    assert ([change.id for change in batches[-1].changes], batches[-1].recreated) == (
        ["gone-1", "gone-2"],
        True,
    )
