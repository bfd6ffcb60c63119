"""A running daemon takes up a changed configuration: all of it or nothing, and only changed tails restart."""

from __future__ import annotations

import re
import signal
import sqlite3
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.process import Pillowd, couchdb
from tests.acceptance.world import call, live, statuses
from tests.servers.couch_client import CouchDatabase
from tests.support.readme import README

#: A transform that says which text of it runs.
PLUGIN = """
def mark(document):
    return {{"mark": "{mark}"}}
"""


class Reloading:
    """A daemon on one database, whose configuration a test changes while it runs.

    Attributes:
        settings: the configuration; `write` writes it.
    """

    def __init__(self, folder: Path, couch: Any, database: CouchDatabase) -> None:
        self.database = database
        self.target = folder / "target.sqlite"
        self.plugins = folder / "plugins"
        self.plugins.mkdir()
        self.daemon = Pillowd(
            folder,
            pillows={name: self.pillow(name) for name in ("cases", "forms")},
            connections={
                "couch": couchdb(couch.url, couch.auth),
                "tables": {"type": "sqlite", "path": str(self.target)},
            },
            daemon={"plugins_path": [str(self.plugins)]},
        )
        self.settings = yaml.safe_load(self.daemon.config.read_text())

    def pillow(self, table: str, **more: Any) -> dict[str, Any]:
        return {
            "source": {"connection": "couch", "database": self.database.name},
            "transport": [{"connection": "tables", "table": table}],
            **more,
        }

    def start(self) -> None:
        self.write()
        self.daemon.start()
        self.wait_until_live(*self.settings["pillows"])

    def write(self) -> None:
        self.daemon.config.write_text(yaml.safe_dump(self.settings))

    def reload(self, event: str = "config.reloaded") -> Mapping[str, Any]:
        """Write the configuration, send SIGHUP, and return the event that ends the reload."""
        before = len(self.daemon.events(event))
        self.write()
        self.daemon.signal(signal.SIGHUP)
        self.daemon.wait_for(lambda: len(self.daemon.events(event)) > before)
        return self.daemon.events(event)[-1]

    def wait_until_live(self, *names: str) -> None:
        self.daemon.wait_for(lambda: live(self.daemon, *names))

    def runs(self, name: str) -> int:
        """How often a pillow was started."""
        key = self.key(name)
        return sum(
            event["pillow"] == key and event["state"] == "catching-up"
            for event in self.daemon.events("pillow.state")
        )

    def checkpoint(self, name: str) -> Mapping[str, Any]:
        saved: Mapping[str, Any] = call(self.daemon, "get_checkpoint", key=name)
        return saved

    def key(self, name: str) -> str:
        return f"{name}@couch/{self.database.name}"

    def rows(self, table: str) -> dict[str, str]:
        """The rows of a table: id -> document as JSON; none while there is no table."""
        with closing(sqlite3.connect(self.target)) as database:
            try:
                return dict(database.execute(f"select _id, doc from {table}"))
            except sqlite3.OperationalError:
                return {}

    def wait_for_row(self, table: str, id: str, text: str = "") -> None:
        self.daemon.wait_for(lambda: id in self.rows(table) and text in self.rows(table)[id])


@pytest.fixture
def reloading(tmp_path: Path, couch: Any, couch_db: CouchDatabase) -> Iterator[Reloading]:
    made = Reloading(tmp_path, couch, couch_db)
    yield made
    made.daemon.__exit__()


