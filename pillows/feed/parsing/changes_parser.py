r"""Parse the wire format of `_changes`: bytes to lines, lines to changes. Pure; knows no socket.

Lines end with `\n` alone. CouchDB does not escape U+2028, U+2029, U+0085 and vertical tabs in ids, and
`str.splitlines` breaks a line at each of them, so only bytes are split.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from checkpoints import Seq
from pillows.couch.utf8 import is_utf8
from pillows.errors import RetryableError
from pillows.feed.parsing.damaged_row import salvage_row
from pillows.feed.parsing.one_line_page import OneLinePage
from pillows.models import Change

#: Longest line in bytes unless configured: CouchDB accepts documents of 8 MB by default, and of 4 GB at most.
MAX_LINE_BYTES = 64 * 2**20

#: Bytes kept of a longer row: everything before its document. The rest is read and dropped, up to this
#: multiple of the longest line, since a line may never end.
MAX_HEAD_BYTES = 2**20
CUT_FACTOR = 16

#: Longest position, and longest list of revisions; both are a few kilobytes at most.
MAX_SEQ_BYTES = 2**16
MAX_REVS_BYTES = 2**20

#: A longer page on one line is read row by row; a longer row is decoded only as far as its bounds allow.
_LARGE_BYTES = 2**20

_NULL = msgspec.Raw(b"null")
_PADDING = b" \t\r,"
_EXCERPT_BYTES = 120
_DOCUMENT = re.compile(rb'"doc"\s*:')
_ROW_DOCUMENT = re.compile(rb',\s*"doc"\s*:')  # in a text, the quotes would be escaped


class MalformedFeedError(RetryableError):
    """The response is not a valid `_changes` response."""


class CutLine(bytes):
    """The beginning of a line that was too long to be kept."""


class LineSplitter:
    """Splits blocks of bytes into lines.

    Args:
        max_line_bytes: only the beginning of a longer line is kept, so that no server can fill the memory.
        may_cut: whether a line that begins in this way may be longer; none may unless given.
    """

    __slots__ = ("_is_cut", "_max_line_bytes", "_may_cut", "_parts", "_size_bytes")

    def __init__(
        self, max_line_bytes: int = MAX_LINE_BYTES, may_cut: Callable[[bytes], bool] = lambda _: False
    ) -> None:
        self._max_line_bytes = max_line_bytes
        self._may_cut = may_cut
        self._parts: list[bytes] = []
        self._size_bytes = 0
        self._is_cut = False

    def feed(self, block: bytes) -> list[bytes]:
        r"""Return the lines that `block` completes, without their ends. Blank ones are kept.

        The bytes after the last `\n` wait for the next block; at the end of a response they are a
        fragment and must be dropped.

        Raises:
            MalformedFeedError: a line is too long.
        """
        lines = block.split(b"\n")
        rest = lines.pop()
        # A long document arrives in many blocks: join them once, not again with every block.
        if lines and self._parts:
            self._keep(lines[0])
            lines[0] = CutLine(self._parts[0]) if self._is_cut else b"".join(self._parts)
            self._clear()
        if rest:
            self._keep(rest)
        return lines

    def _keep(self, fragment: bytes) -> None:
        self._size_bytes += len(fragment)
        if self._is_cut:
            if self._size_bytes > CUT_FACTOR * self._max_line_bytes:
                self._reject()
            return
        self._parts.append(fragment)
        if self._size_bytes > self._max_line_bytes:
            self._cut()

    def _cut(self) -> None:
        """Keep no more than the beginning of the line."""
        head = bytearray()
        for part in self._parts:
            head += part[: MAX_HEAD_BYTES - len(head)]
        if not self._may_cut(bytes(head)):
            self._reject()
        self._parts = [bytes(head)]
        self._is_cut = True

    def _reject(self) -> None:
        self._clear()  # the error may be kept for long, and this with it
        raise MalformedFeedError(
            f"The feed sent a line longer than {self._max_line_bytes} bytes (`source.max_document`)."
        )

    def _clear(self) -> None:
        self._parts.clear()
        self._size_bytes = 0
        self._is_cut = False


class _Leaf(msgspec.Struct, gc=False):
    rev: str


class _Row(msgspec.Struct, gc=False):
    id: str
    changes: list[_Leaf]
    seq: str | int | list[Any] | None = None
    deleted: bool = False
    doc: msgspec.Raw = _NULL


class _LargeRow(msgspec.Struct):
    """The beginning of a long row: only its document may be long."""

    changes: msgspec.Raw
    seq: msgspec.Raw = _NULL


class ResponseEnd(msgspec.Struct, frozen=True):
    """The end of a complete response.

    Attributes:
        last_seq: the position after the last row.
        pending: number of changes after it, if the server reports it.
    """

    last_seq: str | int | list[Any]
    pending: int | None = None

    @property
    def seq(self) -> Seq:
        """`last_seq` as a position."""
        return Seq.of(self.last_seq)


class _Page(msgspec.Struct):
    results: list[_Row]
    last_seq: str | int | list[Any]
    pending: int | None = None


_decode_row = msgspec.json.Decoder(_Row).decode
_decode_large_row = msgspec.json.Decoder(_LargeRow).decode
_decode_closing = msgspec.json.Decoder(ResponseEnd).decode
_decode_page = msgspec.json.Decoder(_Page).decode


def _to_change(row: _Row) -> Change:
    revs = tuple([leaf.rev for leaf in row.changes])
    version = 0
    for rev in revs:
        version += int(rev[: rev.index("-")])
    if not version:
        raise ValueError("a row without a revision")
    seq = row.seq
    return Change(
        row.id,
        revs,
        version,
        row.deleted,
        None if seq is None else _to_seq(seq),
        # A deleted document has no content in any fetch mode: the fields of its tombstone are not a document.
        None if row.deleted or row.doc == _NULL else row.doc,
    )


def parse_change(line: bytes) -> Change:
    """Return the change in one row.

    Raises:
        MalformedFeedError: the line is not a valid row.
    """
    try:
        if len(line) > _LARGE_BYTES:
            _reject_large_head(line)
        row = _decode_row(line)
        if line.isascii() or is_utf8(line):  # of a document, msgspec checks the structure alone
            return _to_change(row)
    except RecursionError:
        return _deep_change(line)
    except (msgspec.DecodeError, ValueError):
        pass
    if len(line) > 1 and line.endswith(b"}") and (change := salvage_row(line)) is not None:
        return change
    raise MalformedFeedError(f"The feed sent an invalid row: {excerpt(line)}")


def _reject_large_head(line: bytes) -> None:
    """Raise MalformedFeedError for a row that is long by anything but its document."""
    row = _decode_large_row(line)
    if len(row.changes) > MAX_REVS_BYTES or len(row.seq) > MAX_SEQ_BYTES:
        raise MalformedFeedError("The feed sent a row with too many revisions, or too long a position.")


def _to_seq(value: object) -> Seq:
    """Return a position.

    Raises:
        MalformedFeedError: it is too long to be one.
    """
    seq = Seq.of(value)
    if len(seq.json) > MAX_SEQ_BYTES:
        raise MalformedFeedError(
            f"The feed sent a position of {len(seq.json)} characters; at most {MAX_SEQ_BYTES} are allowed."
        )
    return seq


def _to_end(line: bytes) -> ResponseEnd:
    if len(line) > _LARGE_BYTES:
        raise ValueError("an end that is longer than any position")
    end = _decode_closing(line)
    _to_seq(end.last_seq)
    return end


def _deep_change(line: bytes) -> Change:
    """Parse a row whose document nests too deep for msgspec: unparsed, only that document fails later."""
    head, found, doc = line.partition(b',"doc":')
    try:
        change = _to_change(_decode_row(head + b"}"))
    except (msgspec.DecodeError, ValueError, RecursionError):
        found = b""
    if not found:
        raise MalformedFeedError(f"The feed sent an invalid row: {excerpt(line)}")
    return change if change.deleted else msgspec.structs.replace(change, raw=msgspec.Raw(doc[:-1]))


def excerpt(line: bytes) -> str:
    """Return the beginning of an invalid line for a message, without any part of a document."""
    document = _DOCUMENT.search(line, 0, _EXCERPT_BYTES)
    shown = line[: document.end() if document else _EXCERPT_BYTES]
    return repr(shown) + ("..." if len(line) > len(shown) else "")


class ChangesParser:
    """Parses one response: blocks of bytes in, changes out.

    Args:
        max_line_bytes: see `LineSplitter`.

    Attributes:
        end: the end of the response; None while it is incomplete.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.end: ResponseEnd | None = None
        self._max_line_bytes = max_line_bytes
        self._splitter = LineSplitter(max_line_bytes, lambda head: self._is_row(head.strip(_PADDING)))

    def feed(self, block: bytes) -> Iterator[tuple[Change, int]]:
        """Yield the changes that `block` completes, each with its size in bytes.

        Raises:
            MalformedFeedError: this is not a valid `_changes` response. Changes yielded before are valid.
        """
        for raw in self._splitter.feed(block):
            line = raw.strip(_PADDING)
            if not line:
                continue
            if type(raw) is CutLine:
                yield self._salvage_cut(line), len(line)
            elif self._is_row(line):
                yield parse_change(line), len(line)
            else:
                yield from self._frame(line)

    def _salvage_cut(self, line: bytes) -> Change:
        """Return the change in the beginning of a row that is too long; it becomes a dead letter."""
        limit = f"{self._max_line_bytes} bytes (`source.max_document`)"
        head = _ROW_DOCUMENT.split(line, 1)[0] + b"}"
        change = salvage_row(head, defect=f"Its row is longer than {limit}.")
        if change is None or (change.seq is not None and len(change.seq.json) > MAX_SEQ_BYTES):
            raise MalformedFeedError(f"The feed sent a row longer than {limit}, with no id at its beginning.")
        return change

    def _is_row(self, line: bytes) -> bool:
        """Return whether a line must be a row."""
        raise NotImplementedError

    def _frame(self, line: bytes) -> Iterator[tuple[Change, int]]:
        """Parse a line around the rows."""
        raise NotImplementedError

    def _close(self, line: bytes) -> None:
        if self.end is not None:
            raise MalformedFeedError(f"The feed went on after its end: {excerpt(line)}")
        try:
            self.end = _to_end(line)
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise MalformedFeedError(f"The feed sent an invalid row: {excerpt(line)}") from None


