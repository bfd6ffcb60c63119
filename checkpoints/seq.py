"""The position in a `_changes` feed: an opaque token, which is stored and sent back but never interpreted.

CouchDB 1.x sends integers, BigCouch arrays, 2.x and later strings of up to 4 kB. Their numeric prefix has no
meaning (CouchDB docs, "Changes Feed"; apache/couchdb#4640: it can decrease). Two tokens of one database
cannot be ordered, so `Seq` rejects comparisons and arithmetic.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn
from urllib.parse import quote

import msgspec
from msgspec import Struct


class Seq(Struct, frozen=True):
    """An opaque feed position.

    Attributes:
        json: the token as JSON text, so that `7`, `"7-g1A"` and `[7,"g1A"]` keep their types.
    """

    BEGINNING: ClassVar[Seq]

    json: str

    @classmethod
    def of(cls, value: Any) -> Seq:
        """Return the token for a decoded JSON value (`str`, `int` or `list`).

        Raises:
            TypeError: the value is not a token (`None`, a float, an object).
        """
        if isinstance(value, bool) or not isinstance(value, str | int | list):
            raise TypeError(f"not a sequence token: {value!r}")
        return cls(msgspec.json.encode(value).decode())

    @property
    def value(self) -> str | int | list[Any]:
        """Return the decoded JSON value."""
        value: str | int | list[Any] = msgspec.json.decode(self.json)
        return value

    @property
    def query(self) -> str:
        """Return the token as a percent-encoded value of the query parameter `since`."""
        value = self.value
        return quote(value if isinstance(value, str) else self.json, safe="")

    def __str__(self) -> str:
        """Return the token as an operator types it."""
        value = self.value
        return value if isinstance(value, str) else self.json

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("sequence tokens are opaque: they have no order and are not numbers")

    __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = _refuse
    __int__ = __float__ = __index__ = _refuse


Seq.BEGINNING = Seq("0")
