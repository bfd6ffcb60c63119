"""A transport outside of the tree: a JSON file per table. It imports the plug-in API alone."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from pillows import (
    Batch,
    Checkpoint,
    Duration,
    Endpoint,
    KeyedTransport,
    MirrorSupport,
    Options,
    OutputOptions,
    Stored,
    TargetState,
    WriteResult,
    newest,
    write_version,
)


class ToyConnection(Options):
    """A folder of toys.

    Attributes:
        folder: where the tables are.
        drawer: where tables are that name none.
    """

    folder: Path
    drawer: str = "top"


class ToyOutput(OutputOptions):
    """A table of toys.

    Attributes:
        drawer: the table's drawer; the connection's unless given.
        box: the table's file.
        columns: column -> `"path type"`; the fields that are kept, all unless given.
        patience: no row depends on it.
    """

    ADDRESS_KEYS: ClassVar[tuple[str, ...]] = ("drawer", "box")
    NOT_SHAPING: ClassVar[frozenset[str]] = frozenset({"patience"})

    drawer: str | None = None
    box: str
    columns: Mapping[str, str] = {}
    patience: Duration = 1.0

    def addresses(self, connection: Any) -> frozenset[tuple[str, ...]]:
        return frozenset({("toy", str(_path(connection, self).resolve()))})


class ToyMirror(MirrorSupport):
    """A box in a folder."""

    SCHEMES: ClassVar[tuple[str, ...]] = ("toys",)
    FORM: ClassVar[str] = "toys:FOLDER"
    COLUMN_TYPES: ClassVar[Mapping[str, str]] = {"text": "text", "number": "numeric"}

    def parse(self, text: str) -> Endpoint:
        folder = Path(text.removeprefix("toys:")).absolute()
        return Endpoint(connection={"type": "toy", "folder": str(folder)}, folder=folder)

    def make_output(self, name: str) -> Mapping[str, Any]:
        return {"box": name}

    def read_columns(self, connection: Any, output: Any) -> Mapping[str, str]:
        path = _path(connection, output)
        return json.loads(path.read_text())["columns"] if path.exists() else {}


class ToyTransport(KeyedTransport):
    """Keeps rows in JSON files, each replaced as a whole."""

    TYPE: ClassVar[str] = "toy"
    Connection: ClassVar[type[Options]] = ToyConnection
    Output: ClassVar[type[OutputOptions]] = ToyOutput
    mirror: ClassVar[MirrorSupport | None] = ToyMirror()
    verifiable: ClassVar[bool] = True

    def check(self) -> str:
        return f"{self.connection.folder} is full of toys"

    def open(self) -> TargetState:
        tables = [self._read(output) for output in self.outputs]
        epochs = [table["epoch"] for table in tables if table["epoch"] is not None]
        return TargetState(epoch=max(epochs, default=None), empty=not any(table["rows"] for table in tables))

    def acquire(self, checkpoint: Checkpoint) -> None:
        for output in self.outputs:
            table = self._read(output)
            self._write(output, table | {"epoch": max(table["epoch"] or 0, checkpoint.epoch)})

    def write(self, batch: Batch) -> WriteResult:
        refused: dict[str, int] = {}
        for output in self.outputs:
            table = self._read(output)
            for document in newest(batch.documents):
                ours = write_version(batch.epoch, document.leaf_version)
                stored = table["rows"].get(document.id, [-1])[0]
                if stored >= ours:
                    refused[document.id] = stored
                else:
                    rows = [dict(cast("Mapping[str, Any]", row)) for row in document.rows.get(output, ())]
                    table["rows"][document.id] = [ours, document.rev, rows]
            self._write(output, table)
        return WriteResult(refused=refused)

    def finish_pass(self, epoch: int, kept: Collection[str] = ()) -> int:
        removed = 0
        for output in self.outputs:
            table = self._read(output)
            rows = {
                id: row
                for id, row in table["rows"].items()
                if row[0] >= write_version(epoch, 0) or id in kept
            }
            removed += len(table["rows"]) - len(rows)
            self._write(output, table | {"rows": rows})
        return removed

    def stored(self, output: str, ids: Sequence[str] | None = None) -> Iterator[Sequence[Stored]]:
        rows = self._read(output)["rows"]
        yield [
            Stored(id=id, write_version=version, rev=rev)
            for id, (version, rev, its) in rows.items()
            if its and (ids is None or id in ids)
        ]

    def close(self) -> None:
        pass

    def _read(self, output: str) -> dict[str, Any]:
        path = _path(self.connection, self.outputs[output])
        if path.exists():
            table: dict[str, Any] = json.loads(path.read_text())
            return table
        types = {name: text.partition(" ")[2] for name, text in self.outputs[output].columns.items()}
        return {"epoch": None, "columns": {"_id": "text", **types}, "rows": {}}

    def _write(self, output: str, table: dict[str, Any]) -> None:
        path = _path(self.connection, self.outputs[output])
        path.parent.mkdir(exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(table))
        os.replace(fresh, path)


def _path(connection: ToyConnection, output: ToyOutput) -> Path:
    return connection.folder / (output.drawer or connection.drawer) / f"{output.box}.json"
