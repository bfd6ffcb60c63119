"""Recorded exchanges with a CouchDB server: read them, send them again, and compare the answers.

`recordings/README.md` describes the files.
"""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from email.message import Message
from email.parser import BytesParser
from functools import cached_property
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import gevent

FOLDER = Path(__file__).parent / "recordings"
RECORDED_ADMIN = ("admin", "secret")
MEANWHILE_SECONDS = 0.7  # from a request that waits to the one that is sent in the meantime
TIMEOUT_SECONDS = 60

HOLDER = re.compile(r"\{\{(\w+)(?::(\w+))?\}\}")
KINDS = {
    "rev": r"\d+-[0-9a-f]{32}",
    "hash": r"[0-9a-f]{32}",
    "uuid": r"[0-9a-f]{32}",
    "seq": r"\d+-[\w-]+",
    "int": r"\d+",
    "start": r"\d+",
    "cookie": r"[\w-]+",
    "date": r"[\w, :-]+ GMT",
    "any": r"(?s:.*)",
}
DISTINCT = ("rev", "start", "uuid")
ABSENT = "(absent)"
SHOWN = 200  # characters of a value in a difference


class Unknown(Exception):
    """A request needs a value that no earlier answer gave."""


@dataclass(slots=True)
class Values:
    """The values of a scenario's placeholders.

    Attributes:
        known: by kind and name.
    """

    known: dict[tuple[str, str], str] = field(default_factory=dict)

    def fill(self, text: str) -> str:
        """Return a text with its placeholders replaced."""
        return HOLDER.sub(lambda found: self._value(found[1], found[2] or ""), text)

    def unify(self, recorded: str, got: str) -> str | None:
        """Compare two texts and learn new values; return the difference."""
        fresh: dict[str, tuple[str, str]] = {}
        pattern = "".join(self._piece(text, kind, name, fresh) for text, kind, name in _pieces(recorded))
        found = re.fullmatch(pattern, got)
        if found is None:
            if fresh and HOLDER.fullmatch(recorded):  # a wrong value, which later requests need all the same
                self.known.update(dict.fromkeys(fresh.values(), got))
            return f"recorded {shorten(recorded)}, got {shorten(got)}"
        for group, holder in fresh.items():
            twin = self._twin(holder, found[group])
            self.known[holder] = found[group]
            if twin:
                return f"{holder} and {twin} are both {found[group]}"
        return None

    def _piece(self, text: str, kind: str, name: str, fresh: dict[str, tuple[str, str]]) -> str:
        """Return the pattern of a literal text and of the placeholder behind it."""
        literal = re.escape(text)
        if not kind:
            return literal
        if self._has(kind, name):
            return literal + re.escape(self._value(kind, name))
        if not name:
            return literal + KINDS[kind]
        group = f"{kind}_{name}"
        if group in fresh:
            return f"{literal}(?P={group})"
        fresh[group] = (kind, name)
        generation = re.search(r"\d+", name) if kind == "rev" else None
        wanted = f"{generation[0]}-{KINDS['hash']}" if generation else KINDS[kind]
        return f"{literal}(?P<{group}>{wanted})"

    def _has(self, kind: str, name: str) -> bool:
        if kind in ("fill", "nest") or (kind, name) in self.known:
            return True
        return kind == "hash" and ("rev", name) in self.known

    def _value(self, kind: str, name: str) -> str:
        if kind == "fill":
            return "x" * int(name)
        if kind == "nest":
            return "[" * int(name) + "]" * int(name)
        if kind == "hash" and ("rev", name) in self.known:
            return self.known["rev", name].partition("-")[2]
        if (kind, name) not in self.known:
            raise Unknown(f"no earlier answer gave {{{{{kind}:{name}}}}}")
        return self.known[kind, name]

    def _twin(self, holder: tuple[str, str], value: str) -> tuple[str, str] | None:
        """Return another name of the same thing that has this value already."""
        kind, name = holder
        if kind not in DISTINCT:
            return None
        return next(
            (
                other
                for other, known in self.known.items()
                if known == value and other[0] == kind and _thing(other[1]) == _thing(name)
            ),
            None,
        )


