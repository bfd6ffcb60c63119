"""Dead letters: bounded, tried again with growing pauses, left to the operator, cleared when written."""

from __future__ import annotations

import gevent
import pytest

from checkpoints import TailKey
from pillows.dead_letters.dead_letter import PIPELINE, DeadLetter, ErrorOptions, retry_delay_seconds
from pillows.dead_letters.store import DeadLetters
from pillows.errors import FatalError, PermanentError, RetryableError
from pillows.pillow import Pillow
from pillows.runtime.redelivery import GROUP_DOCUMENTS
from pillows.runtime.status import State
from pillows.stages.filters import KeepAll, PythonFilter
from pillows.stages.transforms import PythonTransform
from tests.support.clock import FakeClock
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.recorder import Recorder
from tests.support.tails import plan


def dead_letter(id="a", transport="t", version=1, **more):
    return DeadLetter(
        tail=KEY, transport=transport, id=id, rev=f"{version}-a", leaf_version=version, stage="transport",
        error="no", **more,
    )  # fmt: skip


@pytest.fixture
def clock():
    return FakeClock(auto=False)


@pytest.fixture
def dead_letters(tmp_path, clock):
    opened = DeadLetters(tmp_path / "letters", clock=clock)
    yield opened
    opened.close()


# --- the store


def test_a_letter_is_due_after_a_pause_that_doubles_and_given_up_after_max_tries(dead_letters, clock):
    policy = ErrorOptions(max_tries=3)
    for tries in (1, 2):
        dead_letters.add([dead_letter()], policy)
        assert dead_letters.claim_due(KEY, at_most=10) == []
        clock.advance(retry_delay_seconds(tries) + 1)
        (due,) = dead_letters.claim_due(KEY, at_most=10)
        assert (due.tries, due.aborted) == (tries, False)
        assert dead_letters.claim_due(KEY, at_most=10) == []  # it is being tried
    dead_letters.add([dead_letter()], policy)
    clock.advance(1e9)

    assert dead_letters.claim_due(KEY, at_most=10) == []
    (kept,) = dead_letters.list(KEY)
    assert (kept.aborted, kept.failures, kept.tries) == (True, 3, 3)
    assert (retry_delay_seconds(1), retry_delay_seconds(2), retry_delay_seconds(99)) == (60, 120, 3600)


def test_another_version_of_the_document_has_its_own_tries(dead_letters):
    policy = ErrorOptions(max_tries=1)
    dead_letters.add([dead_letter(version=1)], policy)
    assert dead_letters.list(KEY)[0].aborted
    dead_letters.add([dead_letter(version=2)], ErrorOptions(max_tries=2))
    (kept,) = dead_letters.list(KEY)
    assert (kept.aborted, kept.tries, kept.failures) == (False, 1, 2)


def test_letters_outlive_the_process_with_when_they_are_due(tmp_path, dead_letters, clock):
    dead_letters.add([dead_letter("soon"), dead_letter("given-up")], ErrorOptions(max_tries=2))
    dead_letters.add([dead_letter("given-up")], ErrorOptions(max_tries=2))
    dead_letters.close()
    again = DeadLetters(tmp_path / "letters", clock=clock)
    assert again.claim_due(KEY, at_most=10) == []
    clock.advance(61)
    assert [each.id for each in again.claim_due(KEY, at_most=10)] == ["soon"]
    again.close()


def test_full_means_stop_and_a_letter_that_is_there_needs_no_room(dead_letters):
    policy = ErrorOptions(max_dead_letters=2)
    dead_letters.add([dead_letter("a"), dead_letter("b")], policy)
    dead_letters.add([dead_letter("a")], policy)
    with pytest.raises(FatalError, match=r"2 at most.*dead-letter retry"):
        dead_letters.add([dead_letter("c")], policy)
    assert {each.id for each in dead_letters.list(KEY)} == {"a", "b"}


def test_the_bound_is_each_tails_own(dead_letters):
    dead_letters.add([dead_letter("a")], ErrorOptions(max_dead_letters=1))
    other = DeadLetter(
        tail=TailKey("x", "y/z"), transport="t", id="a", rev="1-a", leaf_version=1, stage="s", error="e"
    )
    dead_letters.add([other], ErrorOptions(max_dead_letters=1))
    assert dead_letters.count(TailKey("x", "y/z")) == 1


