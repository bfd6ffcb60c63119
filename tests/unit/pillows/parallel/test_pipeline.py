"""The loop with workers that a test controls: order, stop, retries, and what happens without workers."""

from __future__ import annotations

from random import Random
from typing import Any

import gevent
import msgspec
import pytest
from gevent.event import Event
from msgspec.structs import replace

from pillows.clock import SystemClock
from pillows.dead_letters.dead_letter import DeadLetter
from pillows.errors import AccessError, FatalError, PermanentError, RetryableError, StoppedError
from pillows.models import Document, DocumentRows
from pillows.parallel import pipeline
from pillows.parallel.chunk_work import ChunkWork
from pillows.parallel.pipeline import ParallelPipeline
from pillows.parallel.pool import Done, Failed, Lost
from pillows.parallel.process import Cause, Ending
from pillows.parallel.protocol import to_payload
from pillows.parallel.worker import Channel
from pillows.pillow import Pillow, Pipeline
from pillows.progress.watermark import Watermark
from pillows.retry.cancellable import StopAwareWaiter
from pillows.retry.retrier import Retrier
from pillows.stages.filters import JmespathFilter, KeepAll
from pillows.stages.transforms import PythonTransform
from tests.support.list_feed import batch, change
from tests.support.memory_transport import KEY
from tests.support.recorder import Recorder
from tests.support.waiting import let_others_run, wait_until


class Source:
    """Has every document that a change lacks, with `n` 1."""

    def load(self, changes):
        return [each if each.raw is not None else change(each.id, n=1) for each in changes]

    def fetch(self, unread):
        raw = change(unread.id, n=1).raw
        return Document(
            id=unread.id, rev=unread.rev, leaf_version=unread.leaf_version, deleted=False, raw=raw
        )

    def attachment(self, *_):
        raise AssertionError

    def close(self):
        pass


class NoStream:
    def sendall(self, data):
        pass

    def recv_into(self, buffer):
        return 0


class Pool:
    """Workers whose results a test gives, task by task."""

    def __init__(self, size, events, work) -> None:
        self.size, self.events, self.work = size, events, work
        self.tasks: dict[int, msgspec.Raw] = {}
        self.begun: set[int] = set()
        self.closed = False

    @property
    def needs_tasks(self) -> bool:
        return len(self.tasks) < self.size

    def start(self) -> None:
        self.events.resized()

    def submit(self, number, payload, *, first=False) -> None:
        assert not self.closed
        self.tasks[number] = payload

    def cancel_waiting(self):
        gone = [number for number in self.tasks if number not in self.begun]
        for number in gone:
            del self.tasks[number]
        return gone

    def close(self, seconds) -> None:
        self.closed, self.size = True, 0
        self.events.resized()

    def do(self, number=None) -> None:
        number = min(self.tasks) if number is None else number
        self.events.finished(number, Done(to_payload(self.work.run(self.tasks.pop(number)))))

    def fail(self, error) -> None:
        number = min(self.tasks)
        del self.tasks[number]
        self.events.finished(number, Failed(error))

    def die(self, cause) -> None:
        number = min(self.tasks)
        del self.tasks[number]
        self.events.finished(number, Lost(Ending(cause, "SIGSEGV")))


class Pushed:
    """A pusher that keeps what it gets."""

    def __init__(self) -> None:
        self.items = []
        self.error = None
        self.gate = Event()
        self.gate.set()

    def expect(self, *, more):
        pass

    def push(self, item, size_bytes):
        self.gate.wait()
        if self.error is not None:
            raise self.error
        self.items.append(item)
        return False

    @property
    def ids(self):
        return [outcome.id for _, outcome in self.items if outcome is not None]


