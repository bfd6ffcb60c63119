"""Several daemons share the pillows of a service by Kafka's consumer groups."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from pillows.change_topics.names import ServiceTopics
from tests.acceptance import stores
from tests.acceptance.process import Pillowd
from tests.acceptance.world import World, live, statuses
from tests.servers.kafka import Kafka
from tests.support.waiting import wait_until

MakeDaemon = Callable[..., Pillowd]

ODD = """
def rows(document):
    if document["_id"].startswith("bad") and not document.get("good"):
        raise ValueError
    return document
"""


@pytest.fixture
def service(kafka_prefix: str) -> str:
    return kafka_prefix.strip("-")


@pytest.fixture
def make_daemon(world: World, kafka: str, service: str) -> MakeDaemon:
    """Makes daemons of one service, each with a state directory of its own, as on machines of their own."""
    world.connections["bus"] = {"type": "kafka", "servers": [kafka]}

    def make(pillows: dict[str, Any], **more: Any) -> Pillowd:
        coordination = {"type": "kafka", "connection": "bus", "service": service, "partitions": 4, **more}
        return world.pillowd(pillows, coordination=coordination)

    return make


def pillows_of(world: World) -> dict[str, Any]:
    pillow = world.pillow("cases", "elasticsearch", "postgres")
    pillow["transport"][0]["deletes"] = "tombstone"
    return {"cases": pillow}


def reason(daemon: Pillowd) -> str:
    return str(statuses(daemon).get("cases", {}).get("reason", ""))


def equal(world: World, *targets: str) -> bool:
    return world.differences("cases", *(targets or ("postgres", "elasticsearch"))) == {}


class Writer:
    """Writes, edits, deletes and conflicts documents."""

    def __init__(self, world: World, seed: int) -> None:
        self._couch = world.couch
        self._chance = random.Random(seed)
        self._next = 0

    def write(self, count: int) -> None:
        """Writes some documents, in one round of each kind."""
        chance, couch = self._chance, self._couch
        couch.bulk({"_id": f"d{number}", "n": number} for number in range(self._next, self._next + count))
        self._next += count
        known = chance.sample(range(self._next), min(self._next, count // 2))
        for number in known:
            id = f"d{number}"
            match chance.randrange(3):
                case 0:
                    couch.put(id, {"n": -number})
                case 1:
                    couch.leaf(id, f"9-{chance.randrange(16**8):08x}", "8-aa", conflict=True)
                case _ if couch.session.get(f"{couch.url}/{id}", timeout=60).ok:
                    couch.delete(id)

    def write_until(self, holds: Callable[[], object], *, seconds: float = 90.0) -> float:
        """Writes until something holds; returns the seconds."""
        began = time.monotonic()
        while not holds():
            assert time.monotonic() - began < seconds
            self.write(10)
        return time.monotonic() - began


class Service:
    """Three daemons of one service."""

    def __init__(self, make: MakeDaemon, pillows: dict[str, Any]) -> None:
        self.daemons = [make(pillows) for _ in range(3)]
        self.running = list[Pillowd]()

    def counts(self) -> list[int]:
        """How many partitions each running daemon has."""
        found = [re.match(r"(\d+) of \d+ partitions here", reason(each)) for each in self.running]
        return [int(each[1]) if each else -1 for each in found]

    def start(self, daemon: Pillowd) -> None:
        daemon.start()
        self.running.append(daemon)

    def until_shared(self) -> float:
        """Waits until every partition has a tail, evenly. Returns the seconds."""
        began = time.monotonic()
        wait_until(self.is_even, seconds=90, explain=lambda: str(self.counts()))
        return time.monotonic() - began

    def is_even(self) -> bool:
        counts = self.counts()
        return sum(counts) == 4 and max(counts) - min(counts) <= 1

    def stop(self) -> None:
        assert [each.stop() for each in self.running] == [0] * len(self.running)


def test_a_daemon_joins_is_killed_and_comes_back_in_its_place_while_somebody_writes(
    world: World, make_daemon: MakeDaemon
) -> None:
    service = Service(make_daemon, pillows_of(world))
    first, second, _ = service.daemons
    service.start(first)
    first.wait_for(service.is_even)
    service.start(second)
    writer = Writer(world, seed=19)
    joined = writer.write_until(service.is_even)
    second.signal(signal.SIGKILL)
    second.ended()
    second.start()
    print(f"joined {joined:.1f} s, restarted {writer.write_until(service.is_even):.1f} s")
    wait_until(lambda: equal(world))
    service.stop()


@pytest.mark.proof
@pytest.mark.timeout(14_400)
def test_many_rebalances_lose_nothing(
    world: World, make_daemon: MakeDaemon, kafka_server: Callable[..., Kafka], service: str
) -> None:
    """Joins, stops, kills, hangs and restarts of the broker under writes, into three targets."""
    broker = kafka_server()
    world.connections["bus"] = {"type": "kafka", "servers": [broker.where]}
    world.connections["files"] = {"type": "jsonl", "folder": str(world.folder / "files")}
    (world.folder / "files").mkdir()
    pillows = pillows_of(world)
    pillows["cases"]["transport"].append({"connection": "files", "file": "cases.jsonl"})

    def make(made: dict[str, Any]) -> Pillowd:
        coordination = {"type": "kafka", "connection": "bus", "service": service, "partitions": 4}
        return world.pillowd(made, coordination=coordination)

    crowd = Service(make, pillows)
    crowd.start(crowd.daemons[0])
    crowd.until_shared()
    chance = random.Random(19)
    writer = Writer(world, seed=20)
    taken: dict[str, list[float]] = defaultdict(list)
    for _ in range(int(os.environ.get("PILLOWD_REBALANCES", "200"))):
        idle = [each for each in crowd.daemons if each not in crowd.running]
        ways = ["join"] * 2 * bool(idle) + ["restart", "broker"]
        ways += ["stop", "kill", "hang", "hang"] if len(crowd.running) > 1 else []
        way = chance.choice(ways)
        daemon = chance.choice(idle if way == "join" else crowd.running)
        writer.write(10)
        match way:
            case "join":
                crowd.start(daemon)
            case "restart":
                daemon.signal(signal.SIGKILL)
                daemon.ended()
                daemon.start()
            case "broker":
                broker.restart()
            case "stop":
                crowd.running.remove(daemon)
                assert daemon.stop() == 0
            case "kill":
                crowd.running.remove(daemon)
                daemon.signal(signal.SIGKILL)
                daemon.ended()
            case "hang":
                crowd.running.remove(daemon)
                daemon.signal(signal.SIGSTOP)
        taken[way].append(writer.write_until(crowd.is_even))
        if way == "hang":
            daemon.signal(signal.SIGCONT)
            crowd.running.append(daemon)
            taken["woken"].append(writer.write_until(crowd.is_even))
    wait_until(
        lambda: equal(world),
        seconds=120,
        explain=lambda: str(world.differences("cases", "postgres", "elasticsearch")),
    )
    expected = {id: row.body for id, row in stores.couchdb(world.couch).items()}
    assert latest_lines(world.folder / "files") == expected
    fenced = [each for one in crowd.daemons for each in one.events("partitions.lost")]
    print({way: f"{len(times)} x, at most {max(times):.1f} s" for way, times in taken.items()}, len(fenced))
    crowd.stop()


def latest_lines(folder: Path) -> dict[str, Any]:
    """The documents that the newest lines of all files leave, by id."""
    lines = [json.loads(line) for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]
    newest: dict[str, Any] = {}
    for line in lines:
        if line["_id"] not in newest or line["_version"] >= newest[line["_id"]]["_version"]:
            newest[line["_id"]] = line
    return {
        id: {name: value for name, value in line["doc"].items() if name not in ("_id", "_rev")}
        for id, line in newest.items()
        if "doc" in line
    }


@pytest.mark.proof
def test_a_pause_and_a_reset_count_for_all_daemons(world: World, make_daemon: MakeDaemon) -> None:
    service = Service(make_daemon, pillows_of(world))
    first, second, _ = service.daemons
    service.start(first)
    service.start(second)
    service.until_shared()
    world.fill(50)
    wait_until(lambda: equal(world))
    # Each tells of the whole service, of the others a few seconds late.
    wait_until(lambda: [statuses(each)["cases"]["changes"] for each in service.running] == [50, 50])

    assert second.command_here("pause", "cases").returncode == 0
    first.wait_for(lambda: first.state("cases") == "paused")
    world.fill(10, start=50)
    assert first.stop() == 0
    first.start()
    first.wait_for(lambda: first.state("cases") == "paused")
    assert world.written("cases") == 50
    assert first.command_here("resume", "cases").returncode == 0
    wait_until(lambda: equal(world))

    epochs = {statuses(each)["cases"]["epoch"] for each in service.running}
    with psycopg.connect(world.postgres_dsn, autocommit=True) as connection:
        connection.execute("delete from cases where (doc->>'n')::int % 2 = 0")
    assert not equal(world, "postgres")
    assert second.command_here("checkpoint", "reset", "cases").returncode == 0
    wait_until(lambda: equal(world), seconds=60)
    wait_until(lambda: all((statuses(each)["cases"]["epoch"] or 0) > max(epochs) for each in service.running))
    for refused in (["rewind", "cases", "--beginning"], ["set", "cases", "5"]):
        done = second.command_here("checkpoint", *refused)
        assert done.returncode != 0
        assert "partitions" in done.stderr, done.stderr
    assert second.command_here("rebuild", "cases").returncode != 0
    assert first.stop() == second.stop() == 0


@pytest.mark.proof
def test_dead_letters_go_with_their_partitions(world: World, make_daemon: MakeDaemon) -> None:
    """Also to a daemon that was never told of them, when the first one and its disk are gone."""
    (world.folder / "odd.py").write_text(ODD)
    pillows = pillows_of(world)
    pillows["cases"]["transform"] = [{"python": "odd:rows"}]
    first, second = make_daemon(pillows), make_daemon(pillows)
    first.start()
    first.wait_for(lambda: "4 of 4 partitions here" in reason(first))
    world.fill(20)
    for number in range(8):
        world.couch.put(f"bad{number}", {"n": number})
    first.wait_for(lambda: statuses(first)["cases"]["dead_letters"] == 8)
    first.wait_for(lambda: "28" in str(statuses(first)["cases"]["changes"]))
    time.sleep(6)  # a checkpoint is due every 5 s
    first.signal(signal.SIGKILL)
    first.ended()
    shutil.rmtree(first.folder / "state")

    second.start()
    second.wait_for(lambda: statuses(second).get("cases", {}).get("dead_letters") == 8)
    assert len(second.ask_here("dead-letter", "list", "cases")) == 8
    world.couch.put("bad3", {"n": 3, "good": True})
    second.wait_for(lambda: statuses(second)["cases"]["dead_letters"] == 7)
    assert second.command_here("dead-letter", "discard", "cases", "bad4").returncode == 0
    second.wait_for(lambda: statuses(second)["cases"]["dead_letters"] == 6)
    assert second.stop() == 0
    third = make_daemon(pillows)
    third.start()
    third.wait_for(lambda: statuses(third).get("cases", {}).get("dead_letters") == 6, seconds=90)
    assert third.stop() == 0


@pytest.mark.proof
def test_the_same_pillows_run_with_and_without_kafka_in_both_directions(
    world: World, make_daemon: MakeDaemon
) -> None:
    """Alone, shared, alone and shared again: where one way stopped, the other writes what is missing."""
    daemon = make_daemon(pillows_of(world))
    shared = daemon.settings["coordination"]
    for number, coordination in enumerate([{"type": "none"}, shared, {"type": "none"}, shared]):
        daemon.settings["coordination"] = coordination
        daemon.config.write_text(yaml.safe_dump(daemon.settings))
        world.fill(30, start=30 * number)
        gone = world.couch.changes()["results"][number]["id"]
        world.couch.delete(gone)
        if coordination is shared:
            daemon.start()
            daemon.wait_for(lambda: "4 of 4 partitions here" in reason(daemon), seconds=90)
        else:
            daemon.start()
        daemon.wait_for(lambda: live(daemon) and equal(world))
        assert daemon.command("verify", "cases").returncode == 0
        assert daemon.stop() == 0
    assert not daemon.events("pillow.failed")


@pytest.mark.proof
def test_an_offset_that_the_brokers_have_dropped_is_refused_until_somebody_resets(
    world: World, make_daemon: MakeDaemon, kafka: str, service: str
) -> None:
    world.fill(40)
    daemon = make_daemon(pillows_of(world)).start()
    daemon.wait_for(lambda: "4 of 4 partitions here" in reason(daemon))
    daemon.wait_for(lambda: live(daemon) and equal(world))
    assert daemon.stop() == 0
    group = ServiceTopics(service).group("cases")
    time.sleep(12)  # the member's session
    admin = AdminClient({"bootstrap.servers": kafka})
    for future in admin.delete_consumer_groups([group]).values():
        future.result(30)
    before = world.written("cases")
    daemon.start()
    daemon.wait_for(lambda: daemon.state("cases") == "failed")
    assert "offsets.retention.minutes" in reason(daemon)
    assert "`pillowd checkpoint reset cases`" in reason(daemon)
    assert world.written("cases") == before
    world.fill(10, start=40)
    assert daemon.command_here("checkpoint", "reset", "cases").returncode == 0
    assert daemon.command_here("restart", "cases").returncode == 0
    daemon.wait_for(lambda: live(daemon) and equal(world))
    assert daemon.stop() == 0


@pytest.mark.proof
def test_partitions_are_added_to_a_live_topic(
    world: World, make_daemon: MakeDaemon, kafka: str, service: str
) -> None:
    service_ = Service(make_daemon, pillows_of(world))
    for daemon in service_.daemons[:2]:
        service_.start(daemon)
    service_.until_shared()
    writer = Writer(world, seed=7)
    writer.write(80)
    topic = ServiceTopics(service).changes(f"couch/{world.couch.name}")
    admin = AdminClient({"bootstrap.servers": kafka})
    for future in admin.create_partitions([NewPartitions(topic, 12)]).values():
        future.result(30)
    began = time.monotonic()
    while sum(service_.counts()) < 12:
        assert time.monotonic() - began < 120, service_.counts()
        writer.write(20)
    print("12 partitions after", time.monotonic() - began, service_.counts())
    writer.write(80)
    wait_until(lambda: equal(world))
    service_.stop()
