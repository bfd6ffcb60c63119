"""Call the HTTP API of a running daemon over its admin socket: what `curl --unix-socket` does."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from checkpoints import StoreUnavailable
from checkpoints.rpc.unix_socket import open_address
from daemon.http.contract import Operation, load_contract
from daemon.http.durations import MAX_WAIT_SECONDS
from daemon.http.event_reader import Message, read_messages
from daemon.http.messages import JSON
from daemon.http.problems import to_error

#: Longer than any answer takes, the longest `wait` included.
_TIMEOUT_SECONDS = MAX_WAIT_SECONDS + 30.0
#: A stream that is silent for this time is dead: the daemon sends something every 15 s.
_SILENCE_SECONDS = 40.0


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection to a unix socket.

    Args:
        path: the socket.
        timeout_seconds: longest wait for a piece of the answer.
    """

    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with open_address(self._path) as address:
            self.sock.connect(address)


class HttpClient:
    """Calls operations by their id.

    Args:
        path: the admin socket.
        timeout_seconds: longest wait for an answer; after that, the daemon counts as unreachable.
    """

    def __init__(self, path: Path, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._path = path
        self._timeout_seconds = timeout_seconds

    def answers(self) -> bool:
        """Return whether a daemon answers at all, even if it reports itself unhealthy."""
        try:
            self._exchange("GET", "/livez", None, {})
        except StoreUnavailable:
            return False
        return True

    def call(self, operation_id: str, **arguments: Any) -> Any:
        """Call an operation and return its answer as JSON values.

        Args:
            operation_id: its `operationId`.
            arguments: its parameters and body by argument name; None is left out.

        Raises:
            RequestError: the daemon refused the request; the problem's URN decides the class.
            StoreUnavailable: no answer came. An act may have been carried out or not.
        """
        operation = load_contract().operations[operation_id]
        given = {name: value for name, value in arguments.items() if value is not None}
        body = json.dumps(given.pop("body")).encode() if "body" in given else None
        status, answer = self._exchange(
            operation.method, _format_path(operation, given), body, _headers(operation, given)
        )
        value = json.loads(answer)
        if status >= 400:
            raise to_error(value)
        return value

    @contextmanager
    def stream(self, operation_id: str, **arguments: Any) -> Iterator[Iterator[Message]]:
        """Open a stream, and yield its messages until the daemon ends it.

        Args:
            operation_id: a streaming operation.
            arguments: its parameters by argument name; None is left out.

        Raises:
            RequestError: the daemon refused it.
            StoreUnavailable: no daemon answers, or the connection was lost.
        """
        operation = load_contract().operations[operation_id]
        given = {name: value for name, value in arguments.items() if value is not None}
        connection = _UnixConnection(self._path, _SILENCE_SECONDS)
        try:
            connection.request("GET", _format_path(operation, given), headers=_headers(operation, given))
            response = connection.getresponse()
            if response.status >= 400:
                raise to_error(json.loads(response.read()))
            yield read_messages(response)
        except (OSError, http.client.HTTPException) as error:
            raise StoreUnavailable(f"nobody answers on {self._path}: {error}") from error
        finally:
            connection.close()

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        connection = _UnixConnection(self._path, self._timeout_seconds)
        sent = {"Connection": "close", **headers}
        if method != "GET":
            sent["Content-Type"] = JSON
        try:
            connection.request(method, path, body=body, headers=sent)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise StoreUnavailable(f"nobody answers on {self._path}: {error}") from error
        finally:
            connection.close()


def _format_path(operation: Operation, arguments: dict[str, Any]) -> str:
    path, query = operation.path, []
    for argument, value in arguments.items():
        place, name = operation.places[argument]
        if place == "path":
            path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
        elif place == "query":
            values = value if isinstance(value, list | tuple) else [value]
            query += [(name, _format(each)) for each in values]
    return f"{path}?{urlencode(query)}" if query else path


def _format(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _headers(operation: Operation, arguments: dict[str, Any]) -> dict[str, str]:
    places = {argument: operation.places[argument] for argument in arguments}
    return {name: str(arguments[argument]) for argument, (place, name) in places.items() if place == "header"}