class ContinuousParser(ChangesParser):
    """Parses `feed=continuous`: one row a line, blank lines between them, a closing line at the end."""

    def _is_row(self, line: bytes) -> bool:
        return self.end is None and not line.startswith(b'{"last_seq"')

    def _frame(self, line: bytes) -> Iterator[tuple[Change, int]]:
        self._close(line)
        return iter(())


class PageParser(ChangesParser):
    """Parses `feed=normal` and `feed=longpoll`: an opening line, one row a line, closing lines."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        super().__init__(max_line_bytes)
        self._in_rows = False
        self._opened = False

    def _is_row(self, line: bytes) -> bool:
        return self._in_rows and line != b"]"

    def _frame(self, line: bytes) -> Iterator[tuple[Change, int]]:
        if self._in_rows:
            self._in_rows = False
        elif not self._opened:
            self._opened = True
            yield from self._open(line)
        else:
            self._close(b"{" + line)

    def _open(self, line: bytes) -> Iterator[tuple[Change, int]]:
        if line == b'{"results":[':
            self._in_rows = True
            return
        # Not CouchDB's own lines: a proxy may have rewritten the JSON as a single line.
        if len(line) > _LARGE_BYTES:
            yield from self._open_large(line)
            return
        try:
            page = _decode_page(line)
            changes = [(_to_change(row), len(row.doc)) for row in page.results]
            _to_seq(page.last_seq)
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise MalformedFeedError(f"The answer is not a list of changes: {excerpt(line)}") from None
        yield from changes
        self.end = ResponseEnd(page.last_seq, page.pending)

    def _open_large(self, line: bytes) -> Iterator[tuple[Change, int]]:
        """Read a long line row by row: decoded at once it would hold up all others."""
        page = OneLinePage(line)
        for row in page.rows():
            change = parse_change(row)
            yield change, len(_NULL if change.raw is None else change.raw)
        if page.frame is None:
            raise MalformedFeedError(f"The answer is not a list of changes: {excerpt(line)}")
        self._close(page.frame)
