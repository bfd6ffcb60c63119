"""What an identity check asks, rejects and reports, without a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from pillows.errors import RecreatedError
from pillows.feed.base import DatabaseIdentity
from pillows.feed.identity_check import PURGED_GROUP, IdentityCheck
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
        self.calls: list[str] = []

    def identify(self) -> DatabaseIdentity:
        self.calls.append("identify")
        return self.found

    def info(self, server_uuid: str | None) -> DatabaseIdentity:
        self.calls.append(f"info {server_uuid}")
        return self.found

    def is_marked(self) -> bool:
        return self.marked

    def list_purged_ids(self) -> list[str] | None:
        return self.purged

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
    source = Source(identity(purge_seq="2-x"), purged=ids)
    check, batches, events = make_check(source, identity(purge_seq="1-x"))
    check.check()
    (batch,) = batches
    assert [change.id for change in batch.changes] == ids[:-1]
    assert {(change.leaf_version, change.deleted) for change in batch.changes} == {(0, True)}
    assert (batch.seq, batch.purge_seq) == (None, "2-x")
    assert source.calls == ["identify", f"versions {PURGED_GROUP}", "versions 1"]
    assert events == [f"source.purged {{'documents': {PURGED_GROUP}}}"]
    check.check()
    assert len(batches) == 1, "reported once"


def test_a_server_that_does_not_list_purges_leaves_them_to_verify():
    check, batches, events = make_check(Source(identity(purge_seq="2-x")), identity(purge_seq="1-x"))
    check.check()
    assert [list(batch.changes) for batch in batches] == [[]]
    assert events == ["source.purged {'remedy': '`pillowd verify --repair`'}"]