class World:
    """A loop with two workers from the first change on."""

    def __init__(
        self, monkeypatch, *, workers=2, isolate=False, far_behind=-1, filter=None, transform=None
    ) -> None:
        monkeypatch.setattr(pipeline, "FAR_BEHIND", far_behind)
        self.pusher, self.recorder, self.stop = Pushed(), Recorder(), Event()
        pillow = Pillow(
            name="cases",
            outputs=("cases",),
            filter=filter or KeepAll(),
            transform=PythonTransform(transform or (lambda doc: {"id": doc["_id"]}), ("cases",)),
        )
        self.here = Pipeline(
            pillow,
            trigger=pillow.trigger(Source().fetch, Source().attachment),
            pusher=self.pusher,
            watermark=Watermark(),
            observer=self.recorder,
            tail=KEY,
            clock=SystemClock(),
        )
        self.work = ChunkWork(
            pillow,
            tail=KEY,
            source=Source(),
            channel=Channel(NoStream()),
            clock=SystemClock(),
            as_json=True,
            with_text=False,
        )
        self.pools: list[Pool] = []
        self.troubles: list[str] = []
        self.sizes: list[int] = []
        waiter = StopAwareWaiter(SystemClock(), self.stop)
        self.loop = ParallelPipeline(
            self.here,
            workers=workers,
            isolate=isolate,
            make_pool=self.make_pool,
            retrier=Retrier(KEY, waiter, self.recorder, lambda _, reason: self.troubles.append(reason)),
            on_error=self.stop.set,
            on_size=self.sizes.append,
        )
        self.running: Any = None

    def make_pool(self, size, events):
        self.pools.append(Pool(size, events, self.work))
        return self.pools[-1]

    @property
    def pool(self) -> Pool:
        wait_until(lambda: self.pools)
        return self.pools[-1]

    def carry(self, *batches, before=None):
        def feed():
            for number, each in enumerate(batches):
                if self.stop.is_set():
                    return
                if before and number in before:
                    before[number]()
                yield each
            self.stop.wait(60)

        self.running = gevent.spawn(self.loop.carry, feed(), lambda _: None)

    def until_tasks(self, count=1):
        wait_until(lambda: len(self.pool.tasks) >= count, worker=self.running)

    def end(self):
        self.stop.set()
        self.running.get(timeout=30)


@pytest.fixture
def make_world(monkeypatch):
    made = []

    def make(**more):
        made.append(World(monkeypatch, **more))
        return made[-1]

    yield make
    for each in made:
        if each.running is not None:
            each.running.kill()
        each.loop.close()
        assert all(pool.closed for pool in each.pools)


