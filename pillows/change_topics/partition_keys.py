"""The keys of tails that read one partition of a topic of changes: `cases@couch/cases#3`.

No name of a database holds a `#` (CouchDB docs, "/{db}").
"""

from __future__ import annotations

from checkpoints import TailKey

_MARK = "#"


def partition_key(key: TailKey, number: int) -> TailKey:
    """Return the key of a pillow's tail on one partition.

    Args:
        key: of the pillow as a whole.
        number: of the partition.
    """
    return TailKey(key.pillow, f"{key.source}{_MARK}{number}")


def split_partition(key: TailKey) -> tuple[TailKey, int | None]:
    """Return the key of the whole pillow and the number of the partition; None if the key has no number."""
    source, mark, number = key.source.rpartition(_MARK)
    return (TailKey(key.pillow, source), int(number)) if mark else (key, None)
