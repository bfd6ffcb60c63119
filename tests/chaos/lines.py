"""A proxy that understands requests: it can answer instead of the server, or change a request."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests
from gevent.socket import socket as GeventSocket  # noqa: N812 - it is a class

from tests.acceptance.stores import VERSION
from tests.servers.scripted import head, json_reply
from tests.servers.tcp_proxy import CHUNK_BYTES, Direction, Passed, TcpProxy, _Broken

#: A document's id and write version, in a line of COPY and in a line of a bulk request.
_COPIED = re.compile(rb"([0-9a-f]{12}-\d+)\t\d+-[0-9a-f]{32}\t(\d+)\t")
_BULKED = re.compile(rb'{"(?:index|delete)":{"_id":"([^"]+)","version":(\d+)')
_LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)


#: A document in one state: id and version.
State = tuple[str, int]


@dataclass(slots=True)
class Interception:
    """A change to the next requests of one kind.

    Attributes:
        pattern: matches the request's first line.
        times: number of requests to change.
        answer: returns the answer to send instead of the server's; empty bytes let the request pass.
        rewrite: returns the bytes to send to the server instead of the client's.
    """

    pattern: re.Pattern[bytes]
    times: int
    answer: Callable[[bytes], bytes] | None = None
    rewrite: Callable[[bytes], bytes] | None = None


class Line(TcpProxy):
    """The connections between pillowd and one server.

    Attributes:
        interceptions: changes to requests.
        hits: how often a fault took effect.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(target)
        self.interceptions: list[Interception] = []
        self.hits = 0

    def heal(self) -> None:
        """End every fault."""
        self.interceptions.clear()
        self._faults.clear()
        self.bytes_per_second = None
        self.flow()
        self.accept()

    def faults_left(self) -> int:
        return len(self._faults)

    def is_used(self) -> bool:
        """Return whether a connection is open."""
        return bool(self._open)

    def find_written(self) -> set[State]:
        """Return the states that were sent to a target."""
        return {
            (id.decode(), int(guard) & VERSION)
            for passed in self.connections
            for pattern in (_COPIED, _BULKED)
            for id, guard in pattern.findall(passed.to_server)
        }

    def forget(self) -> None:
        """Forget the bytes that passed, and all but the last 50 connections."""
        self.connections = self.connections[-50:]
        super().forget()

    def _pass_on(self, data: bytes, sink: GeventSocket, passed: Passed, direction: Direction) -> None:
        self.hits += self.bytes_per_second is not None or not self._flowing.is_set()
        super()._pass_on(data, sink, passed, direction)

    def _break(self, source: GeventSocket, sink: GeventSocket, passed: Passed) -> None:
        self.hits += 1
        super()._break(source, sink, passed)

    def _pump(self, source: GeventSocket, sink: GeventSocket, passed: Passed, direction: str) -> None:
        if direction == "to_client" or not self.interceptions:
            super()._pump(source, sink, passed, direction)  # type: ignore[arg-type]
            return
        try:
            while data := source.recv(CHUNK_BYTES):
                if data := self._intercept(source, data):
                    self._pass_on(data, sink, passed, "to_server")
            sink.shutdown(1)
        except _Broken:
            self._break(source, sink, passed)
        except OSError:
            self._close(source, sink)

    def _intercept(self, client: GeventSocket, data: bytes) -> bytes:
        """Return the bytes to send to the server; none if the client was answered here."""
        first = data.partition(b"\r\n")[0]
        for one in self.interceptions:
            if one.times and one.pattern.match(first):
                one.times -= 1
                self.hits += 1
                if one.rewrite is not None:
                    return one.rewrite(data)
                if one.answer is not None:
                    data = self._read_whole(client, data)
                    answer = one.answer(data)
                    client.sendall(answer)
                    return b"" if answer else data
        return data

    def _read_whole(self, client: GeventSocket, data: bytes) -> bytes:
        while b"\r\n\r\n" not in data:
            data += client.recv(CHUNK_BYTES)
        end = data.find(b"\r\n\r\n") + 4
        length = _LENGTH.search(data[:end])
        while length and len(data) < end + int(length[1]):
            data += client.recv(CHUNK_BYTES)
        return data


FEED = re.compile(rb"(GET|POST) \S*/_changes\?(?!\S*limit=0&)\S* ")
BULK = re.compile(rb"(POST|PUT) \S*/_bulk\S* ")


def answer_status(code: int, **headers: Any) -> Callable[[bytes], bytes]:
    """Return a function that answers with a status, as CouchDB and Elasticsearch do."""

    def answer(request: bytes) -> bytes:
        if code == 413:  # for a single document, it would be a permanent error
            return head(413, length=0, **headers) if request.count(b'"version_type"') > 1 else b""
        return json_reply({"error": "chaos", "reason": "told to"}, code, **headers)

    return answer


def rewind_feed(data: bytes) -> bytes:
    """Return a request that reads the feed from its start."""
    return re.sub(rb"since=[^& ]*", b"since=0", data, count=1)


def answer_busy_items(url: str, share: float) -> Callable[[bytes], bytes]:
    """Return a function that refuses a share of a bulk request's items with 429, and sends on the others.

    Args:
        url: the server's.
        share: of the items to refuse, from 0 to 1.
    """

    def answer(request: bytes) -> bytes:
        heading, _, body = request.partition(b"\r\n\r\n")
        path = re.sub("filter_path=[^&]*&?", "", heading.split(b" ", 2)[1].decode())
        operations = _operations(body)
        done = int(len(operations) * (1 - share))
        items = []
        if done:
            sent = b"\n".join(line for lines in operations[:done] for line in lines) + b"\n"
            kind = {"content-type": "application/x-ndjson"}
            items = requests.post(f"{url}{path}", data=sent, headers=kind).json()["items"]
        error = {"type": "es_rejected_execution_exception", "reason": "chaos"}
        for lines in operations[done:]:
            ((kind_, target),) = json.loads(lines[0]).items()
            items.append({kind_: {"_id": target["_id"], "status": 429, "error": error}})
        return json_reply({"errors": True, "took": 1, "items": items}, X_elastic_product="Elasticsearch")

    return answer


def _operations(body: bytes) -> list[list[bytes]]:
    lines = [line for line in body.split(b"\n") if line]
    found: list[list[bytes]] = []
    while lines:
        line = lines.pop(0)
        found.append([line] if line.startswith(b'{"delete"') else [line, lines.pop(0)])
    return found
