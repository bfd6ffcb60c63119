"""Find the facts of tails that changed since a reader's last update: one comparison for all readers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

#: The facts of a tail by their names: what `msgspec` can encode as JSON.
Facts = Mapping[str, Any]

#: Facts that are ages. They grow by themselves, which does not count as a change: the reader has a clock too.
_AGE = "_age_seconds"
#: An age may be this much off: statuses are not exactly a second apart.
_AGE_TOLERANCE_SECONDS = 1.5
#: Removed tails that are remembered; a reader that missed more gets everything.
_REMEMBERED = 1_000


class Update(Struct, frozen=True, kw_only=True):
    """An update for one reader.

    Attributes:
        version: the reader's version from now on.
        complete: whether `pillows` are all there are, with all of their facts.
        pillows: as JSON: `pillow`, `source`, and at least those facts that have changed.
        gone: keys of tails that are no longer there (`PILLOW@CONNECTION/DATABASE`).
    """

    version: int
    complete: bool
    pillows: Sequence[bytes]
    gone: Sequence[str]


class _Known(Struct, kw_only=True):
    facts: Facts  # ages as the monotonic seconds of their beginning
    version: int
    delta: bytes  # what changed with that version


class StatusUpdates:
    """Numbers the changes of all tails' facts, and returns those that a reader has not seen."""

    def __init__(self) -> None:
        self._version = 0
        self._at = 0.0
        self._known: dict[str, _Known] = {}
        self._gone: deque[tuple[int, str]] = deque(maxlen=_REMEMBERED)
        self._complete_before = 0
        self._updates: dict[int, Update] = {}  # by the reader's version

    def note(self, statuses: Iterable[Facts], at: float) -> None:
        """Compare the facts of all tails with those noted last.

        Args:
            statuses: in configured order.
            at: monotonic seconds of the facts.
        """
        version = self._version + 1
        self._at = at
        listed: dict[str, _Known] = {}
        for facts in statuses:
            key = f"{facts['pillow']}@{facts['source']}"
            known = self._known.get(key)
            changed = find_changes(known.facts if known else {}, facts, at)
            if known is None or changed:
                self._version = version
                facts_now = {**(known.facts if known else {}), **changed}
                known = _Known(facts=facts_now, version=version, delta=self._encode(facts, changed))
            listed[key] = known
        for key in self._known.keys() - listed.keys():
            self._version = version
            if len(self._gone) == _REMEMBERED:
                self._complete_before = self._gone[0][0]
            self._gone.append((version, key))
        self._known = listed
        self._updates.clear()

    def since(self, version: int | None) -> Update:
        """Return the changes since a version; everything for None and for unknown versions.

        Readers at the same version get the same object.
        """
        if version is None or not self._complete_before <= version <= self._version:
            everything = [self._encode(known.facts, known.facts) for known in self._known.values()]
            return Update(version=self._version, complete=True, pillows=everything, gone=())
        if version not in self._updates:
            self._updates[version] = self._collect(version)
        return self._updates[version]

    def _collect(self, version: int) -> Update:
        is_next = version == self._version - 1  # nearly every reader gets an update each second
        return Update(
            version=self._version,
            complete=False,
            pillows=[
                known.delta if is_next else self._encode(known.facts, known.facts)
                for known in self._known.values()
                if known.version > version
            ],
            gone=[key for at, key in self._gone if at > version and key not in self._known],
        )

    def _encode(self, facts: Facts, chosen: Facts) -> bytes:
        shown = {
            name: self._at - value if name.endswith(_AGE) and value is not None else value
            for name, value in chosen.items()
        }
        return msgspec.json.encode({"pillow": facts["pillow"], "source": facts["source"], **shown})


def find_changes(known: Facts, facts: Facts, at: float) -> dict[str, Any]:
    """Return the facts that differ from the known ones, with ages as the time when they began.

    Args:
        known: ages as the time when they began.
        facts: ages in seconds.
        at: monotonic seconds of `facts`.
    """
    return {name: value for name, value in _to_beginnings(facts, at) if not _is_known(known, name, value)}


def _to_beginnings(facts: Facts, at: float) -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        yield name, at - value if name.endswith(_AGE) and value is not None else value


def _is_known(known: Facts, name: str, value: Any) -> bool:
    if name not in known:
        return False
    if name.endswith(_AGE) and value is not None and known[name] is not None:
        return bool(abs(known[name] - value) <= _AGE_TOLERANCE_SECONDS)
    return bool(known[name] == value)
