"""One database's rows in a target that several databases share, for comparisons and previews."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from msgspec.structs import replace

from checkpoints import Checkpoint, TailKey
from pillows.databases.names import with_key, without_keys
from pillows.errors import ConfigError
from pillows.models import Batch, DocumentRows, WriteResult, join_key, split_key
from pillows.transports.base import KeyedTransport, Stored, TargetState, Transport


class DatabaseView(KeyedTransport):
    """Shows one database's part of a shared transport. It writes nothing.

    Args:
        shared: the transport (`Transport.share`).
        tail: the database's tail.
    """

    def __init__(self, shared: Transport, tail: TailKey) -> None:
        super().__init__(shared.name, tail, shared.connection, shared.outputs)
        self.verifiable = getattr(shared, "verifiable", False)  # type: ignore[misc]  # as the class of the other
        self._shared = shared
        self._database = tail.database

    def check(self) -> str:
        """Check the target; see `Transport.check`."""
        return self._shared.check()

    def preview(self, batch: Batch) -> str:
        """Return the request for a batch; see `Transport.preview`."""
        return self._shared.preview(self._with_keys(batch))

    def try_write(self, batch: Batch) -> WriteResult | None:
        """Write a batch and undo it; see `Transport.try_write`."""
        result = self._shared.try_write(self._with_keys(batch))
        return None if result is None else without_keys(self._database, result)

    def stored(self, output: str, ids: Sequence[str] | None = None) -> Iterator[Sequence[Stored]]:
        """Yield pages of the database's documents; see `KeyedTransport.stored`."""
        keys = None if ids is None else [join_key(self._database, id) for id in ids]
        shared = self._keyed()
        pages = shared.stored_of(output, self._database) if keys is None else shared.stored(output, keys)
        for page in pages:
            yield [replace(each, id=split_key(each.id)[1]) for each in page]

    def describe_incomparable(self, output: str) -> str:
        """Return why rows can't be compared; see `KeyedTransport.describe_incomparable`."""
        return self._keyed().describe_incomparable(output)

    def find_altered(self, output: str, documents: Sequence[DocumentRows]) -> set[str]:
        """Return the ids of documents whose rows differ; see `KeyedTransport.find_altered`."""
        keyed = [with_key(self._database, document) for document in documents]
        return {split_key(key)[1] for key in self._keyed().find_altered(output, keyed)}

    def open(self) -> TargetState:
        """Refuse to open: only turns of the running pillow write.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"{self.key} is written with the other databases of {self.key.pillow}.",
            remedy="start the daemon, then repeat the command",
        )

    def acquire(self, checkpoint: Checkpoint) -> None:
        """Do nothing."""

    def write(self, batch: Batch) -> WriteResult:  # noqa: ARG002 - never opened
        """Write nothing: a view is never opened for writing."""
        return WriteResult()

    def finish_pass(self, epoch: int, kept: Collection[str] = ()) -> int:  # noqa: ARG002 - never opened
        """Remove nothing."""
        return 0

    def close(self) -> None:
        """Close the transport."""
        self._shared.close()

    def _keyed(self) -> KeyedTransport:
        if not isinstance(self._shared, KeyedTransport):
            raise ConfigError(f"{self.name} is append-only, so there are no rows to compare.")
        return self._shared

    def _with_keys(self, batch: Batch) -> Batch:
        return replace(batch, documents=[with_key(self._database, each) for each in batch.documents])
