"""The names of the databases that a pillow reads, and their place in its rows. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import translate
from hashlib import blake2b
from typing import TypeVar

import msgspec

from pillows.models import DocumentRows, WriteResult, join_key, split_key

_Value = TypeVar("_Value")

#: Placeholder in a setting or a constant: the name of the row's database.
PLACEHOLDER = "{source}"

_WILDCARD = re.compile(r"[*?\[]")
_PLAIN = re.compile(r"[a-z0-9_-]+")

#: Longest name of a table, in characters; an index may have more.
_LONGEST_NAME = 63

#: Appended to a prefix, it sorts after every name with that prefix in CouchDB's order of names.
_LAST = "\ufff0"


class DatabaseNames:
    """The databases that a pillow reads.

    Args:
        patterns: names, or globs with `*`, `?` and `[...]`.
        exclude: names or globs of databases that are left out.
    """

    def __init__(self, patterns: Sequence[str], exclude: Sequence[str] = ()) -> None:
        self.patterns = tuple(patterns)
        self._written = frozenset(each for each in patterns if not is_glob(each))
        self._globs = _compile([each for each in patterns if is_glob(each)])
        self._excluded = _compile(exclude)

    def matches(self, name: str) -> bool:
        """Return whether a database is read. CouchDB's own, such as `_users`, must be named in full."""
        if self._excluded is not None and self._excluded.match(name):
            return False
        if name in self._written:
            return True
        return self._globs is not None and not name.startswith("_") and bool(self._globs.match(name))

    @property
    def written_out(self) -> frozenset[str]:
        """The names without a wildcard."""
        return frozenset(filter(self.matches, self._written))

    @property
    def ranges(self) -> list[tuple[str, str]]:
        """The ranges of names (first, last) that contain every database; no range lies within another."""
        found: list[tuple[str, str]] = []
        # Of two ranges with the same start the longer one comes first: that of a glob before that of a name.
        for start, end in sorted(map(_to_range, self.patterns), key=lambda each: (each[0], -len(each[1]))):
            if not (found and found[-1][0] <= start and end <= found[-1][1]):
                found.append((start, end))
        return found


def is_glob(pattern: str) -> bool:
    """Return whether a pattern has a wildcard."""
    return _WILDCARD.search(pattern) is not None


def is_of_several(name: str) -> bool:
    """Return whether the database in a key is several: no name of a database has such letters."""
    return is_glob(name) or "," in name


def with_key(database: str, document: DocumentRows) -> DocumentRows:
    """Return a document of one database, with its key instead of its id."""
    return msgspec.structs.replace(document, id=join_key(database, document.id))


def without_keys(database: str, result: WriteResult) -> WriteResult:
    """Return one database's part of a result, with document ids instead of keys."""
    return WriteResult(
        refused=_pick(database, result.refused),
        dead=_pick(database, result.dead),
        retry=_pick(database, result.retry),
    )


def fill_in(text: str, database: str) -> str:
    """Return a text with `{source}` replaced by the database's name."""
    return text.replace(PLACEHOLDER, database)


def fill_in_name(template: str, database: str) -> str:
    """Return the name of a table or an index of one database.

    Characters that are not allowed become `_`, and a long name is cut; a digest is then added, so that two
    databases never get the same name.

    Args:
        template: a name that contains `{source}`.
        database: the database's name.
    """
    room = _LONGEST_NAME - len(template.replace(PLACEHOLDER, ""))
    if _PLAIN.fullmatch(database) and len(database) <= room:
        return fill_in(template, database)
    mark = blake2b(database.encode(), digest_size=4).hexdigest()
    plain = re.sub(r"[^a-z0-9_-]", "_", database)
    return fill_in(template, f"{plain[: max(1, room - len(mark) - 1)]}-{mark}")


def _compile(globs: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(translate, globs))) if globs else None


def _pick(database: str, found: Mapping[str, _Value]) -> Mapping[str, _Value]:
    parts = ((split_key(key), value) for key, value in found.items())
    return {id: value for (name, id), value in parts if name == database}


def _to_range(pattern: str) -> tuple[str, str]:
    found = _WILDCARD.search(pattern)
    if found is None:
        return pattern, pattern
    prefix = pattern[: found.start()]
    return prefix, prefix + _LAST