def test_an_operators_retry_makes_letters_due_at_once_and_forgets_their_tries(dead_letters):
    dead_letters.add([dead_letter("a"), dead_letter("b")], ErrorOptions(max_tries=1))
    assert dead_letters.retry(KEY, [("t", "a"), ("t", "nobody")]) == 1
    (due,) = dead_letters.claim_due(KEY, at_most=10)
    assert (due.id, due.tries) == ("a", 0)


def test_letters_that_could_not_be_tried_are_due_again_later(dead_letters, clock):
    dead_letters.add([dead_letter()])
    dead_letters.retry(KEY, [("t", "a")])
    due = dead_letters.claim_due(KEY, at_most=10)
    dead_letters.postpone(due, 30)
    assert dead_letters.claim_due(KEY, at_most=10) == []
    clock.advance(31)
    assert len(dead_letters.claim_due(KEY, at_most=10)) == 1


def test_a_try_that_was_cut_short_is_due_again_when_the_tail_runs_again(dead_letters):
    dead_letters.add(
        [dead_letter("a"), dead_letter("written"), dead_letter("given-up")], ErrorOptions(max_tries=1)
    )
    dead_letters.retry(KEY, [("t", "a"), ("t", "written")])
    assert len(dead_letters.claim_due(KEY, at_most=10)) == 2
    dead_letters.discard(KEY, [("t", "written")])
    dead_letters.unclaim(KEY)
    assert [each.id for each in dead_letters.claim_due(KEY, at_most=10)] == ["a"]


def test_a_letter_says_where_and_by_which_config_but_not_what_the_document_holds(dead_letters):
    dead_letters.add([dead_letter(seq="5-x")], config="abc")
    (kept,) = dead_letters.list(KEY)
    assert (kept.seq, kept.config) == ("5-x", "abc")
    assert not {"doc", "body", "rows"} & set(kept.__struct_fields__)


# --- in a tail


def test_a_document_is_tried_again_by_itself_until_it_is_written(tmp_path, running):
    target = MemoryTransport()
    target.poison = {"p"}
    seen = Recorder()
    feed = ListFeed([batch("1-a", change("p"), change("good"), caught_up=True)])
    made = plan(tmp_path, feed, target, clock=FakeClock(), observer=seen)
    letters = []

    def heal_after_the_third_time(_):  # here: the test itself may see it only after the fifth
        if len(seen.of("dead_letter")) == 3:
            letters.extend(made.dead_letters.list(KEY))
            target.poison = set()

    target.before_write = heal_after_the_third_time
    run = running(made)
    run.until(lambda: letters and not made.dead_letters.count(KEY))
    assert set(target.live()) == {"p", "good"}
    assert len(seen.of("dead_letter")) == 3
    assert [(each.failures, each.seq) for each in letters] == [(3, "")]


