"""Write to CouchDB databases: documents made of rows, or copies with their revisions.

Mode `upsert` (`upsert_writer`) writes the transform's rows as ordinary edits. Mode `replicate`
(`replica_writer`) copies documents as replication does, conflicts and attachments included; the
transform then only decides whether a document has a row, and nothing but pillowd and replications may
write to the database.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from checkpoints import Checkpoint, TailKey
from pillows.couch.client import CouchClient
from pillows.couch.options import CouchConnection
from pillows.errors import ConfigError
from pillows.models import VERSION_BITS, Batch, DocumentRows, WriteResult, newest, write_version
from pillows.options import Options, OutputOptions
from pillows.transports.base import KeyedTransport, Stored, TargetState
from pillows.transports.couchdb.options import CouchdbOutput
from pillows.transports.couchdb.replica_writer import ReplicaWriter
from pillows.transports.couchdb.target import TargetDatabase, TargetLeaf
from pillows.transports.couchdb.upsert_writer import UpsertWriter, make_edits


class CouchdbTransport(KeyedTransport):
    """Writes to CouchDB; see the module."""

    TYPE: ClassVar[str] = "couchdb"
    Connection: ClassVar[type[Options]] = CouchConnection
    Output: ClassVar[type[OutputOptions]] = CouchdbOutput
    takes_json: ClassVar[bool] = True
    verifiable: ClassVar[bool] = True

    def __init__(
        self, name: str, key: TailKey, connection: CouchConnection, outputs: Mapping[str, CouchdbOutput]
    ) -> None:
        super().__init__(name, key, connection, outputs)
        databases = [options.database for options in outputs.values()]
        if len(set(databases)) < len(databases):
            raise ConfigError(f"Two outputs of {name} name the same database.")
        self._couch = CouchClient(connection)
        self._source: tuple[CouchConnection, str] | None = None
        self._source_couch: CouchClient | None = None
        self._targets = {
            output: TargetDatabase(self._couch, options.database, key) for output, options in outputs.items()
        }
        self._writers: dict[str, UpsertWriter | ReplicaWriter] = {}

    @property
    def needs_deletions(self) -> bool:
        """Whether an output is a replica, which has deleted documents too."""
        return any(options.mode == "replicate" for options in self.outputs.values())

    def set_source(self, connection: Options, database: str) -> None:
        """Set the source: `replicate` reads there."""
        if not isinstance(connection, CouchConnection):
            return
        for output, options in self.outputs.items():
            if database == options.database and set(connection.urls) & set(self.connection.urls):
                raise ConfigError(
                    f"Output {output!r} is the source itself.", remedy="name another database to write to"
                )
        self._source = (connection, database)

    def preview(self, batch: Batch) -> str:
        """Return the documents as they would be written to a database without any of them."""
        texts = []
        for output, options in self.outputs.items():
            for document in newest(batch.documents):
                rows = document.rows.get(output, ())
                if options.mode == "replicate":
                    what = "all revisions are copied" if rows else "it is removed"
                    texts.append(f"-- {options.database}: {document.id!r}: {what}\n")
                    continue
                bodies = make_edits(document, rows, write_version(batch.epoch, document.leaf_version), ())
                texts += [f"POST /{options.database}/_bulk_docs\n{body.decode()}\n" for body in bodies]
        return "".join(texts)

    def open(self) -> TargetState:
        """Create missing databases and read the epochs; see `Transport.open`."""
        self.close()
        self._writers = {output: self._make_writer(output) for output in self.outputs}
        found = {
            o: self._targets[o].open(create=options.create, by_revisions=options.mode == "replicate")
            for o, options in self.outputs.items()
        }
        return TargetState.merge(found)

    def acquire(self, checkpoint: Checkpoint) -> None:
        """Store the epoch in each database; see `Transport.acquire`."""
        for target in self._targets.values():
            target.raise_epoch(checkpoint.epoch)

    def write(self, batch: Batch) -> WriteResult:
        """Write to one database after the other; see `Transport.write`."""
        documents = newest(batch.documents)
        results = [
            writer.write(
                [(document, document.rows.get(output, ())) for document in documents],
                batch.epoch,
                first_pass=batch.first_pass,
            )
            for output, writer in self._writers.items()
        ]
        return _merge_results(
            results, {d.id: batch.epoch << VERSION_BITS | d.leaf_version for d in documents}
        )

    def finish_pass(self, epoch: int, kept: Collection[str] = ()) -> int:
        """Remove documents that the pass did not meet; see `Transport.finish_pass`."""
        return sum(writer.sweep(epoch, frozenset(kept)) for writer in self._writers.values())

    def stored(self, output: str, ids: Sequence[str] | None = None) -> Iterator[Sequence[Stored]]:
        """Yield pages of the documents of a database; a replica compares revisions, not write versions."""
        target = self._targets[output]
        is_replica = self.outputs[output].mode == "replicate"
        pages = target.read_pages() if ids is None else [_list_winners(target.get_leaves(ids))]
        for page in pages:
            yield [
                Stored(id=leaf.id, rev=leaf.rev)
                if is_replica
                else Stored(id=leaf.id, write_version=leaf.write_version)
                for leaf in page
                if not leaf.deleted and (is_replica or isinstance(leaf.write_version, int))
            ]

    def describe_incomparable(self, output: str) -> str:
        """Return why documents are not compared: a replica's revisions are digests of them."""
        if self.outputs[output].mode == "replicate":
            return "it is a replica: equal revisions are equal documents"
        return ""

    def find_altered(self, output: str, documents: Sequence[DocumentRows]) -> set[str]:
        """Return the ids of documents whose fields in the database differ from those of their row.

        See `KeyedTransport.find_altered`.
        """
        items = [(document, document.rows[output]) for document in documents]
        return UpsertWriter(self._targets[output]).find_altered(items)

    def close(self) -> None:
        """Close every connection."""
        self._couch.close()
        if self._source_couch is not None:
            self._source_couch.close()
            self._source_couch = None

    def output_kinds(self) -> Iterable[tuple[Any, ...]]:
        """Return the databases and modes."""
        return ((output, options.database, options.mode) for output, options in self.outputs.items())

    def _make_writer(self, output: str) -> UpsertWriter | ReplicaWriter:
        if self.outputs[output].mode == "upsert":
            return UpsertWriter(self._targets[output])
        if self._source is None:
            raise ConfigError(
                f"Output {output!r} replicates, but its source is not a CouchDB server.",
                remedy="use mode: upsert",
            )
        connection, database = self._source
        self._source_couch = self._source_couch or CouchClient(connection)
        return ReplicaWriter(self._targets[output], self._source_couch, database)


def _merge_results(results: Sequence[WriteResult], ours: Mapping[str, int]) -> WriteResult:
    """Return the outcome over all databases.

    A document that some databases refused for an equal write version, and the others accepted, was
    written there before a failure: it is applied. The caller examines any write version above ours.
    """
    dead = {id: why for result in results for id, why in result.dead.items()}
    retry = {id: why for result in results for id, why in result.retry.items() if id not in dead}
    refusals: dict[str, list[int]] = {}
    for result in results:
        for id, stored in result.refused.items():
            refusals.setdefault(id, []).append(stored)
    refused = {
        id: max(stored)
        for id, stored in refusals.items()
        if id not in dead and id not in retry and (len(stored) == len(results) or max(stored) > ours[id])
    }
    return WriteResult(refused=refused, dead=dead, retry=retry)


def _list_winners(leaves: Mapping[str, Sequence[TargetLeaf]]) -> list[TargetLeaf]:
    return [winner for winner, *_ in leaves.values()]
