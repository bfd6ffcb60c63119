"""Writes bulk requests into indices that the pillow owns, guarded by external versions.

Each output is one index, with at most one row per document, under the document's own id.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from msgspec.structs import replace

from checkpoints import Checkpoint, TailKey
from pillows.errors import ConfigError, FatalError, PermanentError
from pillows.models import Batch, DocumentRows, WriteResult, newest
from pillows.serial_worker import SerialWorker
from pillows.transports.base import KeyedTransport, Part, Stored, TargetState
from pillows.transports.common.search.client import AnswerError, SearchClient
from pillows.transports.common.search.encoder import SOURCE, encode_mark, encode_operations, find_gone
from pillows.transports.common.search.errors import BulkResult, translate_errors
from pillows.transports.common.search.index.old_indices import OldIndices
from pillows.transports.common.search.index.schema import OwnedIndex
from pillows.transports.common.search.index.spec import make_spec
from pillows.transports.common.search.options import SearchConnection, SearchOutput
from pillows.transports.common.search.switch import SearchSwitch
from pillows.transports.common.search.writer import IndexWriter, make_bulk_params, make_bulk_path

#: A request of a killed pillowd may still be on its way into an existing index. Until it must have
#: arrived, documents without rows are deleted even if none is found: the delete refuses the late
#: arrival.
_SETTLE_SECONDS = 120.0

#: Said of an index that another one has replaced before it was full.
_GIVEN_UP = "its first pass was given up, so it refreshes again and has its copies"

#: Stands in a preview for the fields that the index holds of a deleted document.
_KEPT = "... all fields that the index holds"

#: Interval of searches for expired tombstones; each removes one page.
_PURGE_SECONDS = 60.0


class SearchTransport(KeyedTransport):
    """Writes into a cluster. See `Transport` for the arguments and the promises."""

    concurrent = True
    verifiable = True
    takes_json = True
    shareable = True
    divisible = True

    connection: SearchConnection
    outputs: Mapping[str, SearchOutput]

    def __init__(
        self,
        name: str,
        key: TailKey,
        connection: SearchConnection,
        outputs: Mapping[str, SearchOutput],
    ) -> None:
        super().__init__(name, key, connection, outputs)
        self._predecessors: Collection[TailKey] = ()
        self._client: SearchClient | None = None
        self._indices: dict[str, OwnedIndex] = {}
        self._writers: dict[str, IndexWriter] = {}
        self._compressor = SerialWorker()
        self._source_connection: str | None = None
        self._is_part = False
        self._settled_at = 0.0
        self._purge_at = 0.0

    def check(self) -> str:
        """Connect and check the version; see `Transport.check`."""
        self._check_distinct()
        client = self._connect()
        return f"{client.PRODUCT} answers, in a supported version"

    def preview(self, batch: Batch) -> str:
        """Return the bulk requests, one for each index."""
        documents, texts = newest(batch.documents), []
        for output, options in self.outputs.items():
            now_ms = int(time.time() * 1000)
            made, dead = encode_operations(
                documents,
                output,
                batch.epoch,
                deleted_at_ms=now_ms if options.deletes == "tombstone" else None,
                deleted_field=options.deleted_field,
                connection=self._source_connection,
            )
            if dead:
                raise PermanentError("; ".join(f"{id}: {why}" for id, why in dead.items()))
            if options.deletes == "mark":
                gone = find_gone(documents)
                made = [
                    encode_mark(one, {_KEPT: True}, deleted_at_ms=now_ms) if one.id in gone else one
                    for one in made
                ]
            bodies = "".join(operation.body.decode() for operation in made)
            params = urlencode(make_bulk_params(options, self.connection), safe=",*", quote_via=quote)
            texts.append(f"POST {make_bulk_path(make_spec(options))}?{params}\n{bodies}")
        return "\n".join(texts)

    def set_predecessors(self, tails: Collection[TailKey]) -> None:
        """Set the tails whose indices are this one's, too; see `KeyedTransport.set_predecessors`."""
        self._predecessors = tails

    def open(self) -> TargetState:
        """Connect, create missing indices, and return their state of this tail.

        Raises:
            RetryableError: the cluster can't be reached.
            AccessError: it denies access.
            ConfigError: it is another product or version; a name is taken; it refuses
                the mapping, the settings or the pipeline.
        """
        self._check_distinct()
        client = self._connect()
        found = {output: index.open() for output, index in self._indices.items()}
        created = all(one.created for one in found.values())
        given_up = {output: self._list_old_indices(client, output).end_loads() for output in self._indices}
        self._settled_at = time.monotonic() + (0 if created else _SETTLE_SECONDS)
        self._writers = self._make_writers(client)  # a change may have chosen other indices
        states = {
            output: TargetState(
                epoch=one.epoch,
                empty=one.empty,
                changed=(
                    *((f"{self._indices[output].spec.name}: {one.changed}",) if one.changed else ()),
                    *(f"{name}: {_GIVEN_UP}" for name in given_up[output]),
                ),
            )
            for output, one in found.items()
        }
        state = TargetState.merge(states)
        if not self._is_part:
            return state
        self._refuse_unpublished()
        return replace(state, empty=False)

    def acquire(self, checkpoint: Checkpoint) -> None:
        """Store the epoch and the number of edits in the `_meta` of every index. There is no fence."""
        loading = checkpoint.first_pass and not checkpoint.pass_done
        for index in self._get_indices().values():
            index.acquire(epoch=checkpoint.epoch, edits=checkpoint.edits, loading=loading)

    def write(self, batch: Batch) -> WriteResult:
        """Write a batch, one output after the other.

        Raises:
            RetryableError: the cluster can't be reached or is busy; sent operations may still be applied.
            AccessError: it does not let us write.
            FatalError: an index is gone.
        """
        self._get_indices()
        self._purge_if_due()
        documents = newest(batch.documents)
        result = BulkResult()
        for output, writer in self._writers.items():
            needed = self._drop_unstored(documents, output, writer) if batch.first_pass else documents
            writer.replace(needed, output, batch.epoch, result)
        return result.to_write_result()

    def finish_pass(self, epoch: int, kept: Collection[str] = ()) -> int:
        """Remove documents of lower epochs except the kept ones, then point each alias to its index.

        Before an alias moves, its index gets its own settings again and is refreshed.

        Raises:
            RetryableError: the cluster can't be reached or is busy; call again.
            FatalError: see `write`.
        """
        if self._is_part:
            return 0
        result = BulkResult()
        for output, index in self._get_indices().items():
            self._writers[output].sweep(epoch, frozenset(kept), result)
            index.end_load()
            index.publish()
        return result.removed

    def share(self, connection: str) -> None:
        """Add a field with the source to each document, by which its database's can be found."""
        self._source_connection = connection
        self.outputs = {name: _with_source(options) for name, options in self.outputs.items()}

    def take_part(self, part: Part) -> None:  # noqa: ARG002 - the contract's
        """Write into the index of the pillow; see `Transport.take_part`. Every operation is guarded there."""
        self._is_part = True

    def sweep_database(self, database: str, epoch: int, kept: Collection[str] = ()) -> int:
        """Remove the documents of one database; see `Transport.sweep_database`.

        Raises:
            RetryableError, FatalError: as `finish_pass`.
        """
        result = BulkResult()
        for output in self._get_indices():
            self._writers[output].sweep(epoch, frozenset(kept), result, self._get_source(database))
        return result.removed

    def stored(self, output: str, ids: Sequence[str] | None = None) -> Iterator[Sequence[Stored]]:
        """Yield pages of an index's documents as of now; see `KeyedTransport.stored`."""
        yield from self._stored(output, ids)

    def stored_of(self, output: str, database: str) -> Iterator[Sequence[Stored]]:
        """Yield pages of one database's documents as of now; see `KeyedTransport.stored_of`."""
        yield from self._stored(output, None, self._get_source(database))

    def _stored(
        self, output: str, ids: Sequence[str] | None, source: str | None = None
    ) -> Iterator[Sequence[Stored]]:
        self._connect()
        for hits in self._writers[output].reader.read_pages(ids, source):
            yield [Stored(id=hit["_id"], write_version=hit["_version"]) for hit in hits]

    def _get_source(self, database: str) -> str:
        return f"{self._source_connection}/{database}"

    def describe_incomparable(self, output: str) -> str:
        """Return why an index doesn't keep documents as they were sent; "" if it does."""
        self._connect()
        return self._writers[output].reader.describe_incomparable()

    def find_altered(self, output: str, documents: Sequence[DocumentRows]) -> set[str]:
        """Return the ids of documents whose `_source` in the index differs from what a write would store.

        See `KeyedTransport.find_altered`.
        """
        if self._client is None:
            self._connect()
        return self._writers[output].reader.find_altered(documents, output)

    def find_old_indices(self, output: str) -> OldIndices:
        """Connect, and return the indices that an output has left. Called without `open`.

        Raises:
            RetryableError, AccessError, ConfigError: as `check`.
        """
        return self._list_old_indices(self._connect(), output)

    def _list_old_indices(self, client: SearchClient, output: str) -> OldIndices:
        return OldIndices(client, self.key, self._indices[output].spec)

    def close(self) -> None:
        """Close the client's connections."""
        client, self._client = self._client, None
        self._indices, self._writers = {}, {}
        if client is not None:
            client.close()

    def make_switch(self) -> SearchSwitch:
        """Return the switch by which two builds change places; see `Transport.make_switch`."""
        return SearchSwitch(self.key, self.make_client, self.outputs)

    def output_kinds(self) -> Iterable[tuple[Any, ...]]:
        """Return every output's alias, and the digest of its mapping and settings.

        Once it is connected: of those that the index in use was created with. They differ from the
        configuration's if the index could follow a change.
        """
        specs = {output: make_spec(options) for output, options in self.outputs.items()}
        specs |= {output: index.spec for output, index in self._indices.items()}
        return ((output, spec.alias, spec.digest) for output, spec in specs.items())

    def _check_distinct(self) -> None:
        aliases = [output.index for output in self.outputs.values()]
        for alias in {alias for alias in aliases if aliases.count(alias) > 1}:
            raise ConfigError(
                f"Two outputs of {self.key} write to the index {alias!r}.", remedy="give each an index"
            )

    @abstractmethod
    def make_client(self) -> SearchClient:
        """Return a client of the cluster.

        Raises:
            ConfigError: its library is missing, or the certificates can't be read.
        """

    def _connect(self) -> SearchClient:
        self.close()
        self._client = client = self.make_client()
        with translate_errors():
            self._check_product(client)
        self._indices = {
            name: OwnedIndex(client, self.key, one, predecessors=self._predecessors)
            for name, one in self.outputs.items()
        }
        for index in self._indices.values():
            index.locate()
        self._writers = self._make_writers(client)
        return client

    def _refuse_unpublished(self) -> None:
        """Refuse an index that readers do not see yet: no part knows when all are complete."""
        for index in self._indices.values():
            with translate_errors():
                hidden = index.output.build.live and index.list_publication()
            if hidden:
                raise ConfigError(
                    f"{self.key} needs another index ({index.spec.name}), which all its parts must fill "
                    f"before {index.spec.alias!r} can point to it.",
                    remedy="put the old settings back; or run the pillow with `coordination: {type: none}` "
                    f"until `pillowd rebuild {self.key.pillow}` has switched",
                )

    def _make_writers(self, client: SearchClient) -> dict[str, IndexWriter]:
        return {
            name: IndexWriter(client, index, self.connection, self._compressor, self._source_connection)
            for name, index in self._indices.items()
        }

    def _check_product(self, client: SearchClient) -> None:
        """Check the product; see `SearchClient.check_product`. A wrong path is not a lost index."""
        try:
            client.check_product()
        except AnswerError as error:
            if error.status != 404:
                raise
            hosts = " or ".join(self.connection.hosts)
            raise ConfigError(
                f"There is no {client.PRODUCT} at {hosts}: the server answered 404.",
                remedy="correct `hosts`: a path there is what all requests begin with, not an index",
            ) from error

    def _get_indices(self) -> Mapping[str, OwnedIndex]:
        if self._client is None:
            raise FatalError(f"Transport {self.name} was used before it was opened.")
        return self._indices

    def _drop_unstored(
        self, documents: Sequence[DocumentRows], output: str, writer: IndexWriter
    ) -> Sequence[DocumentRows]:
        """Leave out documents without rows that are not stored: most of those that a filter drops."""
        bare = [document.id for document in documents if not document.rows.get(output)]
        if not bare or time.monotonic() < self._settled_at:
            return documents
        present = writer.reader.find_present(bare)
        return [d for d in documents if d.rows.get(output) or d.id in present]

    def _purge_if_due(self) -> None:
        if time.monotonic() < self._purge_at:
            return
        self._purge_at = time.monotonic() + _PURGE_SECONDS
        for output, writer in self._writers.items():
            if self.outputs[output].deletes == "tombstone":
                writer.purge_tombstones()


def _with_source(options: SearchOutput) -> SearchOutput:
    """Return the settings of an index with a field for the source."""
    properties = {**options.mapping.get("properties", {}), SOURCE: {"type": "keyword"}}
    return options.model_copy(update={"mapping": {**options.mapping, "properties": properties}})
