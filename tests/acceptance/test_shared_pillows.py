"""Several daemons share the pillows of a service by Kafka's consumer groups."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Callable

import psycopg
import pytest
import yaml
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from pillows.change_topics.names import ServiceTopics
from tests.acceptance import stores
from tests.acceptance.shared_service import (
    MakeDaemon,
    Service,
    Writer,
    equal,
    latest_lines,
    make_for,
    pillows_of,
    reason,
)
from tests.acceptance.world import World, live, statuses
from tests.servers.kafka import Kafka
from tests.support.waiting import wait_until

ODD = """
def rows(document):
    if document["_id"].startswith("bad") and not document.get("good"):
        raise ValueError
    return document
"""

#: Every document.
CHOSEN = '{"_id": {"$gt": ""}}'


@pytest.fixture
def service(kafka_prefix: str) -> str:
    return kafka_prefix.strip("-")


@pytest.fixture
def make_daemon(world: World, kafka: str, service: str) -> MakeDaemon:
    return make_for(world, [kafka], service)


def test_a_daemon_joins_is_killed_and_comes_back_in_its_place_while_somebody_writes(
    world: World, make_daemon: MakeDaemon
) -> None:
    service = Service(make_daemon, pillows_of(world))
    first, second, _ = service.daemons
    service.start(first)
    first.wait_for(service.is_even)
    (told,) = first.events("kafka.copies")
    assert "default.replication.factor=3" in told["reason"], "the tests' broker is alone"
    service.start(second)
    writer = Writer(world, seed=19)
    joined = writer.write_until(service.is_even)
    second.signal(signal.SIGKILL)
    second.ended()
    second.start()
    print(f"joined {joined:.1f} s, restarted {writer.write_until(service.is_even):.1f} s")
    wait_until(lambda: equal(world))
    with psycopg.connect(world.postgres_dsn, autocommit=True) as connection:
        connection.execute("update cases set doc = '{}'")
    assert second.command_here("backfill", "cases", "--selector", CHOSEN).returncode == 0
    wait_until(lambda: equal(world), seconds=5)
    service.stop()


@pytest.mark.proof
@pytest.mark.timeout(14_400)
def test_many_rebalances_lose_nothing(
    world: World, make_daemon: MakeDaemon, kafka_server: Callable[..., Kafka], service: str
) -> None:
    """Joins, stops, kills, hangs and restarts of the broker under writes, into three targets."""
    broker = kafka_server()
    world.connections["files"] = {"type": "jsonl", "folder": str(world.folder / "files")}
    (world.folder / "files").mkdir()
    pillows = pillows_of(world)
    pillows["cases"]["transport"].append({"connection": "files", "file": "cases.jsonl"})

    crowd = Service(make_for(world, [broker.where], service), pillows)
    crowd.start(crowd.daemons[0])
    crowd.until_shared()
    # A proof may have them in several runs: each with a seed of its own.
    seed = int(os.environ.get("PILLOWD_REBALANCES_SEED", "19"))
    chance = random.Random(seed)
    writer = Writer(world, seed=seed + 1)
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
        taken[way].append(writer.write_until(crowd.is_even, explain=crowd.describe))
        if way == "hang":
            daemon.signal(signal.SIGCONT)
            crowd.running.append(daemon)
            taken["woken"].append(writer.write_until(crowd.is_even, explain=crowd.describe))
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


@pytest.mark.proof
def test_a_pause_and_a_reset_count_for_all_daemons(world: World, make_daemon: MakeDaemon) -> None:
    service = Service(make_daemon, pillows_of(world))
    first, second, _ = service.daemons
    service.start(first)
    service.start(second)
    service.until_shared()
    assert "each record has one copy" in str(first.ask_here("check", "--connect")["connections"])
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
def test_documents_are_written_again_by_whoever_has_their_partition(
    world: World, make_daemon: MakeDaemon
) -> None:
    """A backfill and a repair, asked of one of two daemons; also after that one was killed meanwhile."""
    service = Service(make_daemon, pillows_of(world))
    first, second, _ = service.daemons
    service.start(first)
    service.start(second)
    service.until_shared()
    world.fill(60)
    wait_until(lambda: equal(world))
    with psycopg.connect(world.postgres_dsn, autocommit=True) as connection:
        connection.execute("update cases set doc = '{}'")
    assert not equal(world, "postgres")
    assert first.command_here("backfill", "cases", "--selector", CHOSEN).returncode == 0
    wait_until(lambda: equal(world), seconds=5)

    with psycopg.connect(world.postgres_dsn, autocommit=True) as connection:
        connection.execute("update cases set doc = '{}' where (doc->>'n')::int % 3 = 0")
        connection.execute("delete from cases where (doc->>'n')::int % 3 = 1")
        connection.execute("insert into cases (_id, _rev, _version, doc) values ('phantom', '1-a', 1, '{}')")
    assert second.command_here("verify", "cases", "--content").returncode == 3
    done = second.command_here("verify", "cases", "--content", "--repair")
    assert done.returncode == 0, done.stdout + done.stderr
    assert equal(world)

    with psycopg.connect(world.postgres_dsn, autocommit=True) as connection:
        connection.execute("update cases set doc = '{}'")
    assert first.command_here("backfill", "cases", "--selector", CHOSEN, "--detach").returncode == 0
    first.signal(signal.SIGKILL)
    first.ended()
    first.start()
    wait_until(lambda: equal(world))
    service.stop()


@pytest.mark.proof
def test_dead_letters_go_with_their_partitions(world: World, make_daemon: MakeDaemon) -> None:
    """They reach even a daemon that never heard of them, after the first one and its disk are lost."""
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
    second.wait_for(lambda: "4 of 4 partitions here" in reason(second))
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
@pytest.mark.timeout(900)
def test_the_same_pillows_run_alone_on_standby_and_shared_from_each_to_each(
    world: World, make_daemon: MakeDaemon, postgres_dsn: str
) -> None:
    """Only the block `coordination` differs. If a start is refused, its remedy works."""
    world.connections["lease"] = {"type": "postgres", "dsn": postgres_dsn}
    daemon = make_daemon(pillows_of(world))
    state = daemon.folder / "state"
    kinds = {
        "none": {"type": "none"},
        "kafka": daemon.settings["coordination"],
        "postgres": {"type": "postgres", "connection": "lease", "service": "reports"},
    }
    before = ""
    for number, kind in enumerate(["none", "postgres", "kafka", "none", "kafka", "postgres", "none"]):
        daemon.settings["coordination"] = kinds[kind]
        daemon.config.write_text(yaml.safe_dump(daemon.settings))
        if before == "postgres":  # its state counts in the lease database, and is a copy here
            daemon.start(ready=False)
            assert daemon.ended() == 1
            assert f"remove {state / 'service.json'}" in daemon.log.read_text()
            (state / "service.json").unlink()
        elif kind == "postgres" and number > 1:  # each has a state of its own
            daemon.start(ready=False)
            assert daemon.ended() == 1
            assert f"move {state} away" in daemon.log.read_text()
            state.rename(daemon.folder / f"state{number}")
        world.fill(20, start=20 * number)
        world.couch.delete(world.couch.changes()["results"][number]["id"])
        daemon.start()
        if kind == "kafka":
            daemon.wait_for(lambda: "4 of 4 partitions here" in reason(daemon), seconds=90)
        daemon.wait_for(lambda: live(daemon) and equal(world))
        done = daemon.command("verify", "cases")
        assert done.returncode == 0, (kind, done.stdout, done.stderr)
        assert daemon.stop() == 0
        before = kind
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


@pytest.mark.proof
def test_a_daemon_with_another_configuration_stands_by_until_nobody_runs_the_former(
    world: World, make_daemon: MakeDaemon
) -> None:
    pillows = pillows_of(world)
    other = pillows | {"cases": pillows["cases"] | {"filter": {"jmespath": "doc.n >= `10`"}}}
    first, second = make_daemon(pillows), make_daemon(other)
    world.fill(20)
    first.start()
    first.wait_for(lambda: live(first) and equal(world))
    second.start()
    second.wait_for(lambda: "stands by: the service runs this pillow" in reason(second))
    assert "`filter` differs" in reason(second)
    world.fill(10, start=20)
    wait_until(lambda: equal(world))
    assert "4 of 4 partitions here" in reason(first)
    assert first.stop() == 0
    second.wait_for(lambda: "4 of 4 partitions here" in reason(second), seconds=60)
    world.couch.put("low", {"n": 1})
    world.couch.put("high", {"n": 100})
    second.wait_for(lambda: {"high"} == {"low", "high"} & world.read("postgres", "cases").keys())
    first.start()
    first.wait_for(lambda: "stands by: the service runs this pillow" in reason(first))
    assert first.stop() == second.stop() == 0


@pytest.mark.proof
def test_a_repair_removes_what_was_purged_before_the_service_read_the_database(
    world: World, make_daemon: MakeDaemon
) -> None:
    """The topic never names such a document; a switch from one daemon alone leaves its row."""
    daemon = make_daemon(pillows_of(world))
    shared = daemon.settings["coordination"]
    daemon.settings["coordination"] = {"type": "none"}
    daemon.config.write_text(yaml.safe_dump(daemon.settings))
    world.fill(20)
    daemon.start()
    daemon.wait_for(lambda: live(daemon) and equal(world))
    assert daemon.stop() == 0
    world.couch.purge(world.couch.changes()["results"][0]["id"])
    daemon.settings["coordination"] = shared
    daemon.config.write_text(yaml.safe_dump(daemon.settings))
    daemon.start()
    daemon.wait_for(lambda: "4 of 4 partitions here" in reason(daemon), seconds=90)
    daemon.wait_for(lambda: live(daemon) and statuses(daemon)["cases"]["pending"] == 0)
    assert daemon.command_here("verify", "cases").returncode == 3
    done = daemon.command_here("verify", "cases", "--repair")
    assert done.returncode == 0, done.stdout + done.stderr
    assert equal(world)
    assert daemon.stop() == 0