def _pieces(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield literal texts, each with the kind and name of the placeholder behind it."""
    end = 0
    for found in HOLDER.finditer(text):
        yield text[end : found.start()], found[1], found[2] or ""
        end = found.end()
    yield text[end:], "", ""


def _thing(name: str) -> str:
    """Return a placeholder's name without the generation and the letters behind it."""
    return name.rstrip("abcdefghijklmnopqrstuvwxyz").rstrip("0123456789")


def shorten(value: Any) -> str:
    """Return a value as a short text."""
    text = value if value is ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compares JSON values.

    Attributes:
        values: of the placeholders.
        unordered: names of lists whose order does not count.
    """

    values: Values
    unordered: frozenset[str] = frozenset()

    def differences(self, recorded: Any, got: Any, where: str) -> Iterator[str]:
        """Yield the differences between two values."""
        if recorded == "{{any}}" and got is not ABSENT:
            return
        if recorded == "{{int}}" and type(got) is int:
            return
        if isinstance(recorded, dict) and isinstance(got, dict):
            for name in recorded | got:
                left, right = recorded.get(name, ABSENT), got.get(name, ABSENT)
                yield from self.differences(left, right, f"{where}.{name}")
        elif isinstance(recorded, list) and isinstance(got, list):
            yield from self._lists(recorded, got, where)
        elif isinstance(recorded, str) and isinstance(got, str) and ABSENT not in (recorded, got):
            difference = self.values.unify(recorded, got)
            if difference:
                yield f"{where}: {difference}"
        elif type(recorded) is not type(got) or recorded != got:
            yield f"{where}: recorded {shorten(recorded)}, got {shorten(got)}"

    def _lists(self, recorded: list[Any], got: list[Any], where: str) -> Iterator[str]:
        if where.rpartition(".")[2] in self.unordered:
            recorded, got = self._unmatched(recorded, got)
        for number in range(max(len(recorded), len(got))):
            left = recorded[number] if number < len(recorded) else ABSENT
            right = got[number] if number < len(got) else ABSENT
            yield from self.differences(left, right, f"{where}[{number}]")

    def _unmatched(self, recorded: list[Any], got: list[Any]) -> tuple[list[Any], list[Any]]:
        """Return the items of two lists that have no equal in the other one."""
        rest, left = list(got), []
        for item in sorted(recorded, key=_is_named_by_holder):
            match = next((other for other in rest if self._learn(item, other)), None)
            if match is None:
                left.append(item)
            else:
                rest.remove(match)
        return left, rest

    def _learn(self, item: Any, other: Any) -> bool:
        """Return whether two items are equal, and keep the values that make them so."""
        trial = Values(dict(self.values.known))
        if any(replace(self, values=trial).differences(item, other, "")):
            return False
        self.values.known = trial.known
        return True


def _is_named_by_holder(item: Any) -> bool:
    return isinstance(item, dict) and "{{" in str(item.get("id", ""))


# --- sending


@dataclass(frozen=True, slots=True)
class Answer:
    """A response.

    Attributes:
        status: HTTP status.
        headers: by lower-case names.
        content: the body, unpacked.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def lines(self) -> list[bytes]:
        """The lines of the body; of several blank ones in a row there is one."""
        lines = self.content.split(b"\n")[:-1]
        return [line for number, line in enumerate(lines) if line or not number or lines[number - 1]]

    def body(self, form: str) -> Any:
        """Return the body in the form in which it was recorded."""
        if form == "parts":
            head = f"Content-Type: {self.headers.get('content-type')}\r\n\r\n".encode()
            return [_part(part) for part in _parts_of(BytesParser().parsebytes(head + self.content))]
        if form == "lines":
            return [_as_json(line) for line in self.lines]
        if form == "base64":
            return base64.b64encode(self.content).decode()
        return _as_json(self.content) if form == "json" else self.content.decode(errors="replace")


def _as_json(content: bytes) -> Any:
    text = content.decode(errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        return text


def _parts_of(message: Message) -> list[Message]:
    payload = message.get_payload()
    return cast("list[Message]", payload) if isinstance(payload, list) else []


def _part(part: Message) -> dict[str, Any]:
    headers = {name.lower(): re.sub("boundary=.*", "boundary=", text) for name, text in part.items()}
    inner = _parts_of(part)
    if inner:
        return {"headers": headers, "parts": [_part(one) for one in inner]}
    content = part.get_payload(decode=True)
    return {"headers": headers, "body": _as_json(content if isinstance(content, bytes) else b"")}


@dataclass(frozen=True, slots=True)
class Server:
    """A CouchDB server to which exchanges are sent.

    Attributes:
        url: without credentials.
        admin: name and password of an administrator.
    """

    url: str
    admin: tuple[str, str]

    def send(self, request: Mapping[str, Any], values: Values, take: int = 0) -> Answer:
        """Send a request; read the whole answer, or some lines of it.

        Raises:
            Unknown: the request needs a value that no answer gave.
            OSError: there is no answer.
            http.client.HTTPException: the answer is malformed.
        """
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
        with closing(connection):
            body = _body(request, values)
            connection.putrequest(request["method"], values.fill(request["path"]), skip_accept_encoding=True)
            for name, text in self._headers(request, body).items():
                connection.putheader(name, values.fill(text))
            connection.endheaders(body)
            response = connection.getresponse()
            headers = {name.lower(): text for name, text in response.getheaders()}
            content = _take_lines(response, take) if take else response.read()
        if headers.get("content-encoding") == "gzip":
            content = gzip.decompress(content)
        return Answer(response.status, headers, content)

    def _headers(self, request: Mapping[str, Any], body: bytes | None) -> dict[str, str]:
        headers = {"User-Agent": "recording", "Accept-Encoding": "identity"}
        if "json" in request:
            headers["Content-Type"] = "application/json"
        auth = request.get("auth", self.admin)
        if auth and auth[0]:
            headers["Authorization"] = "Basic " + base64.b64encode(":".join(auth).encode()).decode()
        if body is not None:
            headers["Content-Length"] = str(len(body))
        return {**headers, **request.get("headers", {})}


def _body(request: Mapping[str, Any], values: Values) -> bytes | None:
    if "base64" in request:
        return base64.b64decode(request["base64"])
    if "json" not in request and "text" not in request:
        return None
    text = request["text"] if "text" in request else json.dumps(request["json"])
    body = values.fill(text).encode()
    return gzip.compress(body) if request.get("gzip") else body


def _take_lines(response: http.client.HTTPResponse, count: int) -> bytes:
    """Read some lines, of which several blank ones in a row count as one."""
    taken: list[bytes] = []
    while len(taken) < count:
        line = response.readline()
        if not line:
            break
        if line.strip() or not taken or taken[-1].strip():
            taken.append(line)
    return b"".join(taken)


# --- scenarios


@dataclass(frozen=True)
class Scenario:
    """A recorded scenario.

    Attributes:
        content: of its file.
    """

    content: Mapping[str, Any]

    @property
    def is_server_wide(self) -> bool:
        """Whether it changes the settings of the node."""
        return bool(self.content.get("server_wide"))

    @cached_property
    def exchanges(self) -> list[dict[str, Any]]:
        """The exchanges in their order."""
        exchanges: list[dict[str, Any]] = self.content["exchanges"]
        return exchanges

    def play(self, server: Server) -> list[str]:
        """Send all requests; return the differences between the answers and the recorded ones."""
        exchanges = [as_admin(exchange, server.admin) for exchange in self.exchanges]
        values = Values()
        found: list[str] = []
        with self._cleaned_up(server):
            for number, exchange in enumerate(exchanges, 1):
                request = exchange["request"]
                title = f"{number} {request['method']} {request['path'][:80]} ({exchange['note']})"
                found += [f"{title}: {difference}" for difference in self._exchange(exchange, server, values)]
        return found

    def _exchange(self, exchange: dict[str, Any], server: Server, values: Values) -> Iterable[str]:
        gevent.sleep(exchange.get("wait", 0))
        awaited = gevent.spawn(_try, server, exchange, values)
        found: list[str] = []
        if "meanwhile" in exchange:
            gevent.sleep(MEANWHILE_SECONDS)
            found += self._exchange(exchange["meanwhile"], server, values)
        answer = awaited.get()
        if isinstance(answer, str):
            return [*found, answer]
        return [*found, *self._compare(exchange["response"], answer, values)]

    def _compare(self, recorded: Mapping[str, Any], answer: Answer, values: Values) -> Iterator[str]:
        comparison = Comparison(values, frozenset(recorded.get("any_order", ())))
        yield from comparison.differences(recorded["status"], answer.status, "status")
        for name in dict.fromkeys([*self.content["headers"], *recorded["headers"]]):
            left, right = recorded["headers"].get(name, ABSENT), answer.headers.get(name, ABSENT)
            yield from comparison.differences(left, right, name)
        forms = ("json", "text", "lines", "parts", "base64")
        form = next((form for form in forms if form in recorded), "text")
        yield from comparison.differences(recorded.get(form, ""), answer.body(form), form)

    def _cleaned_up(self, server: Server) -> CleanUp:
        return CleanUp(server, self.content)


def _try(server: Server, exchange: Mapping[str, Any], values: Values) -> Answer | str:
    try:
        return server.send(exchange["request"], values, exchange.get("take", 0))
    except (OSError, http.client.HTTPException, Unknown) as error:
        return f"no answer: {error}"


class CleanUp:
    """Removes the databases and users of a scenario before and after it, and restores the settings.

    Args:
        server: the server.
        content: the scenario.
    """

    def __init__(self, server: Server, content: Mapping[str, Any]) -> None:
        self._server = server
        self._content = content
        self._settings: dict[str, Answer] = {}

    def __enter__(self) -> None:
        for name in self._content.get("settings", ()):
            self._settings[name] = self._send("GET", f"/_node/_local/_config/{name}")
        self._remove()

    def __exit__(self, *_: object) -> None:
        for name, before in self._settings.items():
            path = f"/_node/_local/_config/{name}"
            if before.status == 200:
                self._send("PUT", path, text=before.content.decode())
            else:
                self._send("DELETE", path)
        self._remove()

    def _remove(self) -> None:
        for name in self._content.get("databases", ()):
            self._send("DELETE", f"/{name}")
        for name in self._content.get("users", ()):
            path = f"/_users/org.couchdb.user:{name}"
            found = self._send("GET", path)
            if found.status == 200:
                self._send("DELETE", f"{path}?rev={json.loads(found.content)['_rev']}")

    def _send(self, method: str, path: str, **body: str) -> Answer:
        return self._server.send({"method": method, "path": path, **body}, Values())


def as_admin(value: Any, admin: tuple[str, str]) -> Any:
    """Return a part of a scenario with another administrator than the recorded one."""
    if isinstance(value, dict):
        return {name: as_admin(member, admin) for name, member in value.items()}
    if isinstance(value, list):
        return [as_admin(item, admin) for item in value]
    if value in RECORDED_ADMIN:
        return admin[RECORDED_ADMIN.index(value)]
    return value


def scenarios() -> dict[str, Scenario]:
    """Return all scenarios by their names."""
    files = sorted(FOLDER.glob("*.json"))
    return {path.stem: Scenario(json.loads(path.read_text())) for path in files}