def test_only_what_has_changed_restarts(reloading: Reloading) -> None:
    reloading.start()
    reloading.settings["pillows"]["cases"]["transform"] = {"set": {"changed": True}}
    reloading.settings["pillows"]["visits"] = reloading.pillow("visits")
    event = reloading.reload()

    key = reloading.key
    assert event["changed"] == [key("cases")]
    assert event["added"] == [key("visits")]
    assert (event["removed"], event["unchanged"]) == ([], 1)
    reloading.wait_until_live("cases", "forms", "visits")
    reloading.database.put("a")
    reloading.wait_for_row("cases", "a", '"changed":true')
    reloading.wait_for_row("forms", "a")
    reloading.wait_for_row("visits", "a")
    assert (reloading.runs("cases"), reloading.runs("forms"), reloading.runs("visits")) == (2, 1, 1)
    lines = reloading.daemon.manager.lines()
    at = lines.index("RELOADING=1")
    assert lines[at + 1].startswith("MONOTONIC_USEC=")
    assert "READY=1" in lines[at + 1 :]
    assert reloading.daemon.stop() == 0


def test_a_removed_pillow_stops_and_keeps_its_position(reloading: Reloading) -> None:
    reloading.start()
    reloading.database.put("a")
    reloading.wait_for_row("forms", "a")
    removed = reloading.settings["pillows"].pop("forms")
    assert reloading.reload()["removed"] == [reloading.key("forms")]
    assert list(statuses(reloading.daemon)) == ["cases"]
    saved = reloading.checkpoint("forms")

    reloading.database.put("b")
    reloading.wait_for_row("cases", "b")
    assert "b" not in reloading.rows("forms")
    reloading.settings["pillows"]["forms"] = removed
    assert reloading.reload()["added"] == [reloading.key("forms")]
    reloading.wait_for_row("forms", "b")
    assert reloading.checkpoint("forms")["epoch"] == saved["epoch"], "it went on from there"


def test_a_configuration_with_problems_changes_nothing_and_each_is_logged(reloading: Reloading) -> None:
    reloading.start()
    good = reloading.settings["pillows"].pop("forms")
    reloading.settings["pillows"]["cases"]["transform"] = {"python": "nowhere:nothing"}
    reloading.settings["pillows"]["wrong"] = reloading.pillow("wrong", filter={"jmespath": "doc.["})
    reloading.settings["logging"] = {"level": "debug"}
    reloading.reload("config.refused")

    problems = reloading.daemon.events("config.problem")
    config = reloading.daemon.config
    assert all(str(each["reason"]).startswith(f"{config}:") for each in problems), problems
    keys = {"pillows.cases.transform.python", "pillows.wrong.filter.jmespath"}
    assert {key for key in keys for each in problems if key in each["reason"]} == keys
    reloading.database.put("a")
    for name in ("cases", "forms"):
        reloading.wait_for_row(name, "a")
        assert reloading.runs(name) == 1
    assert not any(event["level"] == "debug" for event in reloading.daemon.events())

    reloading.settings["pillows"] = {"cases": reloading.pillow("cases"), "forms": good}
    assert reloading.reload()["unchanged"] == 2
    reloading.daemon.wait_for(lambda: any(each["level"] == "debug" for each in reloading.daemon.events()))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("daemon", "state_dir", "/elsewhere"),
        ("logging", "format", "console"),
    ],
)
def test_what_needs_a_restart_is_refused_with_all_the_rest(
    reloading: Reloading, section: str, key: str, value: str
) -> None:
    reloading.start()
    reloading.settings.setdefault(section, {})[key] = value
    del reloading.settings["pillows"]["forms"]
    reloading.reload("config.refused")
    (problem,) = reloading.daemon.events("config.problem")
    assert f"{section}.{key}: needs a restart: it is " in problem["reason"]
    assert reloading.daemon.state("forms") == "live"


def test_a_changed_module_of_a_plugin_changes_the_pillows_that_use_it(reloading: Reloading) -> None:
    module = reloading.plugins / "marks_of_reload.py"
    module.write_text(PLUGIN.format(mark="one"))
    reloading.settings["pillows"]["cases"]["transform"] = {"python": "marks_of_reload:mark"}
    reloading.start()
    reloading.database.put("a")
    reloading.wait_for_row("cases", "a", "one")

    module.write_text(PLUGIN.format(mark="two"))
    assert reloading.reload()["changed"] == [reloading.key("cases")]
    reloading.database.put("b")
    reloading.wait_for_row("cases", "b", "two")
    assert reloading.runs("forms") == 1

    module.write_text("def mark(document) return 1")
    reloading.reload("config.refused")
    (problem,) = reloading.daemon.events("config.problem")
    assert "marks_of_reload:mark" in problem["reason"]
    reloading.database.put("c")
    reloading.wait_for_row("cases", "c", "two")
    assert reloading.runs("cases") == 2


