"""Two builds of a pillow's outputs in one target, and the step in which they change places.

A rebuild fills build N + 1 beside the live build N, by a tail of its own: `cases~2` of the pillow `cases`.
Its outputs have names of their own, made of the configured ones and the number; `OutputOptions.build` says
which build is meant. An exchange gives the incoming build the configured names, and the outgoing build
those of its number: `cases` becomes `cases~1`. The way back is the same exchange the other way
round.

A transport that can do that in one step that readers do not notice returns a `BuildSwitch`
(`Transport.make_switch`). The target itself records whether an exchange was done, so an interrupted one is
simply repeated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from msgspec import Struct

from checkpoints import TailKey
from pillows.options import Build

#: Between a pillow's name and the number of a build that is not live. No pillow's name has it.
MARK = "~"


class Exchange(Struct, frozen=True, kw_only=True):
    """Two builds that change places.

    Attributes:
        key: the tail of the live build, before and after.
        outgoing: the number of the build that is live before.
        incoming: the number of the build that is live afterwards.
    """

    key: TailKey
    outgoing: int
    incoming: int

    @property
    def parked(self) -> TailKey:
        """The tail of the outgoing build, afterwards."""
        return make_key(self.key, self.outgoing)

    @property
    def shadow(self) -> TailKey:
        """The tail of the incoming build, before."""
        return make_key(self.key, self.incoming)

    def reverse(self) -> Exchange:
        """Return the exchange that undoes this one."""
        return Exchange(key=self.key, outgoing=self.incoming, incoming=self.outgoing)


class BuildSwitch(ABC):
    """Lets two builds of a transport's outputs change places; made by `Transport.make_switch`.

    The transport's outputs are those of the live build for all but `drop`, which removes those of another.
    Every method connects for itself and closes what it has opened.
    """

    @abstractmethod
    def list_obstacles(self, *, copies: bool = False) -> Sequence[str]:
        """Return what depends on the live outputs and would not follow an exchange, each by its name.

        Args:
            copies: whether the rows are to be copied instead; see `exchange`.

        Raises:
            RetryableError, AccessError, ConfigError: as `Transport.check`.
        """

    @abstractmethod
    def exchange(self, exchange: Exchange, *, copies: bool = False) -> None:
        """Make the incoming build live and park the outgoing one, in one step; do nothing if that is done.

        Args:
            exchange: the two builds; no tail writes to either.
            copies: replace the rows of the live outputs by those of the incoming build, which is gone then.
                Whatever depends on the outputs stays; readers wait meanwhile.

        Raises:
            RetryableError: nothing has changed: something holds the outputs. Try again.
            AwayError: the target can't be reached; the exchange may have been done. Try again.
            ConfigError: nothing has changed, and cannot: see `list_obstacles`.
            ValueError: the outputs are not those of the live build.
        """

    @abstractmethod
    def drop(self) -> None:
        """Remove the outputs of a build that is not live, and all that the target remembers of them.

        Does nothing where they are gone already.

        Raises:
            RetryableError, AccessError, ConfigError: as `Transport.check`.
            ValueError: the outputs are those of the live build.
        """

    def estimate_copy_seconds(self) -> float | None:
        """Return for how long readers wait if rows are copied; None if the target cannot do that.

        Raises:
            RetryableError, AccessError, ConfigError: as `Transport.check`.
        """
        return None


def require_live(builds: Iterable[Build], *, live: bool) -> None:
    """Refuse outputs of the wrong build: a defect of the caller.

    Args:
        builds: of the outputs.
        live: whether the live build is meant.

    Raises:
        ValueError: an output is of another build.
    """
    if wrong := [each.number for each in builds if each.live is not live]:
        raise ValueError(f"build {wrong[0]} is {'not ' if live else ''}live")


def make_key(key: TailKey, number: int) -> TailKey:
    """Return the tail of a build that is not live."""
    return TailKey(f"{key.pillow}{MARK}{number}", key.source)


def name_table(live_name: str, number: int) -> str:
    """Return the name of a table, or of its index, in a build that is not live."""
    return f"{live_name}__{number}"


def find_live_key(key: TailKey) -> TailKey:
    """Return the tail of the live build of the same pillow: the key itself if it is that one."""
    return TailKey(key.pillow.partition(MARK)[0], key.source)
