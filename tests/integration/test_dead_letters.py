"""Bad documents among good ones, and a target that is away, with real targets."""

from __future__ import annotations

import gc
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from math import inf
from pathlib import Path
from typing import Any

import gevent
import psutil
import psycopg
import pytest
import requests
from gevent.event import Event

from checkpoints import Seq, TailKey
from pillows import registry
from pillows.feed.base import DatabaseIdentity
from pillows.models import Change, ChangeBatch
from pillows.observer import Observer
from pillows.pillow import Pillow
from pillows.retry.backoff import AWAY_SECONDS
from pillows.runtime.status import State
from pillows.stages.filters import KeepAll
from pillows.stages.transforms import PassThrough, PythonTransform
from pillows.transports.base import Transport
from tests.support.list_feed import ListFeed, batch, change
from tests.support.recorder import Recorder
from tests.support.sizes import proving, size
from tests.support.tails import RunningTail, plan

#: One document in a hundred can never be written.
EVERY = 100
COUNT = size(ci=2_000, proof=100_000)
SOURCE_BATCH = 500

#: What the whole must reach of a clean run's speed, where nothing else runs. The best of so many runs of
#: each kind, in turns, counts: whatever else the machine does makes one slower, and never faster.
RATIO = 0.85
ROUNDS = size(ci=1, proof=4)


def documents(*, bad: bool) -> Iterator[Change]:
    for n in range(COUNT):
        yield change(f"d{n:06}", f"1-{n:032x}", n="no number" if bad and is_bad(n) else n, text="x" * 400)


def is_bad(n: int) -> bool:
    return n % EVERY == 7


def batches(*, bad: bool) -> list[ChangeBatch]:
    all_of_it = list(documents(bad=bad))
    parts = [all_of_it[at : at + SOURCE_BATCH] for at in range(0, COUNT, SOURCE_BATCH)]
    return [batch(f"{n}-a", *part, caught_up=n == len(parts)) for n, part in enumerate(parts, start=1)]


def key_of(name: str) -> TailKey:
    return TailKey(name, "couch/cases")


class Place:
    """A target.

    Attributes:
        make: makes a transport.
        read: what is there, by id.
        bad: what a bad document looks like there once it can be written.
        transform: the pillow's; none: documents as they are.
        mended: the same target once the cause is mended.
    """

    def __init__(
        self,
        make: Callable[[], Transport],
        read: Callable[[], dict[str, Any]],
        *,
        bad: Any = "no number",
        transform: Any = None,
        mended: Callable[[], Place] | None = None,
    ) -> None:
        self.make = make
        self.read = read
        self.bad = bad
        self.transform = transform or PassThrough(("cases",))
        self.mended = mended


def refusing(doc: dict[str, Any]) -> dict[str, Any]:
    return {"n": doc["n"] + 0}


def mended(doc: dict[str, Any]) -> dict[str, Any]:
    return {"n": doc["n"] if isinstance(doc["n"], int) else -1}


def in_postgres(name: str, dsn: str) -> Place:
    kind: Any = registry.transport("postgres")

    def transport(type: str) -> Transport:
        output = kind.Output(table=name, columns={"n": f"n {type}"})
        return kind("warehouse", key_of(name), kind.Connection(dsn=dsn), {"cases": output})

    def read() -> dict[str, Any]:
        with psycopg.connect(dsn) as connection:
            found = connection.execute(f"select _id, n::text from {name}").fetchall()
        return {id: int(n) if n.isdigit() else n for id, n in found}

    def mend() -> Place:
        with psycopg.connect(dsn) as connection:
            connection.execute(f"alter table {name} alter column n type text")
        return Place(lambda: transport("text"), read)

    return Place(lambda: transport("integer"), read, mended=mend)


