"""Run the `tests` of pillows: a document in, its rows out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from daemon.assembly.pipelines import build_pillow
from daemon.config.models import Config
from daemon.config.pipeline import CaseOptions
from daemon.config.problems import ConfigProblem
from pillows.errors import ConfigError
from pillows.models import Change, Document
from pillows.pillow import Pillow
from pillows.user_code import confine, describe_error

#: Most characters of rows in a message.
_SHOWN_CHARACTERS = 300


def check_pillow_tests(config: Config, *, within_daemon: bool = False) -> list[ConfigProblem]:
    """Return a problem for every failed test of an enabled pillow.

    Args:
        config: a valid configuration.
        within_daemon: leave out isolated pillows, whose functions are not called in the daemon.

    Raises:
        ConfigError: a function can't be found; `check_functions` reports where.
    """
    found = []
    for name, settings in config.pillows.items():
        if not settings.enabled or not settings.tests or (within_daemon and settings.isolate):
            continue
        pillow = build_pillow(name, settings, config.daemon.plugins_path)
        for index, case in enumerate(settings.tests):
            message = find_failure(pillow, case, skip_design=settings.source.skip_design)
            if message:
                path = ("pillows", name, "tests", index)
                text = f"the test {case.name!r} fails: {message}" if case.name else f"fails: {message}"
                found.append(config.problem(path, text, "correct the pillow or the test"))
    return found


def find_failure(pillow: Pillow, case: CaseOptions, *, skip_design: bool) -> str:
    """Return why a test of a pillow fails; empty if it passes.

    Args:
        pillow: the pipeline.
        case: the document and its expected rows.
        skip_design: the feed leaves out design documents.
    """
    try:
        rows = _make_rows(pillow, _make_change(case), skip_design=skip_design)
    except BaseException as error:  # noqa: BLE001 - a user's code may raise anything
        return describe_error(confine(error), with_text=True)
    expected = _list_expected(pillow, case)
    for output in pillow.outputs:
        got, wanted = rows.get(output, []), expected.get(output, [])
        if got != wanted:
            return f"expected of `{output}` {_format_rows(wanted)}, got {_format_rows(got)}"
    unknown = expected.keys() - set(pillow.outputs)
    return f"there is no output `{min(unknown)}`" if unknown else ""


def _list_expected(pillow: Pillow, case: CaseOptions) -> dict[str, list[Any]]:
    if isinstance(case.rows, Mapping):
        return {output: [dict(row) for row in rows] for output, rows in case.rows.items()}
    return {pillow.outputs[0]: [dict(row) for row in case.rows]}


def _make_change(case: CaseOptions) -> Change:
    doc, change = case.doc, case.change
    deleted = bool(doc.get("_deleted")) if change.deleted is None else change.deleted
    return Change(
        id=str(doc.get("_id", "test")),
        revs=change.revs or (str(doc.get("_rev", "1-test")),),
        leaf_version=1,
        deleted=deleted,
        raw=None if deleted else msgspec.Raw(msgspec.json.encode(doc)),
    )


def _refuse_reading(change: Change) -> Document:
    raise ConfigError(f"The test has no document {change.id!r}.")


def _make_rows(pillow: Pillow, change: Change, *, skip_design: bool) -> dict[str, list[Any]]:
    if skip_design and change.id.startswith("_design/"):
        return {}
    if change.deleted or not pillow.filter(change):
        return {}
    document = pillow.trigger(_refuse_reading, lambda *_: None)(change)
    made = {} if document.deleted else pillow.transform(document)
    # As JSON, since the expected rows are written in JSON's types.
    return {output: [json.loads(msgspec.json.encode(row)) for row in rows] for output, rows in made.items()}


def _format_rows(rows: Sequence[Any]) -> str:
    text = json.dumps(rows, ensure_ascii=False) if rows else "no rows"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
