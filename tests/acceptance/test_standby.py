"""Two daemons of one service: one is active, the other takes over with its state."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import yaml

from tests.acceptance import stores
from tests.acceptance.process import ROOT, Pillowd
from tests.acceptance.world import World, call, live, statuses
from tests.support.sizes import size
from tests.support.waiting import wait_until

PAGE = (ROOT / "docs" / "how-to" / "two-machines.md").read_text()
ODD = "def rows(document):\n    if document['_id'] == 'bad':\n        raise ValueError\n    return document\n"

MakeDaemon = Callable[[dict[str, Any]], Pillowd]


@pytest.fixture
def make_daemon(world: World, postgres_dsn: str) -> MakeDaemon:
    """Makes daemons of one service, each with a state directory of its own, as if on separate machines."""
    world.connections["lease"] = {"type": "postgres", "dsn": postgres_dsn}
    coordination = {"type": "postgres", "connection": "lease", "service": "reports"}
    return lambda pillows: world.pillowd(pillows, coordination=coordination)


def is_active(daemon: Pillowd) -> bool:
    return bool(statuses(daemon))


def search_pillow(world: World) -> dict[str, Any]:
    pillow = world.pillow("cases", "elasticsearch")
    pillow["transport"][0]["deletes"] = "tombstone"
    return {"cases": pillow}


def take_over(daemon: Pillowd) -> float:
    """Waits until a standby is active. Returns the seconds."""
    began = time.monotonic()
    daemon.wait_for(lambda: is_active(daemon))
    return time.monotonic() - began


def has_changes(daemon: Pillowd, count: int) -> bool:
    return live(daemon) and statuses(daemon)["cases"]["changes"] == count


def test_a_standby_takes_over_with_the_state_of_a_machine_whose_disk_is_gone_as_the_page_says(
    world: World, make_daemon: MakeDaemon
) -> None:
    """Elasticsearch keeps no checkpoint: without the shared state the second machine would begin anew."""
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    settings = yaml.safe_load(shown)
    assert settings["coordination"] == {"type": "postgres", "connection": "lease", "service": "reports"}
    pillows = settings["pillows"]
    pillows["cases"]["source"]["database"] = world.couch.name
    pillows["cases"]["transport"][0] |= {"connection": "elasticsearch", "index": world.alias("cases")}
    pillows["cases"]["transform"] = [{"python": "odd:rows"}]
    (world.folder / "odd.py").write_text(ODD)
    world.fill(100)
    world.couch.put("bad", {"n": 1})
    first, second = make_daemon(pillows), make_daemon(pillows)
    checked = first.command_here(*["check", "--connect"])
    assert "no daemon has held the lease yet" in checked.stdout
    first.start()
    first.wait_for(lambda: has_changes(first, 101))
    assert first.command_here("checkpoint", "reset", "cases").returncode == 0
    first.wait_for(lambda: live(first) and call(first, "get_checkpoint", key="cases")["pass_done"])
    before = call(first, "get_checkpoint", key="cases")
    assert first.command_here("pause", "cases").returncode == 0
    second.start()
    told = second.command_here(*["status"])
    assert told.returncode == 75
    assert "holds the lease" in told.stderr
    assert "run the command on the machine that holds the lease" in told.stderr

    first.signal(signal.SIGKILL)
    first.ended()
    shutil.rmtree(first.folder / "state")
    print(f"taken over {take_over(second):.1f} s after a kill")
    assert second.state("cases") == "paused"
    assert [each["id"] for each in second.ask_here("dead-letter", "list", "cases")] == ["bad"]
    world.fill(20, start=100)
    assert second.command_here("resume", "cases").returncode == 0
    second.wait_for(lambda: has_changes(second, before["changes"] + 20))
    after = call(second, "get_checkpoint", key="cases")
    assert {name: after[name] for name in ("epoch", "pass_epoch", "generation")} == {
        name: before[name] for name in ("epoch", "pass_epoch", "generation")
    }, "it went on"
    expected = {id: row for id, row in stores.couchdb(world.couch).items() if id != "bad"}
    wait_until(lambda: not stores.differences(expected, world.read("elasticsearch", "cases")))
    assert second.stop() == 0


def test_a_holder_that_hangs_is_replaced_and_writes_nothing_when_it_wakes_up(
    world: World, make_daemon: MakeDaemon
) -> None:
    world.fill(100)
    pillows = search_pillow(world)
    pillows["cases"]["transport"] += world.pillow("cases", "postgres")["transport"]
    first, second = make_daemon(pillows), make_daemon(pillows)
    first.start()
    first.wait_for(lambda: has_changes(first, 100))
    second.start()
    first.signal(signal.SIGSTOP)
    seconds = take_over(second)
    print(f"taken over {seconds:.1f} s after a hang")
    assert seconds < size(ci=60, proof=20), "a machine may be busy"
    world.fill(100, start=100)
    second.wait_for(lambda: has_changes(second, 200))
    first.signal(signal.SIGCONT)
    assert first.ended() == 1
    assert len(first.events("lease.lost")) == 1
    assert world.differences("cases", "postgres", "elasticsearch") == {}
    assert second.stop() == 0


def test_a_pool_of_sessions_is_refused_at_start(world: World, postgres_dsn: str) -> None:
    from tests.servers.pgbouncer import BINARY, PgBouncer

    if BINARY is None:
        pytest.skip("PgBouncer is not installed")
    with PgBouncer(postgres_dsn) as pool:
        world.connections["lease"] = {"type": "postgres", "dsn": pool.dsn}
        coordination = {"type": "postgres", "connection": "lease", "service": "reports"}
        daemon = world.pillowd(search_pillow(world), coordination=coordination)
        daemon.start(ready=False)
        assert daemon.ended() == 78
        assert "a lease needs a session of its own" in daemon.log.read_text()


@pytest.mark.proof
def test_a_clean_stop_reads_nothing_again_and_an_old_state_is_replaced(
    world: World, make_daemon: MakeDaemon
) -> None:
    world.fill(50)
    first, second = (make_daemon(search_pillow(world)) for _ in range(2))
    for number, (active, standby) in enumerate([(first, second), (second, first), (first, second)]):
        if number == 0:
            active.start()
        active.wait_for(lambda: live(active))  # noqa: B023 - called at once
        standby.start()
        world.fill(10, start=50 + 10 * number)
        active.wait_for(lambda: has_changes(active, 60 + 10 * number))  # noqa: B023 - called at once
        assert active.stop() == 0
        standby.wait_for(lambda: has_changes(standby, 60 + 10 * number))  # noqa: B023 - called at once
    assert second.stop() == 0


@pytest.mark.proof
def test_the_same_pillows_run_with_and_without_a_lease_in_both_directions(
    world: World, postgres_dsn: str
) -> None:
    world.fill(60)
    world.connections["lease"] = {"type": "postgres", "dsn": postgres_dsn}
    daemon = world.pillowd(search_pillow(world))
    mark = daemon.folder / "state" / "service.json"
    lease = {"type": "postgres", "connection": "lease", "service": "reports"}

    def configure(**coordination: str) -> None:
        daemon.settings["coordination"] = coordination
        daemon.config.write_text(yaml.safe_dump(daemon.settings))

    def run_to(changes: int) -> None:
        daemon.start()
        daemon.wait_for(lambda: has_changes(daemon, changes))
        assert daemon.command("verify", "cases").returncode == 0
        assert daemon.stop() == 0

    def refuse(remedy: str) -> None:
        daemon.start(ready=False)
        assert daemon.ended() == 1
        assert remedy in daemon.log.read_text()

    run_to(60)
    configure(**lease)
    run_to(60)  # the first daemon of a service puts its state there
    configure(type="none")
    refuse(f"remove {mark}")
    mark.unlink()
    world.fill(10, start=60)
    run_to(70)
    configure(**lease)
    refuse(f"move {mark.parent} away")
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("delete from pillowd_state")
        connection.execute("delete from pillowd_lease")
    run_to(70)


@pytest.mark.proof
@pytest.mark.timeout(14_400)
def test_many_failovers_lose_nothing(world: World, make_daemon: MakeDaemon) -> None:
    """Kills, hangs and clean stops, while somebody writes; both targets are equal to the source at last."""
    rounds = int(os.environ.get("PILLOWD_FAILOVERS", size(ci=4, proof=200)))
    pillows = search_pillow(world)
    pillows["cases"]["transport"] += world.pillow("cases", "postgres")["transport"]
    active, standby = (make_daemon(pillows) for _ in range(2))
    chance = random.Random(19)
    active.start()
    active.wait_for(lambda: live(active))
    taken: dict[str, list[float]] = {"kill": [], "hang": [], "stop": []}
    for number in range(rounds):
        standby.start()
        world.fill(50, start=50 * number)
        way = chance.choice(["kill", "kill", "hang", "stop"])
        time.sleep(chance.random() * 0.5)
        active.signal({"kill": signal.SIGKILL, "hang": signal.SIGSTOP, "stop": signal.SIGTERM}[way])
        if way == "kill":
            active.ended()
        taken[way].append(take_over(standby))
        present = [row["id"] for row in world.couch.changes()["results"] if not row.get("deleted")]
        for id in chance.sample(present, 3):
            world.couch.delete(id)
        if way == "hang":
            active.signal(signal.SIGCONT)
        assert way == "kill" or active.ended() == (way == "hang")
        active, standby = standby, active
    active.wait_for(lambda: live(active))
    wait_until(lambda: world.differences("cases", "postgres", "elasticsearch") == {})
    print({way: f"{len(times)} x, at most {max(times, default=0):.1f} s" for way, times in taken.items()})
    assert max(taken["kill"] + taken["stop"], default=0) < 5
    assert max(taken["hang"], default=0) < 20
    assert active.stop() == 0
