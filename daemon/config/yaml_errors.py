"""Says in plain words, with line and column, why a file is no YAML."""

from __future__ import annotations

import re
from pathlib import Path as FilePath

import yaml

from daemon.config.errors import Mistake
from pillows.suggest import suggest

#: What PyYAML says, what that means to who wrote the file, and what to do; the first match counts.
_WORDS = (
    (
        r"found character '\\t'",
        "a tab stands where YAML allows only spaces",
        "replace tabs by spaces",
    ),
    (
        r"mapping values are not allowed",
        "a `:` stands where no key can be",
        "check the indentation of this line and the one above, or put a value that holds `: ` into quotes",
    ),
    (
        r"expected <block end>|did not find expected <block end>|expected <document start>",
        "the indentation does not fit the lines above",
        "line up the keys of one mapping, and the `-` of one list, in one column; is a quote above open?",
    ),
    (
        r"could not find expected ':'",
        "a key without its `:`",
        "write `key: value`",
    ),
    (
        r"quoted scalar.*unexpected (end of stream|document separator)",
        "a quote is opened and never closed",
        "close the quote",
    ),
    (
        r"flow (mapping|sequence)",
        "a `{` or `[` is not closed, or a `,` is missing",
        "close it, or put what stands between into quotes",
    ),
    (
        r"found undefined alias",
        "`*` names an anchor that does not exist",
        "put text that begins with `*` into quotes, or define the anchor with `&` above",
    ),
    (
        r"single document",
        "a second YAML document begins",
        "remove the `---` line, or move what follows into a file of its own",
    ),
    (
        r"cannot start any token|could not determine a constructor|expected alphabetic or numeric",
        "a value cannot begin with this character",
        "put the value into quotes",
    ),
    (
        r"unknown escape character|expected escape sequence",
        "a backslash in double quotes begins no known escape",
        "write `\\\\` for a backslash, or use single quotes",
    ),
)


def no_yaml(file: str, text: str, error: Exception) -> Mistake:
    """The mistake for whatever PyYAML raises on a text."""
    if isinstance(error, yaml.MarkedYAMLError):
        return _syntax(file, text, error)
    if isinstance(error, yaml.reader.ReaderError):
        return _character(file, text, error)
    if isinstance(error, RecursionError):
        return Mistake(file=file, message="is nested too deeply", remedy="make it flatter")
    remedy = "look for a backslash escape in double quotes that is no character"
    return Mistake(file=file, message=f"holds an impossible character: {error}", remedy=remedy)


def unreadable(file: str, path: FilePath, error: OSError | ValueError) -> Mistake:
    """The mistake for a file that cannot be read at all."""
    if isinstance(error, UnicodeDecodeError):
        line = error.object[: error.start].count(b"\n") + 1
        message = f"byte 0x{error.object[error.start]:02x} is no UTF-8"
        return Mistake(file=file, line=line, message=message, remedy="save the file as UTF-8")
    if isinstance(error, FileNotFoundError):
        return Mistake(file=file, message="there is no such file", remedy=_neighbours(path))
    if isinstance(error, IsADirectoryError):
        return Mistake(file=file, message="is a directory", remedy=_inside(path))
    if isinstance(error, PermissionError):
        remedy = "let the user that pillowd runs as read it (chgrp, chmod g+r)"
        return Mistake(file=file, message="may not be read", remedy=remedy)
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return Mistake(file=file, message=f"cannot be read: {reason}", remedy="name a readable file")


def _syntax(file: str, text: str, error: yaml.MarkedYAMLError) -> Mistake:
    """The mistake for what PyYAML's scanner, parser or composer refused."""
    mark = error.problem_mark or error.context_mark
    said = f"{error.context or ''} {error.problem or ''}".strip()
    message, remedy = next(
        ((m, r) for pattern, m, r in _WORDS if re.search(pattern, said)),
        (f"is no YAML: {said}", "check the YAML on this line and the one above"),
    )
    line = mark.line if mark else 0
    lines = text.splitlines()
    if "flow" in said and line < len(lines) and "${" in lines[line]:
        remedy = "put `${...}` into quotes: between `{ }` and `[ ]` YAML takes its braces for its own"
    if "never closed" in message and error.context_mark:
        message = f"a quote that is opened on line {error.context_mark.line + 1} is never closed"
    column = mark.column + 1 if mark else 0
    return Mistake(file=file, line=line + 1, column=column, message=message, remedy=remedy)


def _character(file: str, text: str, error: yaml.reader.ReaderError) -> Mistake:
    """The mistake for a character that YAML does not allow, such as a control character."""
    before = text[: error.position]
    return Mistake(
        file=file,
        line=before.count("\n") + 1,
        column=len(before) - (before.rfind("\n") + 1) + 1,
        message=f"the character U+{ord(text[error.position]):04X} is not allowed in YAML",
        remedy="remove it, or write it as an escape in double quotes",
    )


def _neighbours(path: FilePath) -> str:
    if not path.parent.is_dir():
        return f"the directory {path.parent} does not exist either; check the path"
    known = sorted(p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml", ".json"))
    return suggest(path.name, known, f"files in {path.parent}") if known else "check the path"


def _inside(path: FilePath) -> str:
    known = sorted(p.name for p in path.iterdir() if p.suffix in (".yaml", ".yml"))
    return f"name a file in it, such as {path / known[0]}" if known else "name a file"
