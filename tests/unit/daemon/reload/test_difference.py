"""The difference of two configurations, over generated ones; and over edits of one file."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from checkpoints import TailKey
from daemon.config.load import load
from daemon.config.models import Config
from daemon.reload.difference import Difference, compare, find_restart_needs, list_parts, overlap
from daemon.tail_lookup import tail_keys

NAMES = st.sampled_from([TailKey(name, "couch/db") for name in "abcdefgh"])
PARTS = st.dictionaries(NAMES, st.integers(0, 3))


@given(old=PARTS, new=PARTS)
def test_each_tail_has_one_fate(old: Mapping[TailKey, int], new: Mapping[TailKey, int]) -> None:
    found = compare(old, new)  # type: ignore[arg-type]  # only equality is asked of the parts
    fates = [*found.added, *found.changed, *found.removed, *found.unchanged]
    assert sorted(fates) == sorted(old.keys() | new.keys())
    assert len(fates) == len(set(fates))
    assert set(found.added) == new.keys() - old.keys()
    assert set(found.removed) == old.keys() - new.keys()
    assert set(found.changed) == {key for key in new if key in old and new[key] != old[key]}


@given(old=PARTS, between=PARTS, new=PARTS)
def test_a_sequence_of_differences_leads_to_the_last_configuration(
    old: Mapping[TailKey, int], between: Mapping[TailKey, int], new: Mapping[TailKey, int]
) -> None:
    running = dict(old)
    starts = dict.fromkeys(old, 1)
    for target in (between, between, new, old):
        found = compare(running, target)  # type: ignore[arg-type]  # as above
        for key in found.removed:
            del running[key]
        for key in (*found.added, *found.changed):
            starts[key] = starts.get(key, 0) + (running.get(key) != target[key])
            running[key] = target[key]
        assert running == target
        assert compare(running, target).unchanged == list(target)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({("pg", "a")}, {("pg", "b")}, False),
        ({("pg", "a")}, {("pg", "a")}, True),
        ({("pg", "a", "part")}, {("pg", "a")}, True),
        ({("pg", "a"), ("es", "x")}, {("es", "x")}, True),
        (set(), {("pg", "a")}, False),
    ],
)
def test_places_overlap_if_one_lies_within_the_other(
    first: set[tuple[str, ...]], second: set[tuple[str, ...]], expected: bool
) -> None:
    assert overlap(frozenset(first), frozenset(second)) is expected
    assert overlap(frozenset(second), frozenset(first)) is expected


BASE = """
version: 1
daemon: { state_dir: /var/lib/pillowd, admin: { listen: "unix:/run/pillowd/x.sock" } }
connections:
  couch: { type: couchdb, url: "http://127.0.0.1", auth: { type: basic, username: u, password: "${PW}" } }
  warehouse: { type: postgres, dsn: "postgresql://u@127.0.0.1/x", password: "${PGPW}" }
  files: { type: sqlite, path: /tmp/x.sqlite }
pillows:
  cases:
    source: { connection: couch, database: cases }
    transport: [{ connection: warehouse, table: cases }]
  forms:
    source: { connection: couch, database: forms }
    transport: [{ connection: files, table: forms }]
"""
ENVIRON = {"PW": "secret-one", "PGPW": "secret-two"}


class Edited:
    """The file above, and edits of it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "pillowd.yaml"

    def load(self, edit: str = "", environ: Mapping[str, str] = ENVIRON) -> Config:
        settings: Any = yaml.safe_load(BASE)
        if edit:
            exec(textwrap.dedent(edit), {"c": settings})
        self.path.write_text(yaml.safe_dump(settings))
        return load(self.path, environ)


@pytest.fixture
def edited(tmp_path: Path) -> Edited:
    return Edited(tmp_path)


def difference(old: Config, new: Config) -> Difference:
    return compare(
        list_parts(old, tail_keys(old), plugins=1),
        list_parts(new, tail_keys(new), plugins=1),
    )


