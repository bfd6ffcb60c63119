"""A checkpoint: the position of a tail, and the conditions under which the position is valid."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from checkpoints.seq import Seq

#: The `pass_epoch` of a checkpoint that was reset: the tail begins a new pass when it starts.
PASS_TO_BEGIN = 0


class TailKey(Struct, frozen=True, order=True):
    """The name of one tail: a pillow's run on one source database.

    Attributes:
        pillow: the pillow's name in the configuration.
        source: `connection/database`.
    """

    pillow: str
    source: str

    def __str__(self) -> str:
        """Return `pillow@connection/database`, as logs and the command show it."""
        return f"{self.pillow}@{self.source}"

    @property
    def database(self) -> str:
        """The name of the source's database."""
        return self.source.partition("/")[2]


#: The key of work that belongs to no single tail.
NO_TAIL = TailKey("", "")


class ConfigDigest(Struct, frozen=True, kw_only=True):
    """Digests of the configuration that a checkpoint was made under.

    Attributes:
        source: database and server-side options; a change makes the position meaningless.
        outputs: the settings that written rows depend on; a change needs a new pass.
        pipeline: filter and transform; a change is a warning.
    """

    source: str = ""
    outputs: str = ""
    pipeline: str = ""


#: Fields that have another name in JSON, and the reverse. State directories and targets hold these names.
_JSON_NAMES = {"edits": "generation"}
_FIELD_NAMES = {name: field for field, name in _JSON_NAMES.items()}


class Checkpoint(Struct, frozen=True, kw_only=True):
    """How far a tail got.

    Attributes:
        seq: the position with every earlier change acknowledged.
        edits: how many times an operator edited it; `generation` in JSON.
        epoch: the high part of write versions; raising it outranks every row that was written before.
        pass_epoch: the epoch that began the running or last pass from the beginning;
            `PASS_TO_BEGIN` after a reset, until the tail starts.
        pass_done: whether that pass was completed (caught up, and swept).
        first_pass: whether that pass fills outputs that were empty when it began.
        instance_start_time: when the source database was created, as the source reports it; None if unknown.
        server_uuid: the UUID of the source's server; None if unknown.
        purge_seq: the source's purge position when it was last read; None if unknown.
        marked: whether the tail has written its identity token, a local document, to the source database.
        digest: digests of the configuration at this save.
        pipeline_changed_at: wall-clock seconds of the last change of filter or transform; rows from before
            may still be in the outputs. None if it never changed.
        changes: how many changes the tail has processed in its life.
        saved_at: wall-clock seconds of this save.
    """

    seq: Seq
    edits: int = 0
    epoch: int = 1
    pass_epoch: int = 1
    pass_done: bool = False
    first_pass: bool = False
    instance_start_time: str | None = None
    server_uuid: str | None = None
    purge_seq: str | None = None
    marked: bool = False
    digest: ConfigDigest = ConfigDigest()
    pipeline_changed_at: float | None = None
    changes: int = 0
    saved_at: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; `seq` keeps its JSON type (string, integer or array)."""
        fields = {_JSON_NAMES.get(name, name): getattr(self, name) for name in self.__struct_fields__}
        fields["seq"] = self.seq.value
        fields["digest"] = {name: getattr(self.digest, name) for name in ConfigDigest.__struct_fields__}
        return fields

    @classmethod
    def from_json(cls, value: Any) -> Checkpoint:
        """Return the checkpoint in the JSON values that `to_json` returned.

        Raises:
            KeyError, TypeError: the value is not a checkpoint, or has a newer format.
        """
        if not isinstance(value, dict):
            raise TypeError("it is not an object")
        stored: dict[str, Any] = value
        fields = {_FIELD_NAMES.get(name, name): each for name, each in stored.items()}
        return cls(**fields | {"seq": Seq.of(value["seq"]), "digest": ConfigDigest(**value["digest"])})

    @classmethod
    def reset(cls, stored: Checkpoint | None) -> Checkpoint:
        """Return a checkpoint that makes the tail begin a new pass when it starts.

        The start chooses an epoch above every epoch that the targets hold. The source's identity and
        the digests are dropped, so a changed source is accepted.

        Args:
            stored: the checkpoint to reset; None if there is none.
        """
        epoch, edits = (stored.epoch, stored.edits) if stored else (0, 0)
        return cls(seq=Seq.BEGINNING, edits=edits, epoch=epoch, pass_epoch=PASS_TO_BEGIN)

    def begin_pass(self, *, epoch: int, first_pass: bool) -> Checkpoint:
        """Return the checkpoint at the beginning of a new pass, under an epoch above all earlier ones."""
        return replace(self, epoch=epoch, pass_epoch=epoch, first_pass=first_pass)
