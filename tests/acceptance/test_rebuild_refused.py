"""What cannot be rebuilt or switched is refused by name, with remedies that work; what must wait says why."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import psycopg

from tests.acceptance import rebuilt
from tests.acceptance.world import World, live


def test_a_view_is_in_the_way_and_copied_rows_reach_it(world: World) -> None:
    daemon = rebuilt.start(world, "postgres")
    with psycopg.connect(world.postgres_dsn, autocommit=True) as connection:
        connection.execute("create view overview as select doc->>'build' as build from cases")
        refused = daemon.command_here("rebuild", "cases")
        assert refused.returncode == 1
        assert "postgres: view overview hangs on public.cases" in refused.stderr
        assert f"`pillowd checkpoint reset cases@couch/{world.couch.name}` rewrites" in refused.stderr
        (printed,) = re.findall(
            r"`pillowd (rebuild \S+ --switch replace-rows)` copies the rows", refused.stderr
        )
        assert "readers wait for about 0 s" in refused.stderr
        assert daemon.command_here(*shlex.split(printed)).returncode == 0
        rebuilt.wait(daemon, "dropped")
        daemon.wait_for(lambda: live(daemon))
        assert connection.execute("select distinct build from overview").fetchall() == [("next",)]
    assert rebuilt.differences(world, "postgres", is_next=True) == {}
    assert daemon.command("verify", "cases", "--content").returncode == 0
    assert daemon.stop() == 0


def test_a_view_that_comes_later_undoes_the_switch(world: World) -> None:
    daemon = rebuilt.start(world, "sqlite", "postgres")
    daemon.ask_here("rebuild", "cases", "--switch", "manual")
    rebuilt.wait(daemon, "ready")
    with psycopg.connect(world.postgres_dsn, autocommit=True) as connection:
        connection.execute("create view overview as select * from cases")
        daemon.command_here("rebuild", "switch", "cases")
        found = rebuilt.wait(daemon, "ready")
        assert "postgres: view overview hangs on public.cases" in found["reason"]
        daemon.wait_for(lambda: live(daemon))
        assert rebuilt.differences(world, "sqlite", "postgres", is_next=False) == {}
        connection.execute("drop view overview")
    daemon.command_here("rebuild", "switch", "cases")
    rebuilt.wait(daemon, "switched")
    daemon.wait_for(lambda: rebuilt.differences(world, "sqlite", "postgres", is_next=True) == {})
    assert daemon.stop() == 0


def test_a_target_without_builds_is_named(world: World, tmp_path: Path) -> None:
    world.connections["files"] = {"type": "jsonl", "folder": str(tmp_path)}
    pillow = world.pillow("cases", "sqlite")
    pillow["transport"].append({"connection": "files", "file": "cases.jsonl"})
    world.fill(3)
    daemon = world.pillowd({"cases": pillow})
    daemon.start()
    daemon.wait_for(lambda: live(daemon))
    refused = daemon.command_here("rebuild", "cases")
    assert refused.returncode == 1
    assert "files (jsonl) can't be switched to another build: it only ever receives more" in refused.stderr
    assert daemon.command_here("rebuild", "status", "cases").returncode == 1
    assert daemon.stop() == 0


def test_a_changed_definition_is_rebuilt_by_itself_where_that_is_wanted(world: World) -> None:
    daemon = rebuilt.start(world, "sqlite", rebuild="auto", next=None)
    rebuilt.rewrite(daemon, next={"transform": {"set": rebuilt.NEXT}})
    assert daemon.command_here("reload").returncode == 0
    rebuilt.wait(daemon, "switched")
    assert rebuilt.differences(world, "sqlite", is_next=True) == {}
    # The new definition becomes the pillow's own; nothing restarts, and the former one is fed no more.
    rebuilt.rewrite(daemon, transform={"set": rebuilt.NEXT}, next=None)
    assert daemon.command_here("reload").returncode == 0
    daemon.wait_for(lambda: "it is not up to date" in daemon.ask_here("rebuild", "status", "cases")["reason"])
    refused = daemon.command_here("rebuild", "rollback", "cases")
    assert refused.returncode == 1
    assert "write the former definition under `next:`" in refused.stderr
    world.fill(3, start=50)
    rebuilt.rewrite(daemon, next={"transform": None})
    assert daemon.command_here("reload").returncode == 0
    daemon.wait_for(lambda: live(daemon, "cases", "cases~1"))
    assert daemon.command_here("rebuild", "rollback", "cases").returncode == 0
    rebuilt.wait(daemon, "rolled-back")
    daemon.wait_for(lambda: rebuilt.differences(world, "sqlite", is_next=False) == {})
    assert daemon.stop() == 0


def test_a_rebuild_without_a_next_definition_makes_the_rows_again(world: World) -> None:
    daemon = rebuilt.start(world, "sqlite", next=None)
    rebuilt.rewrite(daemon, transform={"set": rebuilt.NEXT})
    assert daemon.command_here("reload").returncode == 0
    daemon.wait_for(lambda: daemon.events("pipeline.changed"))
    assert "`pillowd rebuild cases`" in daemon.events("pipeline.changed")[0]["detail"]
    daemon.wait_for(lambda: live(daemon))
    daemon.ask_here("rebuild", "cases", "--keep", "1s", "--verify", "full")
    rebuilt.wait(daemon, "dropped")  # by itself, after that time
    assert rebuilt.differences(world, "sqlite", is_next=True) == {}
    assert daemon.status("cases")["pipeline_changed_at"] is None
    assert daemon.stop() == 0
