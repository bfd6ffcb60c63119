"""Operations on a pillow that several daemons share."""

from __future__ import annotations

from gevent.event import Event

from checkpoints import Checkpoint, TailKey
from daemon.errors import NotFoundError, NotInTimeError
from daemon.kafka.engine import Engine
from daemon.kafka.operators.group_offsets import read_group_offsets
from pillows.change_topics.positions import load_position
from pillows.clock import Clock

#: Longest wait until every partition has passed the source's position; each commits every 5 s.
_PASS_SECONDS = 20.0
_STEP_SECONDS = 0.5


class SharedPillows:
    """Reads and resets pillows in all daemons of a service.

    Args:
        engine: the service.
        clock: for waits.
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def reset(self, tail: TailKey) -> None:
        """Have every partition of a pillow read from its beginning, under a new epoch.

        Raises:
            StoreWriteError: it may not have been written.
        """
        self._engine.control.reset(tail.pillow)

    def find_checkpoint(self, tail: TailKey) -> Checkpoint:
        """Return a position of the source that every partition of a pillow has passed.

        Read the reader's position first, then the end of each partition. Once all committed offsets have
        passed these ends, every change before the position is written. The last offset of a partition is the
        end marker of a transaction; a tail may pass it later.

        Raises:
            NotFoundError: the source was never read.
            NotInTimeError: the partitions are behind.
            PillowError: the brokers can't be asked.
        """
        options, topics = self._engine.options, self._engine.topics
        position = load_position(options, topics, tail.source)
        if position is None:
            raise NotFoundError(f"{tail.source} was not read yet")
        ends = read_group_offsets(options, topics, tail).ends
        give_up_at = self._clock.monotonic() + _PASS_SECONDS
        while behind := read_group_offsets(options, topics, tail).find_behind(ends):
            if self._clock.monotonic() >= give_up_at:
                raise NotInTimeError(
                    f"partitions {', '.join(map(str, behind))} of {tail} are behind the source",
                    remedy="try again when `pillowd status` says that nothing is pending",
                )
            self._clock.wait(Event(), _STEP_SECONDS)
        identity = position.identity
        return Checkpoint(
            seq=position.seq,
            pass_done=True,
            instance_start_time=identity.instance_start_time if identity else None,
            server_uuid=identity.server_uuid if identity else None,
            purge_seq=identity.purge_seq if identity else None,
            saved_at=self._clock.wall(),
        )
