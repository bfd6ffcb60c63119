"""The journal's format: a snapshot of all entries, then one line for each commit.

    5d1f3c2a {"entries":2}
    0a9b6f1e [["checkpoint","cases","couch/cases",{...}]]
    91c2d4e8 [["checkpoint","forms","couch/forms",{...}]]
    77e01b3d [["checkpoint","cases","couch/cases",{...}],["history","cases","couch/cases",[...]]]

A line is the CRC-32 of its JSON in eight hexadecimal digits, a space, the JSON and a newline. The first
line counts the lines of the snapshot, one for each entry. The snapshot was on disk before the file got its
name, so a damaged line in it is a disk fault, and only its own entry is lost.

Every further line is one commit. A commit begins only when the previous one is on disk, so a crash can tear
only the last line. No caller relies on it yet, so it is ignored. Any other damaged commit is a
disk fault. It may have held newer values of any entry, so no earlier value is trusted.

JSON has no raw newline, so no part of a torn line can look like a line of its own.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

from msgspec import Struct, field

from checkpoints.finding import Finding
from checkpoints.replica import Key

JOURNAL = "journal"

#: A snapshot is written in pieces of about this size.
PIECE_BYTES = 2**16

_decode_at = json.JSONDecoder().raw_decode
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


class Entries(MutableMapping[Key, bytes]):
    """The entries of a journal in memory, by key. There may be ten thousand.

    They are in groups of keys that differ in their last name only. So a key takes the memory of one name: as
    a tuple, it would take more than twice as much.

    Args:
        entries: those to begin with.
    """

    def __init__(self, entries: Mapping[Key, bytes] | None = None) -> None:
        self._groups: dict[Key, dict[str, bytes]] = {}
        self.update(entries or {})

    def __getitem__(self, key: Key) -> bytes:
        return self._groups[key[:-1]][key[-1]]

    def __setitem__(self, key: Key, entry: bytes) -> None:
        self._groups.setdefault(key[:-1], {})[key[-1]] = entry

    def __delitem__(self, key: Key) -> None:
        del self._groups[key[:-1]][key[-1]]

    def __iter__(self) -> Iterator[Key]:
        return ((*names, last) for names, group in self._groups.items() for last in group)

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))


class JournalScan(Struct):
    """The content of a journal.

    Attributes:
        entries: the last trusted value of each entry, as JSON.
        torn: whether the last commit is incomplete and was ignored.
        snapshot_bytes, appended_bytes: the sizes of the two parts.
        findings: disk faults.
    """

    entries: Entries = field(default_factory=Entries)
    torn: bool = False
    snapshot_bytes: int = 0
    appended_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add_finding(self, problem: str, *, line: int | None = None) -> None:
        """Add a finding."""
        self.findings.append(Finding(file=JOURNAL, problem=problem, line=line))


def encode_entry(key: Key, value: Any) -> bytes:
    """Return an entry as JSON, to be put into a line.

    Raises:
        TypeError, ValueError: the value is not JSON.
    """
    return _encode([*key, value]).encode()


def decode_value(entry: bytes) -> Any:
    """Return the value of an entry."""
    return json.loads(entry)[-1]


def format_commit(entries: Iterable[bytes]) -> bytes:
    """Return the line of a commit."""
    return _format_line(b"[%s]" % b",".join(entries))


def format_snapshot(entries: Collection[bytes]) -> Iterator[bytes]:
    """Yield, piece by piece, a journal that holds these entries and no commit.

    As a whole, a journal of ten thousand entries is so large that the C library keeps its memory for the
    thread that wrote it: 3 MB.
    """
    piece = bytearray(_format_line(b'{"entries":%d}' % len(entries)))
    for entry in entries:
        piece += format_commit([entry])
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def scan_journal(data: bytes) -> JournalScan:
    """Read a journal, as far as it can be trusted."""
    *lines, rest = data.split(b"\n")
    scan = JournalScan()
    count = _snapshot_length(lines, scan)
    for number, line in enumerate(lines[1:], 2):
        if (commit := _read_commit(line)) is not None:
            scan.entries.update(commit)
        elif number <= count + 1:
            scan.add_finding("the line is damaged: its checksum does not match", line=number)
        elif number == len(lines) and not rest:
            scan.torn = True
        else:
            scan.add_finding("the line is damaged: earlier values may be outdated", line=number)
            scan.entries.clear()
    if 0 < len(lines) <= count:
        scan.add_finding(f"the file is cut off: {len(lines) - 1} of {count} entries are left")
    scan.torn |= bool(rest)
    scan.snapshot_bytes = sum(len(line) + 1 for line in lines[: count + 1])
    scan.appended_bytes = len(data) - scan.snapshot_bytes
    return scan


def _snapshot_length(lines: list[bytes], scan: JournalScan) -> int:
    """Return how many lines the snapshot has; 0 if the first line is damaged."""
    head = _read_payload(lines[0]) if lines else ""
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        return int(json.loads(head)["entries"])
    scan.add_finding("the first line is damaged: entries may be missing", line=1)
    return 0


def _format_line(payload: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(payload), payload)


def _read_payload(line: bytes) -> str:
    """Return the JSON of a line; "" if it does not match its checksum or is not text."""
    checksum, _, payload = line.partition(b" ")
    is_whole = checksum == b"%08x" % zlib.crc32(payload)
    with suppress(UnicodeDecodeError):
        return payload.decode() if is_whole else ""
    return ""


def _read_commit(line: bytes) -> dict[Key, bytes] | None:
    """Return the entries of a commit; None if the line is not one that we wrote."""
    payload = _read_payload(line)
    if not payload.startswith("["):
        return None
    try:
        return dict(_split_commit(payload))
    except (ValueError, TypeError, RecursionError):  # its checksum was made by somebody else
        return None


def _split_commit(payload: str) -> Iterator[tuple[Key, bytes]]:
    """Yield the entries of a commit by key, as slices of its JSON: encoding again would double the time."""
    at = 1
    while at < len(payload) - 1:
        (*names, _), end = _decode_at(payload, at)
        if not names or not all(isinstance(name, str) for name in names):
            raise TypeError(f"not the names of an entry: {names!r}")
        yield tuple(names), payload[at:end].encode()
        at = end + 1
