"""The parameters that `_all_docs`, `_all_dbs` and views share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.servers.couchdb.errors import Refusal, bad_request
from tests.servers.couchdb.http import Request
from tests.servers.couchdb.jsontext import loads

ABSENT: Any = object()
NAMES = {"start_key": "startkey", "end_key": "endkey"}
KEYS = ("startkey", "endkey", "key", "keys")
BOOLEANS = (
    "descending",
    "inclusive_end",
    "include_docs",
    "conflicts",
    "attachments",
    "update_seq",
    "reduce",
    "group",
)
NUMBERS = ("limit", "skip", "group_level")


@dataclass(slots=True, kw_only=True)
class Arguments:
    """The parameters of a view.

    Attributes:
        startkey, endkey: the range; `ABSENT` leaves an end open.
        keys: the only keys that are wanted.
        limit, skip: how many rows, and from which on.
        descending: whether the last one comes first.
        inclusive_end: whether the range has its end.
        include_docs, conflicts, attachments: which parts of documents are shown.
        update_seq: whether the state's token is shown.
        reduce, group, group_level: whether and how rows are reduced.
    """

    startkey: Any = ABSENT
    endkey: Any = ABSENT
    keys: list[Any] | None = None
    limit: int | None = None
    skip: int = 0
    descending: bool = False
    inclusive_end: bool = True
    include_docs: bool = False
    conflicts: bool = False
    attachments: bool = False
    update_seq: bool = False
    reduce: bool = True
    group: bool = False
    group_level: int = 0

    @property
    def low(self) -> Any:
        """The smaller end of the range."""
        return self.endkey if self.descending else self.startkey

    @property
    def high(self) -> Any:
        """The greater end of the range."""
        return self.startkey if self.descending else self.endkey


def read_arguments(request: Request) -> Arguments:
    """Return the parameters of a request; those of the query win over those of the body.

    Raises:
        Refusal: one of them makes no sense.
    """
    given: dict[str, Any] = {}
    if request.method == "POST":
        request.want_json()
        body = request.json()
        if not isinstance(body, dict):
            raise bad_request("Request body must be a JSON object")
        given |= body
    given |= _from_query(request.query)
    return make_arguments(given)


def _from_query(query: list[tuple[str, str]]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, text in query:
        if NAMES.get(name, name) in KEYS:
            given[name] = loads(text.encode())
        elif name in BOOLEANS:
            given[name] = _boolean(text)
        elif name in NUMBERS:
            given[name] = _number(text)
    return given


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise Refusal(400, "query_parse_error", f'Invalid boolean parameter: "{text}"')
    return text.lower() == "true"


def _number(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise Refusal(400, "query_parse_error", f'Invalid value for integer: "{text}"') from None
    if value < 0:
        raise Refusal(400, "query_parse_error", f'Invalid value for positive integer: "{text}"')
    return value


def make_arguments(given: dict[str, Any], *, single: bool = False) -> Arguments:
    """Return the parameters that an object names.

    Args:
        given: names and values.
        single: whether a list of one key is that key's range, as in `queries`.
    """
    arguments = Arguments()
    keys = given.get("keys", ABSENT)
    if keys is not ABSENT and not isinstance(keys, list):
        raise bad_request("`keys` body member must be an array.")
    if single and keys is not ABSENT and len(keys) == 1:
        given = {**given, "key": keys[0]}
    elif keys is not ABSENT:
        arguments.keys = keys
    for name, value in given.items():
        plain = NAMES.get(name, name)
        if plain == "key":
            arguments.startkey = arguments.endkey = value
        elif plain in ("startkey", "endkey", *BOOLEANS, *NUMBERS):
            setattr(arguments, plain, value)
    return arguments
