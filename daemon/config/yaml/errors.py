"""Explain why a file cannot be read as YAML, with line, column and remedy."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from daemon.config.problems import ConfigProblem, Place
from pillows.suggest import suggest

#: Pattern of PyYAML's message, our message, and the remedy; the first match counts.
_MESSAGES = (
    (
        r"found character '\\t'",
        "a tab is used where YAML allows only spaces",
        "replace tabs by spaces",
    ),
    (
        r"mapping values are not allowed",
        "a `:` is used where no key can be",
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
        "close it, or put the text between them into quotes",
    ),
    (
        r"found undefined alias",
        "`*` names an anchor that does not exist",
        "put text that begins with `*` into quotes, or define the anchor with `&` above",
    ),
    (
        r"single document",
        "a second YAML document begins",
        "remove the `---` line, or move the rest into a file of its own",
    ),
    (
        r"cannot start any token|could not determine a constructor|expected alphabetic or numeric",
        "a value cannot begin with this character",
        "put the value into quotes",
    ),
    (
        r"unknown escape character|expected escape sequence",
        "a backslash in double quotes begins an unknown escape",
        "write `\\\\` for a backslash, or use single quotes",
    ),
)


def explain_unparsable(file: str, text: str, error: Exception) -> ConfigProblem:
    """Return the problem for an exception that PyYAML raised on a text."""
    if isinstance(error, yaml.MarkedYAMLError):
        return _explain_syntax(file, text, error)
    if isinstance(error, yaml.reader.ReaderError):
        return _explain_character(file, text, error)
    whole = Place(file=file)
    if isinstance(error, RecursionError):
        return ConfigProblem(place=whole, message="is nested too deeply", remedy="make it flatter")
    remedy = "look for a backslash escape in double quotes that is not a character"
    return ConfigProblem(place=whole, message=f"holds an impossible character: {error}", remedy=remedy)


def explain_unreadable(path: Path, error: OSError | ValueError) -> ConfigProblem:
    """Return the problem for a file that cannot be read at all."""
    if isinstance(error, UnicodeDecodeError):
        place = Place(file=str(path), line=error.object[: error.start].count(b"\n") + 1)
        message = f"byte 0x{error.object[error.start]:02x} is not UTF-8"
        return ConfigProblem(place=place, message=message, remedy="save the file as UTF-8")
    message, remedy = _explain_os_error(path, error)
    return ConfigProblem(place=Place(file=str(path)), message=message, remedy=remedy)


def _explain_os_error(path: Path, error: OSError | ValueError) -> tuple[str, str]:
    if isinstance(error, FileNotFoundError):
        return "there is no such file", suggest_file(path)
    if isinstance(error, IsADirectoryError):
        known = _list_files(path)
        return "is a directory", f"name a file in it, such as {path / known[0]}" if known else "name a file"
    if isinstance(error, PermissionError):
        return "may not be read", "let the user that pillowd runs as read it (chgrp, chmod g+r)"
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return f"cannot be read: {reason}", "name a readable file"


def suggest_file(path: Path) -> str:
    """Return the remedy for a file that does not exist: one of a similar name, or a list."""
    if not path.parent.is_dir():
        return f"the directory {path.parent} does not exist either; check the path"
    known = _list_files(path.parent)
    return suggest(path.name, known, f"files in {path.parent}") if known else "check the path"


def _list_files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix in (".yaml", ".yml", ".json"))


def _explain_syntax(file: str, text: str, error: yaml.MarkedYAMLError) -> ConfigProblem:
    mark = error.problem_mark or error.context_mark
    said = f"{error.context or ''} {error.problem or ''}".strip()
    message, remedy = next(
        ((m, r) for pattern, m, r in _MESSAGES if re.search(pattern, said)),
        (f"is not valid YAML: {said}", "check the YAML on this line and the one above"),
    )
    line = mark.line if mark else 0
    lines = text.splitlines()
    if "flow" in said and line < len(lines) and "${" in lines[line]:
        remedy = "put `${...}` into quotes: between `{ }` and `[ ]` YAML takes its braces for its own"
    if "never closed" in message and error.context_mark:
        message = f"a quote that is opened on line {error.context_mark.line + 1} is never closed"
    place = Place(file=file, line=line + 1, column=mark.column + 1 if mark else 0)
    return ConfigProblem(place=place, message=message, remedy=remedy)


def _explain_character(file: str, text: str, error: yaml.reader.ReaderError) -> ConfigProblem:
    before = text[: error.position]
    column = len(before) - (before.rfind("\n") + 1) + 1
    return ConfigProblem(
        place=Place(file=file, line=before.count("\n") + 1, column=column),
        message=f"the character U+{ord(text[error.position]):04X} is not allowed in YAML",
        remedy="remove it, or write it as an escape in double quotes",
    )
