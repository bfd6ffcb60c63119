"""The operator's calls on a real state directory, without a daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from checkpoints import PASS_TO_BEGIN, Checkpoint, IntegrityError, Seq, TailKey
from daemon import state_dir
from daemon.control.api import ControlApi
from daemon.control.audit import Actor
from daemon.control.paging import LIST_BYTES
from daemon.errors import RequestError
from daemon.http.contract import load_contract
from daemon.http.dispatch import carry_out
from daemon.state_dir import StateDir
from pillows.dead_letters.dead_letter import PIPELINE
from pillows.dead_letters.store import DeadLetter
from tests.support.clock import FakeClock

KEY = TailKey("cases", "couch/cases")
OLD = TailKey("old", "couch/old")


class Office:
    """The control API, and the state that it works on."""

    def __init__(self, folder: Path, state: StateDir, clock: FakeClock) -> None:
        self.folder = folder
        self.state = state
        self.clock = clock
        self.api = ControlApi(keys=[KEY], state=state, clock=clock, daemon=None)

    def save(self, seq: Any, **fields: Any) -> None:
        stored = self.state.store.get(KEY)
        edits = stored.edits if stored else 0
        self.state.store.save(
            KEY, Checkpoint(seq=Seq.of(seq), saved_at=self.clock.wall(), edits=edits, **fields)
        )

    def call(self, name: str, **arguments: Any) -> Any:
        """Calls an operation as a command on the files does."""
        by = Actor.this_process("cli")
        return carry_out(self.api, load_contract().operations[name], arguments, by).body

    def edit(self, **body: Any) -> Any:
        return self.call("edit_checkpoint", key="cases", body=body, if_match="*")

    def letters(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("list_dead_letters", key="cases")["dead_letters"]
        return found

    def letter_ids(self, transport: str) -> list[list[str]]:
        """All pages."""
        pages, after = [], ""
        while after is not None:
            page = self.call("list_dead_letter_ids", key="cases", transport=transport, after=after)
            pages.append(page["ids"])
            after = page["next"]
        return pages

    def reset(self) -> Any:
        return self.call("reset_checkpoint", key="cases", if_match="*")


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    clock = FakeClock(auto=False)
    with state_dir.open_state_dir(tmp_path / "state", clock) as state:
        yield Office(tmp_path, state, clock)


def test_the_state_directory_is_its_owner_s_alone(office: Office) -> None:
    assert (office.folder / "state").stat().st_mode & 0o777 == 0o700


def test_status_says_what_the_checkpoint_says(office: Office) -> None:
    office.save("7-x", changes=12, epoch=3, pass_epoch=3)
    office.clock.advance(5)
    status = office.call("list_pillows")

    assert status["running"] is False
    (pillow,) = status["pillows"]
    assert {"state": "stopped", "seq": "7-x", "changes": 12, "pass_number": 3}.items() <= pillow.items()
    assert pillow["checkpoint_age_seconds"] == 5


def test_pause_and_resume_are_remembered(office: Office) -> None:
    assert office.call("pause_pillow", key="cases")["state"] == "paused"
    assert office.call("list_pillows")["pillows"][0]["state"] == "paused"
    assert office.call("resume_pillow", key="cases")["state"] == "stopped"


def test_restart_needs_a_daemon(office: Office) -> None:
    with pytest.raises(RequestError, match="not running"):
        office.call("restart_pillow", key="cases")


def test_get_says_when_there_is_none(office: Office) -> None:
    with pytest.raises(RequestError, match="no checkpoint yet"):
        office.call("get_checkpoint", key="cases")


def test_a_set_gives_up_the_running_pass_so_that_nothing_is_swept(office: Office) -> None:
    """The pass does not rewrite the rows that a set skips; so its end must not remove them."""
    office.save("7-x", epoch=2, pass_epoch=2, first_pass=True)
    edited = office.edit(seq="9-y")

    assert {"seq": "9-y", "generation": 1, "pass_done": True, "first_pass": False}.items() <= edited.items()
    assert edited["before"] == "7-x"


def test_a_reset_asks_for_a_new_pass(office: Office) -> None:
    office.save("7-x", epoch=4)
    edited = office.reset()
    assert (edited["seq"], edited["epoch"], edited["pass_epoch"]) == (0, 4, PASS_TO_BEGIN)
    assert edited["generation"] == 1


def spoil(office: Office) -> None:
    office.save("7-x")
    office.state.store._journal.put({("checkpoint", KEY.pillow, KEY.source): {"of": "a newer pillowd"}})


def test_a_reset_works_over_a_checkpoint_that_cannot_be_read(office: Office) -> None:
    """The refusal names the reset as its remedy."""
    spoil(office)
    with pytest.raises(IntegrityError):
        office.call("get_checkpoint", key="cases")

    assert office.reset()["pass_epoch"] == PASS_TO_BEGIN
    assert office.call("get_checkpoint", key="cases")["seq"] == 0


@pytest.mark.parametrize("stored", ["nothing", "unreadable"])
def test_an_edit_over_a_lost_checkpoint_outranks_every_copy_in_a_target(office: Office, stored: str) -> None:
    """The target may remember any number of edits; with fewer, it would be taken for the newer one."""
    if stored == "unreadable":
        spoil(office)
    assert office.reset()["generation"] > 1_000_000


def test_a_status_shows_a_checkpoint_that_cannot_be_read(office: Office) -> None:
    spoil(office)
    (pillow,) = office.call("list_pillows")["pillows"]
    assert "cannot be read" in pillow["reason"]


def test_a_rewind_goes_to_the_newest_entry_that_is_old_enough(office: Office) -> None:
    for minutes in range(5):
        office.save(f"{minutes}-x")
        office.clock.advance(61)
    before = office.clock.wall() - 150
    assert office.edit(to=before)["seq"] == "2-x"
    assert office.edit(to="beginning")["seq"] == 0
    with pytest.raises(RequestError, match="is not that old"):
        office.edit(to=0.0)


def test_history_is_newest_first(office: Office) -> None:
    for minutes in range(3):
        office.save(f"{minutes}-x", changes=minutes)
        office.clock.advance(61)
    assert [entry["seq"] for entry in office.call("list_checkpoint_history", key="cases")["history"]] == [
        "2-x",
        "1-x",
        "0-x",
    ]


def test_an_export_comes_back_by_import(office: Office) -> None:
    office.save([7, "g1A"], epoch=3, changes=5)
    saved = office.call("get_checkpoint", key="cases")
    exported = {"format": 1, "key": saved.pop("key"), "checkpoint": saved}
    office.reset()
    imported = office.edit(exported=exported)

    assert imported["generation"] == office.state.store.get(KEY).edits > 1
    assert office.call("get_checkpoint", key="cases")["seq"] == [7, "g1A"]


@pytest.mark.parametrize(
    ("exported", "reason"),
    [
        ({}, "not an export of format 1"),
        ({"format": 2}, "not an export of format 1"),
        ({"format": 1, "key": "other@couch/other", "checkpoint": {}}, "not of cases@couch/cases"),
        ({"format": 1, "key": "cases@couch/cases", "checkpoint": {}}, "this checkpoint is incomplete"),
        (
            {"format": 1, "key": "cases@couch/cases", "checkpoint": {"seq": None}},
            "this checkpoint is incomplete",
        ),
        ({"format": 1, "key": "cases@couch/cases"}, "this checkpoint is incomplete"),
    ],
)
def test_what_is_no_export_of_this_tail_is_refused(
    office: Office, exported: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RequestError, match=reason):
        office.edit(exported=exported)
    assert office.state.store.get(KEY) is None


def test_a_pillow_that_is_configured_no_more_can_still_be_looked_at(office: Office) -> None:
    office.state.store.save(OLD, Checkpoint(seq=Seq.of(7)))
    assert office.call("get_checkpoint", key="old")["seq"] == 7


def letter(id: str) -> DeadLetter:
    return DeadLetter(
        tail=KEY, transport="t", id=id, rev="1-x", leaf_version=1, stage="transport", error="no"
    )


def test_dead_letters_are_discarded_by_document_or_all(office: Office) -> None:
    office.state.dead_letters.add([letter("a"), letter("b"), letter("c")])
    assert office.call("discard_dead_letters", key="cases", body={"ids": ["b"]})["discarded"] == 1
    assert {each["id"] for each in office.letters()} == {
        "a",
        "c",
    }
    with pytest.raises(RequestError, match="no dead letter for b"):
        office.call("discard_dead_letters", key="cases", body={"ids": ["a", "b"]})
    assert office.call("discard_dead_letters", key="cases", body={"all": True})["discarded"] == 2
    assert office.letters() == []


def test_dead_letters_are_listed_without_bodies(office: Office) -> None:
    office.state.dead_letters.add([letter("a")])
    (letter_,) = office.letters()
    assert {"id": "a", "error": "no", "stage": "transport", "failures": 1}.items() <= letter_.items()
    assert office.call("list_pillows")["pillows"][0]["dead_letters"] == 1


def test_a_dead_letter_is_shown_with_all_that_is_known(office: Office) -> None:
    office.state.dead_letters.add([letter("a"), letter("b")])
    (shown,) = office.call("list_dead_letters", key="cases", id=["b"])["dead_letters"]
    assert {"id": "b", "tries": 1, "aborted": False, "error": "no"}.items() <= shown.items()
    with pytest.raises(RequestError, match="no dead letter for nobody"):
        office.call("list_dead_letters", key="cases", id=["nobody"])["dead_letters"]


def listed(office: Office, size: int = LIST_BYTES) -> Iterator[list[dict[str, Any]]]:
    """All pages of the list, of `size` bytes at most."""
    after = ""
    while after is not None:
        page = office.call("list_dead_letters", key="cases", after=after)
        assert len(json.dumps(page["dead_letters"], separators=(",", ":"))) <= size
        yield page["dead_letters"]
        after = page["next"]


def test_more_dead_letters_than_fit_into_a_message_are_listed_page_by_page(office: Office) -> None:
    """Oldest first, each once, however long an id is when it is written in ASCII."""
    ids = [f"{number:04}-{'é' * 100}" for number in range(2000, 0, -1)]
    for begin in (0, 1000):
        office.state.dead_letters.add([letter(id) for id in ids[begin : begin + 1000]])
        office.clock.advance(1)
    pages = list(listed(office))
    assert len(pages) > 1
    assert [each["id"] for page in pages for each in page] == [*sorted(ids[:1000]), *sorted(ids[1000:])]


def test_a_list_goes_on_where_it_was_whatever_is_asked_and_written_meanwhile(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.control.paging.LIST_BYTES", 1000)
    office.state.dead_letters.add([letter(id) for id in "abcdefgh"])
    told = []
    for page in listed(office, 1000):
        told += [each["id"] for each in page]
        office.clock.advance(1)
        if len(told) < 6:
            assert sum(map(len, listed(office, 1000))) == 8
            office.state.dead_letters.discard(KEY, [("t", "a")])
            office.state.dead_letters.add([letter("a")])
    assert told == [*"abcdefgh", "a"]


def test_ids_of_dead_letters_are_told_page_by_page(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the ids of documents of which a transport's target may hold older versions."""
    monkeypatch.setattr("daemon.control.paging.LIST_BYTES", 12)
    office.state.dead_letters.add([*map(letter, "edcba"), replace(letter("other"), transport="u")])
    office.state.dead_letters.add([replace(letter("f"), transport=PIPELINE)])
    assert office.letter_ids("t") == [["a", "b", "c"], ["d", "e", "f"]]
    assert office.letter_ids("u") == [["f", "other"]]


def test_dead_letters_are_made_due_by_document_or_all(office: Office) -> None:
    """The tail finds them when it runs; nothing is read or written by the call itself."""
    office.state.dead_letters.add([letter("a"), letter("b")])
    assert office.call("retry_dead_letters", key="cases", body={"ids": ["a"]}) == {
        "key": str(KEY),
        "retried": 1,
    }
    assert [each.id for each in office.state.dead_letters.claim_due(KEY, at_most=9)] == ["a"]
    assert office.call("retry_dead_letters", key="cases", body={"all": True})["retried"] == 2
    assert len(office.letters()) == 2


def test_ids_that_are_longer_than_a_url_are_told_page_by_page(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.control.paging.LIST_BYTES", 30_000)
    ids = sorted(f"{'k' * 9000}{number}" for number in range(20))
    office.state.dead_letters.add(list(map(letter, ids)))
    assert sorted(id for page in office.letter_ids("t") for id in page) == ids
    assert len(office.letter_ids("t")) > 5
    assert sorted(each["id"] for page in listed(office, 30_000) for each in page) == ids
