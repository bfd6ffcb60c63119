"""Elasticsearch: bulk requests into an index of the pillow's own, guarded by external versions.

Each output is one index, with at most one document a row, under the document's own id. What is
where: `_elasticsearch_index` (names, aliases, ownership), `_elasticsearch_bulk` (the format, and what
answers mean), `_elasticsearch_writer` (sending, sweeping), `_elasticsearch_client` (the client and
its errors), `_elasticsearch_options` (settings).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from elasticsearch import Elasticsearch

from checkpoints import Checkpoint, TailKey
from pillows.errors import ConfigError, FatalError, PermanentError
from pillows.models import Batch, DocumentRows, WriteResult
from pillows.transports.base import KeyedTransport, Stored, TargetState, newest
from pillows.transports.elasticsearch.bulk import Tally, operations
from pillows.transports.elasticsearch.connection import check_versions, connect
from pillows.transports.elasticsearch.mirror import ElasticsearchMirror
from pillows.transports.elasticsearch.options import ElasticsearchConnection, ElasticsearchOutput
from pillows.transports.elasticsearch.schema import GuardedIndex, plan
from pillows.transports.elasticsearch.writer import IndexWriter, bulk_params, bulk_path

#: A request of a killed pillowd may still be on its way into an index that was there before. Until
#: it must have arrived, documents without rows are deleted even where none seems to be: the delete
#: is what refuses the late arrival.
_SETTLE_SECONDS = 120.0

#: How often expired tombstones are looked for; each time one page is removed.
_PURGE_SECONDS = 60.0


class ElasticsearchTransport(KeyedTransport):
    """Writes into Elasticsearch. See `Transport` for the arguments and the promises."""

    TYPE = "elasticsearch"
    Connection = ElasticsearchConnection
    Output = ElasticsearchOutput
    mirror = ElasticsearchMirror()
    concurrent = True
    verifiable = True

    connection: ElasticsearchConnection
    outputs: Mapping[str, ElasticsearchOutput]

    def __init__(
        self,
        name: str,
        key: TailKey,
        connection: ElasticsearchConnection,
        outputs: Mapping[str, ElasticsearchOutput],
    ) -> None:
        super().__init__(name, key, connection, outputs)
        self._heir_of: Collection[TailKey] = ()
        self._client: Elasticsearch | None = None
        self._indices: dict[str, GuardedIndex] = {}
        self._writers: dict[str, IndexWriter] = {}
        self._settled_at = 0.0
        self._purge_at = 0.0

    def check(self) -> str:
        """Connects and looks at the version; see `Transport.check`."""
        self._refuse_shared()
        self._connect()
        return "Elasticsearch answers, in a version that we speak"

    def preview(self, batch: Batch) -> str:
        """The bulk requests, one for each index."""
        documents, texts = newest(batch.documents), []
        for output, options in self.outputs.items():
            stamp = None if options.deletes == "hard" else int(time.time() * 1000)
            made, dead = operations(documents, output, batch.epoch, deleted_at_ms=stamp)
            if dead:
                raise PermanentError("; ".join(f"{id}: {why}" for id, why in dead.items()))
            bodies = "".join(operation.body.decode() for operation in made)
            params = urlencode(bulk_params(options, self.connection), safe=",*", quote_via=quote)
            texts.append(f"POST {bulk_path(plan(options))}?{params}\n{bodies}")
        return "\n".join(texts)

    def set_predecessors(self, former: Collection[TailKey]) -> None:
        """Takes the indices of these tails for its own; see `Transport.set_predecessors`."""
        self._heir_of = former

    def open(self) -> TargetState:
        """Connects, creates missing indices, and tells what they remember of this tail.

        Raises:
            RetryableError: the cluster is away.
            AccessError: it does not let us in.
            ConfigError: it is no Elasticsearch of our major version; a name is taken; it refuses
                the mapping, the settings or the pipeline.
        """
        self._refuse_shared()
        self._connect()
        found = {output: index.open() for output, index in self._indices.items()}
        created = all(one.created for one in found.values())
        self._settled_at = time.monotonic() + (0 if created else _SETTLE_SECONDS)
        standings = {output: TargetState(epoch=one.epoch, empty=one.empty) for output, one in found.items()}
        return TargetState.merge(standings)

    def acquire(self, checkpoint: Checkpoint) -> None:
        """Notes epoch and number of edits in the `_meta` of every index; there is no fence."""
        for index in self._opened().values():
            index.acquire(epoch=checkpoint.epoch, edits=checkpoint.edits)

    def write(self, batch: Batch) -> WriteResult:
        """Writes a batch, an output after the other.

        Raises:
            RetryableError: the cluster is away or busy; what was sent may still be applied.
            AccessError: it does not let us write.
            FatalError: an index is gone.
        """
        self._opened()
        self._purge_if_due()
        documents = newest(batch.documents)
        tally = Tally()
        for output, writer in self._writers.items():
            needed = self._needed(documents, output, writer) if batch.first_pass else documents
            writer.replace(needed, output, batch.epoch, tally)
        return tally.result()

    def finish_pass(self, epoch: int, kept: Collection[str] = ()) -> int:
        """Removes documents of lower epochs but for the kept ones, then points each alias to its index.

        Raises:
            RetryableError: the cluster is away or busy; call again.
            FatalError: see `write`.
        """
        tally = Tally()
        for output, index in self._opened().items():
            self._writers[output].sweep(epoch, frozenset(kept), tally)
            index.publish()
        return tally.removed

    def stored(self, output: str, ids: Sequence[str] | None = None) -> Iterator[Sequence[Stored]]:
        """The documents of an index as of now, page by page; see `Transport.stored`."""
        self._connect()
        for hits in self._writers[output].stored(ids):
            yield [Stored(id=hit["_id"], write_version=hit["_version"]) for hit in hits]

    def close(self) -> None:
        """Closes the client's connections."""
        client, self._client = self._client, None
        self._indices, self._writers = {}, {}
        if client is not None:
            client.close()

    def output_kinds(self) -> Iterable[tuple[Any, ...]]:
        """Return every output's alias, and the digest of its mapping and settings."""
        return (
            (output, planned.alias, planned.digest)
            for output, planned in ((output, plan(options)) for output, options in self.outputs.items())
        )

    def _refuse_shared(self) -> None:
        aliases = [output.index for output in self.outputs.values()]
        for alias in {alias for alias in aliases if aliases.count(alias) > 1}:
            raise ConfigError(
                f"Two outputs of {self.key} write to the index {alias!r}.", remedy="give each an index"
            )

    def _connect(self) -> None:
        self.close()
        self._client = client = connect(self.connection)
        check_versions(client)
        self._indices = {
            name: GuardedIndex(client, self.key, one, heir_of=self._heir_of)
            for name, one in self.outputs.items()
        }
        self._writers = {
            name: IndexWriter(client, index, self.connection) for name, index in self._indices.items()
        }

    def _opened(self) -> Mapping[str, GuardedIndex]:
        if self._client is None:
            raise FatalError(f"Transport {self.name} was used before it was opened.")
        return self._indices

    def _needed(
        self, documents: Sequence[DocumentRows], output: str, writer: IndexWriter
    ) -> Sequence[DocumentRows]:
        """Leaves out what has no row and leaves none behind: most of what a filter drops."""
        bare = [document.id for document in documents if not document.rows.get(output)]
        if not bare or time.monotonic() < self._settled_at:
            return documents
        present = writer.present(bare)
        return [d for d in documents if d.rows.get(output) or d.id in present]

    def _purge_if_due(self) -> None:
        if time.monotonic() < self._purge_at:
            return
        self._purge_at = time.monotonic() + _PURGE_SECONDS
        for output, writer in self._writers.items():
            if self.outputs[output].deletes == "tombstone":
                writer.purge()
