"""Chosen documents go through a pillow again while it follows its feed, whatever happens meanwhile."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.errors import ConflictError
from tests.acceptance.process import Pillowd
from tests.acceptance.world import World, call, complete
from tests.support.sizes import size

KINDS = {"set": {"kind": "Case"}}


def changed(daemon: Pillowd, pillow: Any) -> None:
    """Replaces the pillows in the configuration file by this one, as `cases`."""
    settings = yaml.safe_load(daemon.config.read_text())
    daemon.config.write_text(yaml.safe_dump(settings | {"pillows": {"cases": pillow}}))


def filled(world: World, count: int, *targets: str) -> Pillowd:
    """A daemon that has filled its targets, and then got another transform."""
    world.fill(count)
    daemon = world.pillowd({"cases": world.pillow("cases", *targets)}).start()
    daemon.wait_for(lambda: complete(daemon), seconds=120)
    changed(daemon, world.pillow("cases", *targets, transform=KINDS))
    return daemon


def again(world: World, target: str) -> set[str]:
    """The documents that went through again."""
    return {id for id, row in world.read(target, "cases").items() if row.body.get("kind") == "Case"}


def write_ids(daemon: Pillowd, *ids: str) -> Path:
    path = daemon.folder / "ids.txt"
    path.write_text("\n".join(ids) + "\n")
    return path


def test_chosen_documents_are_written_again_and_the_checkpoint_stays(world: World) -> None:
    targets = ("postgres", "sqlite", "elasticsearch")
    daemon = filled(world, 60, *targets)
    assert daemon.command_here("reload").returncode == 0
    odd = ['with "quotes"', "slash/ed", "plus+", "line\nbreak", "ünïcode-\U0001f600"]
    for id in odd:
        world.couch.put(id, n=1)
    ids = sorted(world.couch.documents())
    daemon.wait_for(lambda: complete(daemon) and again(world, "sqlite") == set(odd))
    daemon.wait_for(lambda: call(daemon, "get_checkpoint", key="cases")["changes"] == len(ids))
    before = call(daemon, "get_checkpoint", key="cases")

    chosen = ids[5:25]
    path = write_ids(daemon, *chosen, json.dumps(odd[3]), "never-was")
    done = daemon.command("backfill", "cases", "--ids", str(path), "--json")
    assert done.returncode == 0, done.stderr
    assert "postgres (cases): the rows of the chosen documents are written again" in done.stderr
    report = json.loads(done.stdout)
    assert (report["state"], report["documents"], report["done"]) == ("done", 22, 22)
    assert [again(world, target) for target in targets] == [{*chosen, *odd}] * 3
    after = call(daemon, "get_checkpoint", key="cases")
    assert after["seq"] == before["seq"]
    assert after["changes"] == before["changes"]
    assert after["epoch"] > before["epoch"]

    prefix = ids[30][:-1]
    expected = {id for id in ids if id.startswith(prefix)}
    assert 0 < len(expected) < len(ids)
    assert daemon.command_here("backfill", "cases", "--prefix", prefix).returncode == 0
    assert again(world, "postgres") == {*chosen, *odd, *expected}
    assert daemon.command_here("backfill", "cases", "--selector", '{"n": {"$gte": 0}}').returncode == 0
    assert [again(world, target) for target in targets] == [set(ids)] * 3
    world.couch.put(ids[0], n="later")
    world.couch.delete(ids[1])
    daemon.wait_for(lambda: not [t for t in targets if ids[1] in world.read(t, "cases")])
    assert all(world.read(target, "cases")[ids[0]].body["n"] == "later" for target in targets)
    listed = json.loads(daemon.command_here("backfill", "status", "cases", "--json").stdout)
    assert [each["state"] for each in listed] == ["done"] * 3
    assert daemon.command_here("backfill", "status").stdout.count("cases@") == 3
    assert daemon.stop() == 0


def test_a_backfill_goes_on_after_kill_9_and_changes_arrive_meanwhile(world: World) -> None:
    count = size(ci=2500, proof=50_000)
    daemon = filled(world, count, "sqlite")
    assert daemon.command_here("reload").returncode == 0
    started = call(daemon, "start_backfill", key="cases", body={"selector": {}})
    daemon.wait_for(lambda: call(daemon, "get_backfill", id=started["id"])["done"] > 100)
    daemon.signal(signal.SIGKILL)
    daemon.ended()
    daemon.start()
    world.couch.put("live", n=7)
    daemon.wait_for(lambda: "live" in again(world, "sqlite"))
    daemon.wait_for(lambda: call(daemon, "get_backfill", id=started["id"])["state"] == "done", seconds=300)
    assert again(world, "sqlite") == set(world.couch.documents())
    assert daemon.stop() == 0
    verified = daemon.command("verify", "cases", "--content")
    assert verified.returncode == 0, verified.stdout


def test_a_backfill_without_a_daemon_is_run_by_the_command(world: World) -> None:
    daemon = filled(world, 30, "sqlite", "elasticsearch")
    ids = sorted(world.couch.documents())
    assert daemon.stop() == 0
    world.couch.delete(ids[3])
    done = daemon.command("backfill", "cases", "--ids", str(write_ids(daemon, *ids[:10])))
    assert done.returncode == 0, done.stderr
    assert "is done: 10 documents sent" in done.stdout
    assert again(world, "sqlite") == again(world, "elasticsearch") == set(ids[:10]) - {ids[3]}
    assert ids[3] not in world.read("sqlite", "cases")
    (listed,) = json.loads(daemon.command("backfill", "status", "--json").stdout)
    retried = daemon.command("backfill", "retry", listed["id"], "--range", "1")
    assert (retried.returncode, "10 documents sent" in retried.stdout) == (0, True)


def test_a_backfill_waits_for_its_pillow_and_is_cancelled(world: World) -> None:
    daemon = filled(world, 10, "sqlite")
    call(daemon, "pause_pillow", key="cases")
    for _ in range(2):
        call(daemon, "start_backfill", key="cases", body={"selector": {}})

    def list_states() -> list[str]:
        return [each["state"] for each in call(daemon, "list_backfills", key="cases")["backfills"]]

    daemon.wait_for(lambda: list_states() == ["waiting", "waiting"])
    first, second = call(daemon, "list_backfills", key="cases")["backfills"]
    assert daemon.command_here("backfill", "cancel", "cases").returncode == 0
    assert call(daemon, "get_backfill", id=second["id"])["state"] == "cancelled"
    with pytest.raises(ConflictError, match="has ended"):
        call(daemon, "cancel_backfill", id=second["id"])
    call(daemon, "resume_pillow", key="cases")
    daemon.wait_for(lambda: call(daemon, "get_backfill", id=first["id"])["state"] == "done")
    assert daemon.stop() == 0


@pytest.mark.proof
def test_changes_of_the_feed_are_not_held_up(world: World) -> None:
    """The slowest of a hundred changes is measured without a backfill, and during one of all documents."""
    daemon = filled(world, 20_000, "sqlite")
    slowest = [_find_slowest(world, "before")]
    started = call(daemon, "start_backfill", key="cases", body={"selector": {}})
    daemon.wait_for(lambda: call(daemon, "get_backfill", id=started["id"])["done"] > 100)
    slowest.append(_find_slowest(world, "beside"))
    shown = call(daemon, "get_backfill", id=started["id"])
    print(f"p99 of a change: {slowest[0]:.3f} s, beside a backfill {slowest[1]:.3f} s; {shown}")
    assert shown["state"] == "running", "it lasted longer than the measurement"
    assert slowest[1] < 2 * slowest[0] + 0.5
    assert daemon.stop() == 0


def _find_slowest(world: World, name: str) -> float:
    seconds = []
    with closing(sqlite3.connect(f"file:{world.sqlite_path}?mode=ro", uri=True)) as reader:
        for number in range(100):
            id = f"{name}-{number}"
            world.couch.put(id, n=number)
            began = time.monotonic()
            while not reader.execute("select 1 from cases where _id = ?", (id,)).fetchall():
                assert time.monotonic() < began + 30
                time.sleep(0.002)
            seconds.append(time.monotonic() - began)
    return sorted(seconds)[-2]
