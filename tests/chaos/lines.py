"""A proxy that also understands requests: it can answer in the server's place, or change what is asked."""

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

#: A state of a document, named in a line of COPY and in one of a bulk request: its id, and its guard.
_COPIED = re.compile(rb"([0-9a-f]{12}-\d+)\t\d+-[0-9a-f]{32}\t(\d+)\t")
_BULKED = re.compile(rb'{"(?:index|delete)":{"_id":"([^"]+)","version":(\d+)')
_LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)


#: A document in one state: id and version.
State = tuple[str, int]


@dataclass(slots=True)
class Interception:
    """What happens to the next requests of one kind.

    Attributes:
        pattern: of the request's first line.
        times: how many requests it happens to.
        answer: gives what the client gets instead of the server's answer; nothing lets the request pass.
        rewrite: gives what the server gets instead of the client's bytes.
    """

    pattern: re.Pattern[bytes]
    times: int
    answer: Callable[[bytes], bytes] | None = None
    rewrite: Callable[[bytes], bytes] | None = None


class Line(TcpProxy):
    """The line between pillowd and one server.

    Attributes:
        interceptions: what happens to requests.
        felt: how often something happened.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(target)
        self.interceptions: list[Interception] = []
        self.felt = 0

    def heal(self) -> None:
        """Ends every fault."""
        self.interceptions.clear()
        self._faults.clear()
        self.bytes_per_second = None
        self.flow()
        self.accept()

    def faults_left(self) -> int:
        return len(self._faults)

    def is_used(self) -> bool:
        """Whether anything is connected."""
        return bool(self._open)

    def written(self) -> set[State]:
        """The states that were sent to a target."""
        return {
            (id.decode(), int(guard) & VERSION)
            for passed in self.connections
            for pattern in (_COPIED, _BULKED)
            for id, guard in pattern.findall(passed.to_server)
        }

    def forget(self) -> None:
        """Forgets what passed, and connections that are over."""
        self.connections = self.connections[-50:]
        super().forget()

    def _pass_on(self, data: bytes, sink: GeventSocket, passed: Passed, direction: Direction) -> None:
        self.felt += self.bytes_per_second is not None or not self._flowing.is_set()
        super()._pass_on(data, sink, passed, direction)

    def _break(self, source: GeventSocket, sink: GeventSocket, passed: Passed) -> None:
        self.felt += 1
        super()._break(source, sink, passed)

    def _pump(self, source: GeventSocket, sink: GeventSocket, passed: Passed, direction: str) -> None:
        if direction == "to_client" or not self.interceptions:
            super()._pump(source, sink, passed, direction)  # type: ignore[arg-type]
            return
        try:
            while data := source.recv(CHUNK_BYTES):
                if data := self._intercepted(source, data):
                    self._pass_on(data, sink, passed, "to_server")
            sink.shutdown(1)
        except _Broken:
            self._break(source, sink, passed)
        except OSError:
            self._close(source, sink)

    def _intercepted(self, client: GeventSocket, data: bytes) -> bytes:
        """What the server gets of a request; nothing where the client was answered."""
        first = data.partition(b"\r\n")[0]
        for one in self.interceptions:
            if one.times and one.pattern.match(first):
                one.times -= 1
                self.felt += 1
                if one.rewrite is not None:
                    return one.rewrite(data)
                if one.answer is not None:
                    data = self._whole(client, data)
                    answer = one.answer(data)
                    client.sendall(answer)
                    return b"" if answer else data
        return data

    def _whole(self, client: GeventSocket, data: bytes) -> bytes:
        while b"\r\n\r\n" not in data:
            data += client.recv(CHUNK_BYTES)
        end = data.find(b"\r\n\r\n") + 4
        length = _LENGTH.search(data[:end])
        while length and len(data) < end + int(length[1]):
            data += client.recv(CHUNK_BYTES)
        return data


FEED = re.compile(rb"(GET|POST) \S*/_changes\?(?!\S*limit=0&)\S* ")
BULK = re.compile(rb"(POST|PUT) \S*/_bulk\S* ")


def status(code: int, **headers: Any) -> Callable[[bytes], bytes]:
    """Answers with a status, as CouchDB and Elasticsearch do."""

    def answer(request: bytes) -> bytes:
        if code == 413:  # of a single document it would be for good
            return head(413, length=0, **headers) if request.count(b'"version_type"') > 1 else b""
        return json_reply({"error": "chaos", "reason": "told to"}, code, **headers)

    return answer


def rewound(data: bytes) -> bytes:
    """A feed that begins anew."""
    return re.sub(rb"since=[^& ]*", b"since=0", data, count=1)


def busy_items(url: str, share: float) -> Callable[[bytes], bytes]:
    """A bulk request of which only a share is done; the other items get 429.

    Args:
        url: of the server that does the rest.
        share: of the items that are refused.
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