def in_cluster(its_type: str, name: str, url: str, index: str) -> Place:
    kind: Any = registry.transport(its_type)
    output = kind.Output(index=index, mapping={"properties": {"n": {"type": "long"}}})

    def ask(path: str, body: Any) -> Any:
        answer = requests.post(f"{url}/{path}", json=body, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def read() -> dict[str, Any]:
        ask(f"{index}/_refresh", None)
        found: dict[str, Any] = {}
        page = ask(f"{index}/_search?scroll=1m", {"size": 10_000, "_source": ["n"]})
        while hits := page["hits"]["hits"]:
            found |= {hit["_id"]: hit["_source"]["n"] for hit in hits}
            page = ask("_search/scroll", {"scroll": "1m", "scroll_id": page["_scroll_id"]})
        return found

    def mend() -> Place:
        mapping = {"properties": {"n": {"type": "long", "ignore_malformed": True}}}
        requests.put(f"{url}/{index}/_mapping", json=mapping, timeout=60).raise_for_status()
        return place

    place = Place(
        lambda: kind("search", key_of(name), kind.Connection(hosts=(url,)), {"cases": output}),
        read,
        mended=mend,
    )
    return place


def raising(name: str, path: Path) -> Place:
    kind: Any = registry.transport("sqlite")
    output = kind.Output(table="cases", columns={"n": "n integer"})

    def read() -> dict[str, Any]:
        with closing(sqlite3.connect(path)) as db:
            return dict(db.execute("select _id, n from cases").fetchall())

    def place(transform: Callable[[dict[str, Any]], dict[str, Any]]) -> Place:
        return Place(
            lambda: kind("local", key_of(name), kind.Connection(path=path), {"cases": output}),
            read,
            bad=-1,
            transform=PythonTransform(transform, ("cases",)),
            mended=lambda: place(mended),
        )

    return place(refusing)


@pytest.fixture
def places(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str, str], Place]:
    given = request.getfixturevalue

    def place(target: str, name: str) -> Place:
        if target == "postgres":
            return in_postgres(name, given("postgres_dsn"))
        if target in ("elasticsearch", "opensearch"):
            return in_cluster(target, name, given(f"{target}_url"), given("es_prefix") + name)
        return raising(name, tmp_path / f"{name}.sqlite")

    return place


@contextmanager
def tail_of(folder: Path, feed: ListFeed, place: Place, **settings: Any) -> Iterator[RunningTail]:
    folder.mkdir(exist_ok=True)
    key = place.make().key
    pillow = Pillow(
        name="cases",
        outputs=("cases",),
        filter=KeepAll(),
        transform=place.transform,
    )
    made = plan(folder, feed, key=key, pillow=pillow, make_transports=lambda: [place.make()], **settings)
    run = RunningTail(made)
    try:
        yield run
    finally:
        run.finish()
        made.store.close()
        made.dead_letters.close()


def seconds_of(folder: Path, place: Place, *, bad: bool, observer: Observer | None = None) -> float:
    feed = ListFeed(batches(bad=bad))
    gc.collect()
    began = time.monotonic()
    # One try: after a minute each would be tried again, and fail again.
    with tail_of(folder, feed, place, observer=observer, max_tries=1) as run:
        run.until(lambda: run.tail.state is State.LIVE, 1200)
        return time.monotonic() - began


def ratio_of(tmp_path: Path, places: Callable[[str, str], Place], target: str) -> float:
    """How fast a run with bad documents is, of a clean one."""
    best = {"clean": inf, "poisoned": inf}
    for n in range(ROUNDS):
        for name, so_far in list(best.items()):
            place = places(target, f"{name}{n}")
            seconds = seconds_of(tmp_path / f"{name}{n}", place, bad=name == "poisoned")
            best[name] = min(so_far, seconds)
    print(f"{COUNT} documents into {target}, best of {ROUNDS}: {best}")
    return best["clean"] / best["poisoned"]


@pytest.mark.parametrize(
    "target",
    ["postgres", "elasticsearch", pytest.param("opensearch", marks=pytest.mark.proof), "transform"],
)
def test_one_document_in_a_hundred_that_can_never_be_written(
    tmp_path: Path, places: Callable[[str, str], Place], target: str
) -> None:
    """Each is a dead letter once, all others are written; once the cause is mended a retry does the rest."""
    place, seen = places(target, "poisoned"), Recorder()
    bad = {f"d{n:06}" for n in range(COUNT) if is_bad(n)}
    good = {f"d{n:06}": n for n in range(COUNT) if not is_bad(n)}
    seconds_of(tmp_path / "poisoned", place, bad=True, observer=seen)
    assert place.read() == good
    assert sorted(told["id"] for told in seen.of("dead_letter")) == sorted(bad)

    assert place.mended
    feed = ListFeed(batches(bad=True))
    with tail_of(tmp_path / "poisoned", feed, place.mended()) as run:
        made = run.settings
        dead_letters = made.dead_letters.list(made.key)
        assert sorted(dead_letter.id for dead_letter in dead_letters) == sorted(bad)
        assert all(dead_letter.error and dead_letter.failures == 1 for dead_letter in dead_letters)
        assert {dead_letter.stage for dead_letter in dead_letters} == {
            "transform" if target == "transform" else "transport"
        }

        made.dead_letters.retry(
            made.key, [(dead_letter.transport, dead_letter.id) for dead_letter in dead_letters]
        )
        run.until(lambda: not made.dead_letters.count(made.key), 300)
        assert place.read() == good | dict.fromkeys(bad, place.bad)