def test_after_max_tries_it_is_left_to_the_operator_whose_retry_takes_the_state_of_now(tmp_path, running):
    target = MemoryTransport()
    feed = ListFeed([batch("1-a", change("p", n=0), caught_up=True)])
    pillow = Pillow(
        name="cases",
        outputs=("cases",),
        filter=KeepAll(),
        transform=PythonTransform(lambda doc: {"n": 1 // doc["n"]}, ("cases",)),
    )
    seen = Recorder()
    made = plan(tmp_path, feed, target, clock=FakeClock(), observer=seen, pillow=pillow, max_tries=3)
    run = running(made)
    run.until(lambda: len(seen.of("dead_letter")) == 3)
    assert made.dead_letters.list(KEY)[0].aborted
    assert len(feed.looked_up) == 2

    # Mended in the source, as if the feed had not told of it yet.
    feed.queue = [batch("1-a", change("p", "2-b", n=1))]
    assert made.dead_letters.retry(KEY, [(PIPELINE, "p")]) == 1
    run.until(lambda: not made.dead_letters.count(KEY))
    assert target.live() == {"p": {"n": 1}}


@pytest.mark.parametrize("now", ["purged", "deleted", "left the set"])
def test_a_document_that_is_not_wanted_any_more_loses_its_letter(tmp_path, running, now):
    target = MemoryTransport()
    target.poison = {"p"}
    feed = ListFeed([batch("1-a", change("p", "3-a", keep=True), caught_up=True)])
    pillow = Pillow(
        name="cases",
        outputs=("cases",),
        filter=PythonFilter(lambda doc: doc.get("keep")),
        transform=PythonTransform(lambda doc: {"id": doc["_id"]}, ("cases",)),
    )
    made = plan(tmp_path, feed, target, clock=FakeClock(), pillow=pillow, max_tries=1)
    run = running(made)
    run.until(lambda: made.dead_letters.count(KEY))

    states = {
        "purged": [],
        "deleted": [change("p", "4-b", deleted=True)],
        "left the set": [change("p", "4-b", keep=False)],
    }
    feed.queue = [batch("1-a", *states[now])]
    target.poison = set()
    made.dead_letters.retry(KEY, [("memory", "p")])
    run.until(lambda: not made.dead_letters.count(KEY))
    assert target.live() == {}
    assert target.target["rows"]["p"][1] == {}


def test_a_document_that_went_back_clears_its_letter_too(tmp_path, running):
    target = MemoryTransport()
    target.poison = {"p"}
    feed = ListFeed([batch("1-a", change("p", "7-a"), caught_up=True)])
    made = plan(tmp_path, feed, target, clock=FakeClock(), max_tries=1)
    run = running(made)
    run.until(lambda: made.dead_letters.count(KEY))

    feed.queue = [batch("1-a", change("p", "2-z", n=2))]
    target.poison = set()
    made.dead_letters.retry(KEY, [("memory", "p")])
    run.until(lambda: not made.dead_letters.count(KEY))
    assert target.live()["p"]["n"] == 2


def test_what_has_left_and_keeps_its_rows_loses_its_letter(tmp_path, running):
    target = MemoryTransport()
    target.poison = {"p"}
    feed = ListFeed([batch("1-a", change("p"), caught_up=True)])
    pillow = Pillow(
        name="cases",
        outputs=("cases",),
        filter=KeepAll(),
        transform=PythonTransform(lambda doc: {}, ("cases",)),
        keep_deleted=True,
    )
    made = plan(tmp_path, feed, target, clock=FakeClock(), pillow=pillow)
    run = running(made)
    run.until(lambda: made.dead_letters.count(KEY))
    feed.queue = [batch("1-a", change("p", "2-b", deleted=True))]
    run.until(lambda: not made.dead_letters.count(KEY))


def test_a_source_that_is_away_is_no_try(tmp_path, running):
    class Away(ListFeed):
        failures = 20

        def current(self, ids):
            self.failures -= 1
            if self.failures > 0:
                raise RetryableError("away")
            return super().current(ids)

    target = MemoryTransport()
    target.poison = {"p"}
    feed = Away([batch("1-a", change("p"), caught_up=True)])
    made = plan(tmp_path, feed, target, clock=FakeClock(), max_tries=2)
    run = running(made)
    run.until(lambda: made.dead_letters.count(KEY) and made.dead_letters.list(KEY)[0].aborted)
    assert feed.failures == 0
    assert made.dead_letters.list(KEY)[0].tries == 2


def poisoned(tmp_path, running, feed, target, ids):
    """A tail with a dead letter for each of these documents, whose target takes them by now."""
    target.poison = set(ids)
    made = plan(tmp_path, feed, target, clock=FakeClock())
    run = running(made)
    run.until(lambda: made.dead_letters.count(KEY) == len(ids))
    target.poison = set()
    return made, run


def test_a_document_that_cannot_be_read_holds_up_no_other(tmp_path, running):
    class Unreadable(ListFeed):
        def current(self, ids):
            if "00" in ids:
                raise RetryableError("The document '00' cannot be read now.")
            return super().current(ids)

    target, ids = MemoryTransport(), [f"{n:02}" for n in range(20)]
    feed = Unreadable([batch("1-a", *map(change, ids), caught_up=True)])
    made, run = poisoned(tmp_path, running, feed, target, ids)
    run.until(lambda: made.dead_letters.count(KEY) == 1)

    assert set(target.live()) == set(ids[1:])
    assert (made.dead_letters.list(KEY)[0].id, made.dead_letters.list(KEY)[0].tries) == ("00", 1)


def test_a_target_that_is_down_never_fills_the_dead_letters(tmp_path, running):
    target = MemoryTransport()
    target.fail = [RetryableError("away")] * 500
    feed = ListFeed([batch("1-a", *(change(str(n)) for n in range(100)), caught_up=True)])
    made = plan(tmp_path, feed, target, clock=FakeClock(), max_dead_letters=1)
    run = running(made)
    run.until(lambda: len(target.live()) == 100)
    assert made.dead_letters.count(KEY) == 0
    run.until(lambda: run.tail.state is State.LIVE)


def test_more_dead_letters_than_are_kept_stop_the_pillow_and_nothing_is_passed_over(tmp_path, running):
    target = MemoryTransport()
    target.poison = {str(n) for n in range(20)}
    feed = ListFeed([batch("1-a", *(change(str(n)) for n in range(20)))])
    made = plan(tmp_path, feed, target, max_dead_letters=10)
    run = running(made)
    with pytest.raises(FatalError, match="10 at most"):
        run.greenlet.get(timeout=60)
    assert made.store.get(KEY).changes == 0


def test_failing_transforms_in_a_row_are_a_wrong_configuration_too(tmp_path, running):
    def transform(doc):
        raise KeyError("name")

    pillow = Pillow(
        name="cases",
        outputs=("cases",),
        filter=PythonFilter(lambda doc: doc["n"] % 2),
        transform=PythonTransform(transform, ("cases",)),
    )
    feed = ListFeed([batch("1-a", *(change(str(n), n=n) for n in range(40)))])
    run = running(plan(tmp_path, feed, MemoryTransport(), pillow=pillow, max_consecutive=20))
    with pytest.raises(FatalError, match="20 documents in a row"):
        run.greenlet.get(timeout=60)


def test_letters_are_tried_in_groups(tmp_path, running):
    bad = {str(n) for n in range(GROUP_DOCUMENTS + 50)}
    target = MemoryTransport()
    target.poison = set(bad)
    feed = ListFeed([batch("1-a", *(change(id) for id in sorted(bad)), caught_up=True)])
    made = plan(tmp_path, feed, target, clock=FakeClock(), max_tries=1)
    run = running(made)
    run.until(lambda: made.dead_letters.count(KEY) == len(bad))
    target.poison = set()
    made.dead_letters.retry(KEY, [("memory", id) for id in bad])
    run.until(lambda: not made.dead_letters.count(KEY))
    groups = [len(ids) for ids in feed.looked_up]
    assert (sum(groups), max(groups) <= GROUP_DOCUMENTS, len(groups) < 5) == (len(bad), True, True)


def test_an_older_state_from_a_lagging_copy_clears_no_letter(tmp_path, running):
    """Were it believed, the document's newest state would be in no target and in no dead letter."""

    class Lagging(ListFeed):
        lags = True

        def current(self, ids):
            found = super().current(ids)
            return [change("p", "4-old", n=4)] if self.lags else found

    target = MemoryTransport()
    target.poison = {"p"}
    feed = Lagging([batch("1-a", change("p", "5-new", n=5), caught_up=True)])
    feed.sums = {"p": 5}
    made = plan(tmp_path, feed, target, clock=FakeClock())
    run = running(made)
    run.until(lambda: made.dead_letters.count(KEY))
    target.poison = set()
    made.dead_letters.retry(KEY, [("memory", "p")])
    gevent.sleep(0.1)

    assert (made.dead_letters.count(KEY), target.live()) == (1, {})

    feed.lags = False
    run.until(lambda: not made.dead_letters.count(KEY))
    assert target.live()["p"]["n"] == 5


def test_documents_that_are_too_large_together_are_read_fewer_at_a_time(tmp_path, running):
    class Large(ListFeed):
        def current(self, ids):
            self.looked_up.append(list(ids))
            if len(ids) > 3:
                raise PermanentError("too large")
            return super().current(ids)

    target, ids = MemoryTransport(), [str(n) for n in range(20)]
    feed = Large([batch("1-a", *map(change, ids), caught_up=True)])
    made, run = poisoned(tmp_path, running, feed, target, ids)
    run.until(lambda: not made.dead_letters.count(KEY))

    assert set(target.live()) == set(ids)


def test_the_hub_turns_while_many_letters_are_listed_and_one_that_goes_meanwhile_is_left_out(dead_letters):
    dead_letters.add([dead_letter(f"d{n:04}") for n in range(1000)])
    gone = gevent.spawn(dead_letters.discard, KEY, [("t", "d0999")])
    listed = dead_letters.list(KEY)
    gone.get()
    assert [each.id for each in listed] == [f"d{n:04}" for n in range(999)]
