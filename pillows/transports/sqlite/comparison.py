"""Compare the rows in an SQLite file with those that a write would store.

The expected rows are written into a table of the same definition in memory. So SQLite itself turns values
into what it stores (an integer in a `real` column, for one), and both sides are read alike.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import starmap
from typing import Any

from pillows.models import DocumentRows, leaf_version_of
from pillows.transports.common.same_json import is_same_json
from pillows.transports.sqlite.statements import Table
from pillows.transports.sqlite.writer import SqliteBatchWriter


def find_altered(
    db: sqlite3.Connection,
    scratch: sqlite3.Connection,
    output: str,
    table: Table,
    documents: Sequence[DocumentRows],
) -> set[str]:
    """Return the ids of documents with other rows than a write would store.

    Args:
        db: the target.
        scratch: an empty database with the same table.
        output: the table's.
        table: the table.
        documents: as for `KeyedTransport.find_altered`.
    """
    writer = SqliteBatchWriter(scratch, {output: table})
    refused = {
        document.id
        for document in documents
        if writer.put(document, document.leaf_version, {}, first_pass=True)
    }
    held = table.read_rows(db, [document.id for document in documents])
    expected = table.read_rows(scratch, list(held))
    return {
        document.id
        for document in documents
        if document.id in held
        and _is_version(held[document.id][0], document.leaf_version)
        and (
            document.id in refused
            or not _is_same(held[document.id][1], expected[document.id][1], table.json_places)
        )
    }


def _is_version(stored: int | None, leaf_version: int) -> bool:
    """Return whether a stored write version is that of a leaf version; a record that is gone says nothing."""
    return stored is None or leaf_version_of(stored) == leaf_version


def _is_same(
    held: Sequence[tuple[Any, ...]], expected: Sequence[tuple[Any, ...]], json_places: frozenset[int]
) -> bool:
    def is_same_value(place: int, one: Any, other: Any) -> bool:
        if place in json_places and isinstance(one, str) and isinstance(other, str):
            return is_same_json(one, other)
        return type(one) is type(other) and one == other

    return len(held) == len(expected) and all(
        len(one) == len(other) and all(starmap(is_same_value, zip(range(len(one)), one, other, strict=True)))
        for one, other in zip(held, expected, strict=True)
    )
