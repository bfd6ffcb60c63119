"""Runs the `tests` of pillows: a document in, its rows out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from daemon.assembly import build_pillow
from daemon.config.models import Config
from daemon.config.pipeline import CaseOptions
from daemon.config.problems import ConfigProblem
from pillows.models import Change, Document
from pillows.pillow import Pillow

#: Longer rows are cut in a message.
_SHOWN_CHARACTERS = 300


def check_cases(config: Config) -> list[ConfigProblem]:
    """A problem for every test of an enabled pillow that fails, at its place.

    Raises:
        ConfigError: a function can't be found; `check_imports` tells where.
    """
    found = []
    for name, settings in config.pillows.items():
        if not settings.enabled or not settings.tests:
            continue
        pillow = build_pillow(name, settings, config.daemon.plugins_path)
        for index, case in enumerate(settings.tests):
            message = failure(pillow, case, skip_design=settings.source.skip_design)
            if message:
                path = ("pillows", name, "tests", index)
                told = f"the test {case.name!r} fails: {message}" if case.name else f"fails: {message}"
                found.append(config.problem(path, told, "correct the pillow, or what the test expects"))
    return found


def failure(pillow: Pillow, case: CaseOptions, *, skip_design: bool) -> str:
    """Why a test of a pillow fails; empty where it passes.

    Args:
        pillow: the pipeline.
        case: a document, and what is expected of it.
        skip_design: the feed leaves design documents out, so none arrives.
    """
    try:
        rows = _rows(pillow, _change(case), skip_design=skip_design)
    except Exception as error:  # noqa: BLE001 - a user's code may raise anything
        return f"{type(error).__name__}: {error}"
    expected = _expected(pillow, case)
    for output in pillow.outputs:
        got, wanted = rows.get(output, []), expected.get(output, [])
        if got != wanted:
            return f"expected of `{output}` {_shown(wanted)}, got {_shown(got)}"
    unknown = expected.keys() - set(pillow.outputs)
    return f"there is no output `{min(unknown)}`" if unknown else ""


def _expected(pillow: Pillow, case: CaseOptions) -> dict[str, list[Any]]:
    if isinstance(case.rows, Mapping):
        return {output: [dict(row) for row in rows] for output, rows in case.rows.items()}
    return {pillow.outputs[0]: [dict(row) for row in case.rows]}


def _change(case: CaseOptions) -> Change:
    doc, change = case.doc, case.change
    deleted = bool(doc.get("_deleted")) if change.deleted is None else change.deleted
    return Change(
        id=str(doc.get("_id", "test")),
        revs=change.revs or (str(doc.get("_rev", "1-test")),),
        leaf_version=1,
        deleted=deleted,
        raw=None if deleted else msgspec.Raw(msgspec.json.encode(doc)),
    )


def _rows(pillow: Pillow, change: Change, *, skip_design: bool) -> dict[str, list[Any]]:
    if skip_design and change.id.startswith("_design/"):
        return {}
    if change.deleted or not pillow.filter(change):
        return {}
    document = Document(id=change.id, rev=change.rev, leaf_version=1, deleted=False, raw=change.raw)
    made = pillow.transform(document)
    # As JSON, since that is what a configuration can say.
    return {output: [json.loads(msgspec.json.encode(row)) for row in rows] for output, rows in made.items()}


def _shown(rows: Sequence[Any]) -> str:
    text = json.dumps(rows, ensure_ascii=False) if rows else "no rows"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