def test_a_changed_source_or_output_is_still_refused_for_that_pillow_alone(reloading: Reloading) -> None:
    reloading.start()
    reloading.database.put("a")
    for name in ("cases", "forms"):
        reloading.wait_for_row(name, "a")
    reloading.settings["pillows"]["cases"]["source"]["selector"] = {"n": 1}
    reloading.settings["pillows"]["cases"]["source"] |= {"deletes": "ignore", "on_filtered": "ignore"}
    reloading.reload()
    reloading.daemon.wait_for(lambda: reloading.daemon.state("cases") == "failed")
    assert "pillowd checkpoint reset cases" in reloading.daemon.status("cases")["reason"]
    assert reloading.daemon.state("forms") == "live"

    reloading.settings["pillows"]["cases"] = reloading.pillow("cases")
    reloading.reload()
    reloading.wait_until_live("cases")


def test_a_table_that_changes_hands_is_written_by_one_pillow_at_a_time(reloading: Reloading) -> None:
    """The pillow `slow` takes its time to stop; its successor on the table waits for that."""
    (reloading.plugins / "slow_of_reload.py").write_text(
        textwrap.dedent(
            """
            import gevent
            from pathlib import Path
            def slow(document):
                if document["_id"] == "wait":
                    Path("waiting").touch()
                    while not Path("enough").exists():
                        gevent.sleep(0.05)
                return document
            """
        )
    )
    pillows = reloading.settings["pillows"]
    pillows["slow"] = reloading.pillow("shared", transform={"python": "slow_of_reload:slow"})
    reloading.start()
    reloading.database.put("wait")
    waiting, enough = (reloading.daemon.folder / name for name in ("waiting", "enough"))
    reloading.daemon.wait_for(waiting.exists)

    del pillows["slow"]
    pillows["heir"] = reloading.pillow("shared")
    pillows["cases"]["transform"] = {"set": {"changed": True}}
    reloading.write()
    reloading.daemon.signal(signal.SIGHUP)
    reloading.daemon.wait_for(lambda: "heir" in statuses(reloading.daemon))
    assert "until the pillow that wrote its outputs has stopped" in reloading.daemon.status("heir")["reason"]
    reloading.daemon.wait_for(lambda: reloading.runs("cases") == 2)
    assert reloading.runs("heir") == 0
    assert not reloading.daemon.events("config.reloaded"), "a reload ends when the former runs have"
    enough.touch()
    reloading.daemon.wait_for(lambda: reloading.daemon.events("config.reloaded"))
    reloading.daemon.wait_for(lambda: reloading.daemon.state("heir") in {"failed", "live"})
    assert "slow" not in statuses(reloading.daemon)


def test_signals_during_a_reload_cause_one_more(reloading: Reloading) -> None:
    reloading.start()
    reloading.write()
    for _ in range(20):
        reloading.daemon.signal(signal.SIGHUP)
    reloading.daemon.wait_for(lambda: reloading.daemon.events("config.reloaded"))
    reloading.settings["pillows"].pop("forms")
    assert reloading.reload()["removed"] or reloading.daemon.events("config.reloaded")[-2]["removed"]
    assert len(reloading.daemon.events("config.reloaded")) <= 3
    assert reloading.runs("cases") == 1