@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        ("", []),
        ("c['pillows']['cases']['transform'] = {'set': {'a': 1}}", ["cases"]),
        ("c['pillows']['forms']['batch'] = {'max_docs': 7}", ["forms"]),
        ("c['pillows']['cases']['tests'] = [{'doc': {'_id': 'a'}, 'rows': [{'_id': 'a'}]}]", []),
        ("c['connections']['files']['path'] = '/tmp/y.sqlite'", ["forms"]),
        ("c['connections']['couch']['url'] = 'http://127.0.0.1:5985'", ["cases", "forms"]),
        ("c['connections']['unused'] = {'type': 'stdout'}", []),
        ("c['checkpoints'] = {'max_uncheckpointed': 7}", ["cases", "forms"]),
        ("c['daemon']['shutdown_timeout'] = '5s'", []),
        ("c['logging'] = {'level': 'debug'}", []),
    ],
)
def test_an_edit_changes_the_tails_that_are_built_from_it(
    edited: Edited, edit: str, changed: list[str]
) -> None:
    found = difference(edited.load(), edited.load(edit))
    assert [key.pillow for key in found.changed] == changed
    assert (found.added, found.removed) == ([], [])


def test_a_rotated_password_changes_the_tails_that_log_in_with_it(edited: Edited) -> None:
    rotated = edited.load(environ=ENVIRON | {"PGPW": "secret-three"})
    assert [key.pillow for key in difference(edited.load(), rotated).changed] == ["cases"]


def test_new_modules_of_plugins_change_the_tails_that_use_one(edited: Edited, tmp_path: Path) -> None:
    (tmp_path / "reload_plugin.py").write_text("def keep(document):\n    return True\n")
    edit = f"""
        c['daemon']['plugins_path'] = [{str(tmp_path)!r}]
        c['pillows']['cases']['filter'] = {{'python': 'reload_plugin:keep'}}
    """
    config = edited.load(edit)
    first, second = (list_parts(config, tail_keys(config), plugins=number) for number in (7, 8))
    assert [parts.plugins for parts in first.values()] == [7, 0]
    assert [key.pillow for key in compare(first, second).changed] == ["cases"]


def test_another_database_is_another_tail(edited: Edited) -> None:
    found = difference(edited.load(), edited.load("c['pillows']['cases']['source']['database'] = 'other'"))
    assert found.added == [TailKey("cases", "couch/other")]
    assert found.removed == [TailKey("cases", "couch/cases")]


def test_the_places_of_a_tail_are_those_that_it_writes(edited: Edited) -> None:
    config = edited.load()
    cases, forms = list_parts(config, tail_keys(config), plugins=1).values()
    assert cases.places
    assert not overlap(cases.places, forms.places)
    heir = edited.load("c['pillows'] = {'heir': c['pillows']['cases']}")
    (parts,) = list_parts(heir, tail_keys(heir), plugins=1).values()
    assert overlap(parts.places, cases.places)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            "c['daemon']['state_dir'] = '/srv'",
            "daemon.state_dir: needs a restart: it is /var/lib/pillowd",
        ),
        (
            "c['daemon']['admin']['listen'] = 'unix:/y'",
            "now, and would become unix:/y",
        ),
        ("c['logging'] = {'format': 'console'}", "logging.format: needs a restart: it is json now"),
        (
            "c['daemon']['http'] = {'hosts': ['proxy.example']}",
            "daemon.http: needs a restart: its settings have changed",
        ),
    ],
)
def test_what_needs_a_restart_is_named_with_its_line(edited: Edited, edit: str, words: str) -> None:
    (problem,) = find_restart_needs(edited.load(), edited.load(edit))
    assert words in str(problem)
    assert problem.place.line > 0
    assert list(find_restart_needs(edited.load(), edited.load())) == []


def test_another_content_of_a_named_file_changes_the_tails_that_have_read_it(
    edited: Edited, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    config = edited.load(
        "c['connections']['web'] = {'type': 'webhook', 'url': 'https://127.0.0.1:9'}\n"
        f"c['connections']['web']['ca_bundle'] = {str(bundle)!r}\n"
        "c['pillows']['forms']['transport'] = [{'connection': 'web'}]"
    )

    def parts() -> Any:
        return list_parts(config, tail_keys(config), plugins=1)

    missing = parts()
    bundle.write_text("one")
    first = parts()
    assert [key.pillow for key in compare(missing, first).changed] == ["forms"]
    assert compare(first, parts()).changed == []
    for text in ("two", "one and another certificate", "one" + "x" * 300_000 + "y"):
        bundle.write_text(text)
        assert [key.pillow for key in compare(first, parts()).changed] == ["forms"]
    assert "xxx" not in repr(parts())
    bundle.unlink()
    assert compare(missing, parts()).changed == []
    bundle.mkdir()
    assert compare(missing, parts()).changed == []