def batches_of(count, *, caught_up=False):
    return [
        batch(f"{n}-x", *(change(f"{n}.{i}") for i in range(300)), caught_up=caught_up and n == count - 1)
        for n in range(count)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_outcomes_are_pushed_in_the_order_of_the_feed(make_world, seed):
    world, random = make_world(), Random(seed)
    feed = batches_of(40, caught_up=True)
    world.carry(*feed)
    while not world.pool.closed:
        if world.pool.tasks:
            world.pool.do(random.choice(list(world.pool.tasks)))
        let_others_run(20)
    wait_until(lambda: len(world.pusher.items) == 40 * 300, worker=world.running)
    assert world.pusher.ids == [c.id for each in feed for c in each.changes]
    assert all(isinstance(outcome, DocumentRows) for _, outcome in world.pusher.items)
    assert sum(each["count"] for each in world.recorder.of("change")) == 40 * 300
    assert world.sizes == [2, 0]


def test_few_chunks_are_on_their_way_at_a_time(make_world):
    world = make_world()
    world.carry(*batches_of(100))
    world.until_tasks(4)
    let_others_run(200)
    assert len(world.pool.tasks) == 4
    assert world.here.watermark.changes <= 5 * 1000


def test_a_slow_first_chunk_holds_back_bytes_not_workers(make_world, monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_WAITING_BYTES", 100_000)
    world = make_world()
    world.carry(*batches_of(100))
    world.until_tasks(2)
    first = min(world.pool.tasks)
    for _ in range(100):
        for number in [each for each in world.pool.tasks if each != first]:
            world.pool.do(number)
        let_others_run(5)
    assert world.pusher.items == []
    assert 2000 < world.here.watermark.changes < 10_000
    world.pool.do(first)
    wait_until(lambda: world.pusher.items)


def test_outcomes_behind_a_slow_chunk_count_as_bytes_that_wait(make_world, monkeypatch):
    """A thousand ids come in; what a transform makes of them may be a thousand times as large."""
    monkeypatch.setattr(pipeline, "MAX_WAITING_BYTES", 1_000_000)
    world = make_world(transform=lambda doc: {"text": 1_000 * "x"})
    world.carry(*batches_of(100))
    world.until_tasks(2)
    first = min(world.pool.tasks)
    for _ in range(100):
        for number in [each for each in world.pool.tasks if each != first]:
            world.pool.do(number)
        let_others_run(5)
    assert world.pusher.items == []
    assert world.here.watermark.changes < 7_000
    world.pool.do(first)
    wait_until(lambda: world.pusher.items)


def test_outcomes_are_decoded_while_others_get_their_turn(make_world):
    """Decoded as a whole, a chunk of pickled rows blocks the hub for a third of a second."""
    world = make_world(transform=lambda doc: {"numbers": set(range(5_000))})
    world.carry(batch("0-x", *(change(str(n)) for n in range(300))))
    world.until_tasks()
    (number,) = world.pool.tasks
    result = Done(to_payload(world.work.run(world.pool.tasks.pop(number))))
    turns: list[int] = []

    def count_turns():
        while len(world.pusher.items) < 300:
            turns.append(len(world.pusher.items))
            gevent.sleep(0)

    counting = gevent.spawn(count_turns)
    world.pool.events.finished(number, result)
    assert world.pusher.items == []
    counting.get(timeout=10)
    assert len(set(turns)) > 2


def test_a_slow_target_holds_back_all(make_world):
    world = make_world()
    world.pusher.gate.clear()
    world.carry(*batches_of(100))
    world.until_tasks(2)
    for _ in range(100):
        for number in list(world.pool.tasks):
            world.pool.do(number)
        let_others_run(5)
    assert world.pusher.items == []
    assert world.here.watermark.changes <= 7 * 1000
    world.pusher.gate.set()
    wait_until(lambda: len(world.pusher.items) > 500, worker=world.running)


def test_after_a_stop_only_what_workers_have_begun_is_waited_for(make_world):
    world = make_world()
    world.carry(*batches_of(30))
    world.until_tasks(4)
    let_others_run(50)
    first = min(world.pool.tasks)
    world.pool.begun = {first}
    world.stop.set()
    let_others_run(50)
    assert list(world.pool.tasks) == [first]
    world.pool.do(first)
    world.running.get(timeout=10)
    assert 0 < len(world.pusher.items) <= 1000
    assert (
        world.pusher.ids == [c.id for each in batches_of(30) for c in each.changes][: len(world.pusher.ids)]
    )


def test_while_the_source_is_away_chunks_wait_and_nothing_is_lost(make_world):
    world = make_world()
    world.carry(*batches_of(2))
    world.until_tasks()
    world.pool.fail(RetryableError("CouchDB is away", retry_after_seconds=0.01))
    assert world.recorder.of("retry") == [] or world.recorder.of("retry")[0]["where"] == "source"
    wait_until(lambda: world.troubles)
    assert world.troubles == ["source: CouchDB is away"]
    while len(world.pusher.items) < 600:
        if world.pool.tasks:
            world.pool.do()
        gevent.sleep(0.001)
    assert world.troubles[-1] == ""
    assert len(set(world.pusher.ids)) == 600
    world.end()


@pytest.mark.parametrize("error", [AccessError("no", remedy="yes"), PermanentError("a bug")])
def test_an_error_that_no_retry_helps_ends_the_loop(make_world, error):
    world = make_world()
    world.carry(*batches_of(2))
    world.until_tasks()
    world.pool.fail(error)
    with pytest.raises(type(error)):
        world.running.get(timeout=10)
    assert world.stop.is_set()


def test_an_error_of_the_writer_ends_the_loop(make_world):
    world = make_world()
    world.pusher.error = FatalError("fenced")
    world.carry(*batches_of(2))
    world.until_tasks()
    world.pool.do()
    with pytest.raises(FatalError, match="fenced"):
        world.running.get(timeout=10)


def test_a_document_that_kills_workers_is_found_by_halving(make_world):
    world = make_world(workers=1)
    world.carry(batch("1-x", *(change(str(i)) for i in range(300))), batch("2-x", caught_up=True))
    deaths = 0
    while not world.pool.closed:
        for number, payload in list(world.pool.tasks.items()):
            if b"\xa3217" in bytes(payload):
                deaths += 1
                del world.pool.tasks[number]
                world.loop._open_pools[0].finished(number, Lost(Ending(Cause.CRASHED, "SIGSEGV")))
            else:
                world.pool.do(number)
        let_others_run(5)
    assert deaths <= 15
    wait_until(lambda: len(world.pusher.items) == 301, worker=world.running)
    assert world.pusher.ids == [str(i) for i in range(300)]
    letters = [outcome for _, outcome in world.pusher.items if isinstance(outcome, DeadLetter)]
    assert [(each.id, each.stage) for each in letters] == [("217", "transform")]
    assert "It killed the worker: crashed (SIGSEGV)." in letters[0].error


def test_kills_from_outside_stop_a_tail_at_last_and_never_make_a_dead_letter(make_world):
    world = make_world(workers=1)
    world.carry(batch("1-x", change("a")))
    while not world.running.dead:
        if world.pool.tasks:
            world.pool.die(Cause.KILLED)
        let_others_run(5)
    with pytest.raises(
        FatalError, match="end again and again, the last one at work on the document 'a': killed"
    ):
        world.running.get()
    assert world.pusher.items == []


def test_without_workers_the_loop_goes_on_here(make_world):
    world = make_world()
    world.carry(*batches_of(4, caught_up=True))
    world.until_tasks()
    world.pool.events.failed(FatalError("The modules have changed.", remedy="reload"))
    wait_until(lambda: len(world.pusher.items) == 1200, worker=world.running)
    assert world.pusher.ids == [c.id for each in batches_of(4) for c in each.changes]
    assert world.recorder.events() == ["workers.refused"]
    assert len(world.pools) == 1


@pytest.mark.parametrize("refuses", [False, True])
def test_changes_that_were_left_to_workers_are_fetched_before_the_filter_here(make_world, refuses):
    """The feed reads ahead: it leaves documents out for workers that end meanwhile, or cannot be started."""
    world = make_world(filter=JmespathFilter("doc.n == `1`"))
    left_out = [msgspec.structs.replace(change(str(i)), raw=None) for i in range(3)]
    world.carry(*(batch(f"{n}-x", each, caught_up=n > 0) for n, each in enumerate(left_out)))
    world.until_tasks()
    if refuses:
        world.pool.events.failed(FatalError("The modules have changed.", remedy="reload"))
    else:
        for _ in range(2):
            world.until_tasks()
            world.pool.do()
    wait_until(lambda: len(world.pusher.items) == 3, worker=world.running, seconds=10)
    assert world.pusher.ids == ["0", "1", "2"]
    assert all(outcome.has_rows for _, outcome in world.pusher.items)


def test_the_feed_brings_documents_again_once_no_more_workers_are_wanted(make_world):
    world = make_world()
    world.carry(*batches_of(2, caught_up=True))
    wait_until(lambda: world.sizes == [2, 0], seconds=10)
    assert world.pusher.items == []


def test_an_isolated_pillow_is_never_carried_here(make_world):
    """It fails instead, even if workers cannot be started while nothing is on its way to them."""
    world = make_world(workers=0, isolate=True)
    signs = [batch(None), batch(None)]
    world.carry(*signs, *batches_of(1), before={1: lambda: world.pool.events.failed(FatalError("Changed."))})
    with pytest.raises(FatalError, match="Changed"):
        world.running.get(timeout=10)
    assert world.pusher.items == []


def test_an_isolated_pillow_does_not_go_on_here(make_world):
    world = make_world(workers=0, isolate=True)
    world.carry(*batches_of(4))
    world.until_tasks()
    world.pool.events.failed(FatalError("The modules have changed.", remedy="reload"))
    with pytest.raises(FatalError, match="have changed"):
        world.running.get(timeout=10)
    assert world.pusher.items == []


def test_workers_are_started_far_behind_only_and_one_stays_if_isolated(make_world):
    near = make_world(far_behind=10_000)
    near.carry(*batches_of(3, caught_up=True))
    wait_until(lambda: len(near.pusher.items) == 900, worker=near.running)
    assert near.pools == []
    isolated = make_world(workers=3, isolate=True, far_behind=500)
    isolated.carry(*batches_of(3, caught_up=True), batch("9-x", change("late"), caught_up=True))
    while len(isolated.pusher.items) < 901:
        if isolated.pools and isolated.pool.tasks:
            isolated.pool.do()
        let_others_run(5)
    assert [size for size in isolated.sizes if size] == [1, 3, 1]
    assert not isolated.pool.closed


def test_many_changes_at_the_head_start_no_workers(make_world):
    """A continuous feed says of a batch neither that it is at the head, nor what is pending."""
    world = make_world(far_behind=500)
    world.carry(batch("0-x", caught_up=True), *batches_of(6), replace(batches_of(1)[0], pending=501))
    world.until_tasks()
    assert len(world.pusher.items) == 1801  # all but those of which 501 are pending


def test_a_dead_letter_is_retried_in_a_worker(make_world):
    world = make_world(far_behind=10_000)
    asked = gevent.spawn(world.loop.outcome, change("a"))
    world.until_tasks()
    world.pool.do()
    assert asked.get(timeout=10).id == "a"
    again = gevent.spawn(world.loop.outcome, change("b"))
    wait_until(lambda: world.pool.tasks)
    world.stop.set()
    world.loop._move()
    with pytest.raises(StoppedError):
        again.get(timeout=10)
    assert len(world.pools) == 1  # the second one got the same worker


def test_a_retry_outlives_the_workers_that_end_at_the_head(make_world):
    world = make_world()
    world.carry(*batches_of(2))
    world.until_tasks()
    asked = gevent.spawn(world.loop.outcome, change("a"))
    wait_until(lambda: len(world.pool.tasks) > 1)
    first = world.pool
    world.loop._end_pool(world.loop._pool, 0.0)  # it closes with the retry still in it
    world.loop._pool = None
    wait_until(lambda: world.pool is not first and world.pool.tasks)
    world.pool.do()
    assert asked.get(timeout=10).id == "a"


def test_a_retry_that_no_worker_takes_is_a_dead_letter_again(make_world):
    world = make_world(far_behind=10_000)
    asked = gevent.spawn(world.loop.outcome, change("a"))
    world.until_tasks()
    world.pool.events.failed(FatalError("The modules have changed.", remedy="reload"))
    letter = asked.get(timeout=10)
    assert isinstance(letter, DeadLetter)
    assert "The modules have changed. Remedy: reload" in letter.error
