"""Find the position in a checkpoint of an older system that read a CouchDB database.

Each of them keeps CouchDB's own token, so the position is found, not converted. The formats are those of

* Logstash's input plugin couchdb_changes 3.x: the file at `sequence_path`, the token as text;
* couch2pg and cht-sync: the table `couchdb_progress` with the columns `seq` and `source`, and in newer
  versions `pending` and `updated_at`, as CSV with a header or as a JSON list of rows;
* pillowtop: a checkpoint document of CouchDB with `seq`, or rows of the table
  `pillowtop_djangopillowcheckpoint` with `checkpoint_id`, `sequence` and `sequence_format`, as CSV, as a JSON
  list, or as Django's `dumpdata` writes them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from checkpoints import Seq
from daemon.cli.exit_codes import CommandError

#: A row or document of an older system.
Entry = Mapping[str, Any]


def find_position(system: str, text: str, entry: str | None) -> Any:
    """Return the token in the file, table or document of an older system.

    Args:
        system: one of `SYSTEMS`.
        text: its file, table or document.
        entry: the `source` or checkpoint id, if there are several.

    Raises:
        CommandError: the file has no position or several, or the position is not a token of CouchDB.
    """
    position = SYSTEMS[system](text.removeprefix("\ufeff").strip(), entry)
    if position in (None, "", []):
        raise CommandError(f"found no position. Remedy: give a file that {system} wrote")
    try:
        Seq.of(position)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CommandError(
            f"the position is not a token of CouchDB. Remedy: give a file that {system} wrote"
        ) from error
    return position


def parse_token(text: str) -> Any:
    """Parse a typed token: a number or a JSON list stays one, anything else is text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if type(value) in (int, list, str) else text


def _logstash(text: str, entry: str | None) -> Any:
    if entry is not None:
        raise CommandError("Logstash's file has one position and no entries. Remedy: remove --entry")
    if len(text.split("\n")) > 1:
        raise CommandError(
            "the file has several lines. Remedy: give Logstash's file, which has one line, the position"
        )
    return parse_token(text)


def _couchdb_progress(text: str, entry: str | None) -> Any:
    chosen = _chosen(_entries(text), ("source",), entry)
    return _token_of(chosen.get("seq"))


def _pillowtop(text: str, entry: str | None) -> Any:
    chosen = _chosen(_entries(text), ("_id", "checkpoint_id"), entry)
    sequence = chosen.get("seq", chosen.get("sequence"))
    if chosen.get("sequence_format") == "json" or isinstance(sequence, dict):
        raise CommandError(
            "the checkpoint holds Kafka offsets, which are not positions in CouchDB's feed. "
            "Remedy: start the pillow at the beginning"
        )
    return _token_of(sequence)


#: System -> the function that reads its file.
SYSTEMS: Mapping[str, Callable[[str, str | None], Any]] = {
    "logstash": _logstash,
    "couchdb-progress": _couchdb_progress,
    "pillowtop": _pillowtop,
}


def _token_of(value: Any) -> Any:
    return parse_token(value.strip()) if isinstance(value, str) else value


def _entries(text: str) -> list[Entry]:
    """Return the rows of a CSV file with a header, or the objects of a JSON document."""
    if not text.startswith(("[", "{")):
        try:
            return list(csv.DictReader(io.StringIO(text)))
        except csv.Error as error:
            raise CommandError(f"the file is not valid CSV: {error}") from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"the file is not valid JSON: {error}") from error
    found = value if isinstance(value, list) else [value]
    if not all(isinstance(each, dict) for each in found):
        raise CommandError("the JSON is not a list of objects")
    return [_flatten(each) for each in found]


def _flatten(row: Entry) -> Entry:
    """Return the columns of a row of Django's dumpdata: {"model": ..., "pk": ..., "fields": {...}}."""
    fields = row.get("fields")
    return {"checkpoint_id": row.get("pk"), **fields} if isinstance(fields, dict) else row


def _chosen(entries: Sequence[Entry], names: Sequence[str], wanted: str | None) -> Entry:
    def name(each: Entry) -> str:
        return str(next((each[key] for key in names if each.get(key)), ""))

    found = [each for each in entries if wanted is None or name(each) == wanted]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(sorted(map(name, entries))) or "none"
    problem = f"no entry {wanted!r}" if not found and wanted else f"{len(found)} entries"
    raise CommandError(f"found {problem}; entries: {listed}. Remedy: name one with --entry")