@pytest.mark.proof
@pytest.mark.parametrize("target", ["postgres", "elasticsearch", "transform"])
def test_proof_one_percent_of_100_000_documents(
    tmp_path: Path, places: Callable[[str, str], Place], target: str
) -> None:
    test_one_document_in_a_hundred_that_can_never_be_written(tmp_path, places, target)
    ratio = ratio_of(tmp_path, places, target)
    print(f"1 % bad documents into {target}: {ratio:.2f} of the clean run")
    if proving():
        assert ratio >= RATIO


OUTAGE_SECONDS = size(ci=2.0, proof=120.0)


class HeldFeed(ListFeed):
    """Hands over its first batch, and the others once `released` is set."""

    def __init__(self, batches: Sequence[ChangeBatch]) -> None:
        super().__init__(batches)
        self.released = Event()

    def batches(self, since: Seq, identity: DatabaseIdentity | None, stop: Event) -> Iterator[ChangeBatch]:
        for number, item in enumerate(super().batches(since, identity, stop)):
            while number and not stop.is_set() and not self.released.wait(0.05):
                pass
            yield item


@pytest.fixture(params=["elasticsearch", pytest.param("opensearch", marks=pytest.mark.proof)])
def cluster(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A type of transport, and the URL of a server for it."""
    return request.param, request.getfixturevalue(f"{request.param}_url")


def outage(
    tmp_path: Path,
    places: Callable[[str, str], Place],
    cluster: tuple[str, str],
    es_prefix: str,
    tcp_proxy: Callable[[Any], Any],
) -> None:
    its_type, url = cluster
    host, _, port = url.removeprefix("http://").partition(":")
    proxy = tcp_proxy((host, int(port)))
    kind: Any = registry.transport(its_type)
    index = f"{es_prefix}outage"
    output = kind.Output(index=index, mapping={"dynamic": False})
    place = Place(
        lambda: kind(
            "search",
            key_of("outage"),
            kind.Connection(hosts=(f"http://127.0.0.1:{proxy.port}",)),
            {"cases": output},
        ),
        dict,
    )
    feed, other, seen = HeldFeed(batches(bad=False)), ListFeed(batches(bad=False)), Recorder()
    with tail_of(tmp_path / "away", feed, place, observer=seen) as run:
        tail, made = run.tail, run.settings
        run.until(lambda: tail.status().changes)
        with proxy.refusing():
            feed.released.set()  # so all but the first batch come while the server is away
            run.until(lambda: tail.state is State.BACKING_OFF)
            assert tail.status().changes < COUNT
            before = psutil.Process().memory_info().rss
            with tail_of(tmp_path / "other", other, places("transform", "other")) as unharmed:
                unharmed.until(lambda: unharmed.tail.state is State.LIVE)
                gevent.sleep(OUTAGE_SECONDS)
            assert tail.state is State.BACKING_OFF
            assert psutil.Process().memory_info().rss - before < 64 * 2**20
            assert made.dead_letters.count(made.key) == 0
            written, back_at = tail.status().changes, time.monotonic()
        run.until(lambda: tail.status().changes > written)
        print(f"away for {OUTAGE_SECONDS} s, went on {time.monotonic() - back_at:.1f} s after it was back")
        run.until(lambda: tail.state is State.LIVE)
        assert made.dead_letters.count(made.key) == 0
        assert all(told["delay_seconds"] <= AWAY_SECONDS for told in seen.of("retry"))
    requests.post(f"{url}/{index}/_refresh", timeout=60).raise_for_status()
    assert requests.get(f"{url}/{index}/_count", timeout=60).json()["count"] == COUNT


def test_a_cluster_that_goes_away_under_load_costs_nothing_but_time(
    tmp_path, places, cluster, es_prefix, tcp_proxy
) -> None:
    """Memory stays flat, no dead letters, the other pillow is unharmed, everything is there afterwards."""
    outage(tmp_path, places, cluster, es_prefix, tcp_proxy)


@pytest.mark.proof
def test_proof_a_cluster_stopped_for_two_minutes(tmp_path, places, cluster, es_prefix, tcp_proxy) -> None:
    outage(tmp_path, places, cluster, es_prefix, tcp_proxy)
