"""Cut a page that a proxy has written on one line into its rows. Pure but for giving way to others."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pillows.clock import Turn

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]]', re.DOTALL)
_ARRAY = re.compile(rb"\s*:\s*\[")

#: Tokens that are read between two checks of the time.
_TURN_TOKENS = 2000


class OneLinePage:
    """Reads the rows of `{"results":[...],"last_seq":...}`, whatever the order of its members.

    Args:
        line: the page.

    Attributes:
        frame: the page without its rows, once they have been read; None if it has no array of rows.
    """

    def __init__(self, line: bytes) -> None:
        self.frame: bytes | None = None
        self._line = line

    def rows(self) -> Iterator[bytes]:
        """Yield the objects in the array `results`."""
        turn = Turn()
        depth = 0
        begin = rows_begin = -1
        for number, token in enumerate(_TOKEN.finditer(self._line)):
            if number % _TURN_TOKENS == 0:
                turn.give_way()
            byte = self._line[token.start()]
            if byte in b"{[":
                if depth == 2 and rows_begin >= 0 and byte == ord("{"):
                    begin = token.start()
                depth += 1
            elif byte in b"}]":
                depth -= 1
                if depth == 2 and begin >= 0:
                    yield self._line[begin : token.end()]
                    begin = -1
                elif depth == 1 and rows_begin >= 0:
                    self.frame = self._line[:rows_begin] + self._line[token.start() :]
                    return
            elif depth == 1 and token[0] == b'"results"':
                array = _ARRAY.match(self._line, token.end())
                rows_begin = array.end() if array else -1