def test_the_command_waits_and_tells_what_has_changed(reloading: Reloading) -> None:
    reloading.start()
    reloading.settings["pillows"]["cases"]["transform"] = {"set": {"changed": True}}
    reloading.settings["pillows"]["visits"] = reloading.pillow("visits")
    del reloading.settings["pillows"]["forms"]
    reloading.write()
    checked = reloading.daemon.command("reload", "--check")
    key = reloading.key
    told = [
        "1 added, 1 changed, 1 removed, 0 unchanged",
        f"  + {key('visits')}",
        f"  ~ {key('cases')}",
        f"  - {key('forms')}",
    ]
    assert checked.stdout == "the configuration would be reloaded: " + "\n".join(told) + "\n"
    assert sorted(statuses(reloading.daemon)) == ["cases", "forms"]
    done = reloading.daemon.command("reload")
    assert done.stdout == "the configuration is reloaded: " + "\n".join(told) + "\n"
    assert sorted(statuses(reloading.daemon)) == ["cases", "visits"]
    reloading.database.put("a")
    reloading.wait_for_row("cases", "a", '"changed":true')

    reloading.settings["pillows"]["cases"]["transform"] = {"set": 7}
    reloading.daemon.config.write_text(yaml.safe_dump(reloading.settings) + "more: 1\n")
    refused = reloading.daemon.command("reload")
    assert refused.returncode == 78
    assert "2 problems in the configuration" in refused.stderr
    assert "pillows.cases.transform.set: " in refused.stderr
    assert reloading.runs("cases") == 2
    assert len(reloading.daemon.events("config.refused")) == 1, "the daemon knows of it"
    assert reloading.daemon.stop() == 0
    assert reloading.daemon.command("reload").returncode == 78
    reloading.write()
    reloading.settings["pillows"].pop("cases")
    reloading.write()
    assert reloading.daemon.command("reload").returncode == 75


def test_i1_a_failed_pillow_runs_again_once_its_transform_is_mended_and_reloaded(
    reloading: Reloading,
) -> None:
    """The steps are those of README's table: list the errors, correct the transform, reload, retry."""
    module = reloading.plugins / "mended_of_reload.py"
    module.write_text("def mark(document):\n    return document['missing']\n")
    pillow = reloading.settings["pillows"]["cases"]
    pillow |= {"transform": {"python": "mended_of_reload:mark"}, "errors": {"max_consecutive": 5}}
    reloading.start()
    reloading.database.fill(12)
    reloading.daemon.wait_for(lambda: reloading.daemon.state("cases") == "failed")
    module.write_text(PLUGIN.format(mark="mended"))
    (line,) = [each for each in README.splitlines() if each.startswith("| documents in a row could not")]
    remedies = [each.replace("KEY", "cases") for each in re.findall(r"`pillowd ([^`]+)`", line)]
    assert [each.split()[0] for each in remedies] == ["dead-letter", "reload", "dead-letter"]
    for remedy in remedies:
        done = reloading.daemon.command(*remedy.split())
        assert done.returncode == 0, done.stderr
    reloading.daemon.wait_for(lambda: len(reloading.rows("cases")) == 12)
    reloading.daemon.wait_for(lambda: reloading.daemon.status("cases")["dead_letters"] == 0)


def test_the_level_of_a_logger_changes_for_a_while(reloading: Reloading) -> None:
    reloading.start()
    done = reloading.daemon.ask_here("log-level", "pillowd.pillow", "debug", "--for", "1h")
    assert done == [{"name": "pillowd.pillow", "level": "debug", "seconds_left": pytest.approx(3600, abs=60)}]
    reloading.database.put("a")
    reloading.daemon.wait_for(lambda: reloading.daemon.events("batch.written"))
    assert reloading.daemon.command_here("log-level", "pillowd.pillow", "--reset").returncode == 0
    assert {each["level"] for each in reloading.daemon.ask_here("log-level")} == {"info"}
    assert (
        "did you mean `pillowd.pillow`" in reloading.daemon.command_here("log-level", "pillowd.pilow").stderr
    )
