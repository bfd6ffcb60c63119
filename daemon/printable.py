"""Make text safe to show: ids, reasons and names may contain control sequences of a terminal."""

from __future__ import annotations

import json
import re
import unicodedata

#: What `json.dumps` leaves as it is, though terminals may obey it.
_UNSAFE = re.compile(r"[^\x20-\x7e\n]")


def printable(text: str) -> str:
    r"""Return text with everything escaped that is not a letter, sign or space.

    Control characters (C0, C1, DEL), marks that reverse the direction (U+202E), invisible characters, line
    breaks and lone surrogates become `\x1b`, `\u202e` and the like.
    """
    if text.isprintable():
        return text
    return "".join(map(_escape, text))


def printable_lines(text: str) -> str:
    """Return text as `printable` does, with its line breaks kept."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(text: str) -> str:
    r"""Return JSON text that means the same, with every such character as `\uXXXX`."""
    return _UNSAFE.sub(_escape_json, text)


def _escape(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()


def _escape_json(match: re.Match[str]) -> str:
    character = match.group()
    if _escape(character) == character:
        return character
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]
