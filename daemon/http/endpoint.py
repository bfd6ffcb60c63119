"""What a listener checks before it carries out a request, and how it answers.

Nothing here imports Flask: a daemon that is only asked how its pillows are does without it (6 MB).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from daemon.control.api import ControlApi
from daemon.control.audit import Actor
from daemon.errors import RequestError, UnavailableError
from daemon.http.access import Tokens, check_host, check_origin, check_scope
from daemon.http.contract import Contract, ListenerKind, Operation
from daemon.http.dispatch import carry_out
from daemon.http.messages import JSON, PROBLEM, Answer
from daemon.http.problems import to_answer
from daemon.http.server.handler import LISTENER_KEY, PEER_KEY, STREAM_KEY
from pillows.redaction import Redactor

#: Keep browsers from loading parts of other sites into our pages, and from embedding our pages there.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
#: Names that every listener accepts as `Host`.
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")


class ListenerSettings(Struct, frozen=True, kw_only=True):
    """Settings of one listener.

    Attributes:
        kind: decides which operations it serves.
        hosts: further names of this server, without port.
        origins: the origins of pages of this server.
        tokens: the accepted tokens; None if no token is needed.
        redactor: removes secrets from every problem.
    """

    kind: ListenerKind
    hosts: Collection[str] = ()
    origins: Collection[str] = ()
    tokens: Tokens | None = None
    redactor: Redactor


class Asker(Struct, frozen=True, kw_only=True):
    """The sender of a request.

    Attributes:
        actor: for the audit log.
        scopes: what the token allows; None where no token is needed.
    """

    actor: Actor
    scopes: tuple[str, ...] | None = None

    def check_scope(self, needed: str) -> None:
        """Check that the token has a scope.

        Raises:
            NotPermittedError: it does not.
        """
        if self.scopes is not None:
            check_scope(self.scopes, needed, self.actor.token or "")


class Response(Struct, frozen=True, kw_only=True):
    """The response that is sent.

    Attributes:
        status: the HTTP status.
        headers: all but those that the server itself adds.
        body: bytes, or an iterator of bytes.
    """

    status: int
    headers: list[tuple[str, str]]
    body: Any

    @property
    def is_stream(self) -> bool:
        """Whether the body comes in pieces."""
        return not isinstance(self.body, bytes)


class Endpoint:
    """Answers the requests of one listener.

    Args:
        contract: the whole API.
        api: what the handlers work on.
        settings: of the listener.

    Attributes:
        operations: the whole API.
        served: the operations of the listener.
        redactor: removes secrets from every problem.
    """

    def __init__(self, contract: Contract, api: ControlApi, settings: ListenerSettings) -> None:
        is_admin = settings.kind == "admin"
        self.operations = contract.operations
        self.served = [each for each in self.operations.values() if is_admin or each.listener == "read"]
        self.redactor = settings.redactor
        self._api = api
        self._settings = settings
        self._hosts = frozenset(name.lower() for name in (*LOCAL_HOSTS, *settings.hosts))

    def answer_plain(self, operation: Operation, environ: Mapping[str, Any]) -> Response:
        """Answer a `GET` without parameters in path or query, and without a body, as Flask would."""
        try:
            asker = self.identify(environ)
            asker.check_scope(operation.scope)
            answer = self.carry_out(operation, collect_headers(operation, environ), asker)
            response = to_response(answer, environ)
        except Exception as error:  # noqa: BLE001  as Flask's error handler
            response = to_response(to_answer(error, self.redactor), environ)
        self.count(operation.id, "GET", response.status)
        return response

    def identify(self, environ: Mapping[str, Any]) -> Asker:
        """Return the sender of a request to this server.

        Raises:
            RequestError: it is meant for another server, or the token is wrong.
        """
        check_host(environ.get("HTTP_HOST", ""), self._hosts)
        via = environ.get(LISTENER_KEY, "http")
        peer = environ.get(PEER_KEY)
        address = environ.get("REMOTE_ADDR") or None
        if peer is not None:
            return Asker(actor=Actor(via=via, uid=peer[0], pid=peer[1]))
        if self._settings.tokens is None:
            return Asker(actor=Actor(via=via, address=address))
        holder = self._settings.tokens.recognize(environ.get("HTTP_AUTHORIZATION", ""), address or "")
        return Asker(actor=Actor(via=via, token=holder.name, address=address), scopes=holder.scopes)

    def check_operation(
        self,
        operation: Operation,
        headers: Mapping[str, str],
        asker: Asker,
        *,
        method: str,
        pillow: str | None = None,
    ) -> None:
        """Check that the client may request an operation; write an act that is refused to the audit log.

        Raises:
            RequestError: the request comes from another site's page, or the token does not allow it.
        """
        try:
            check_origin(method, headers, self._settings.origins)
            asker.check_scope(operation.scope)
        except RequestError:
            if operation.is_safe:
                raise
            with self._api.audit.act(operation.id, by=asker.actor, pillow=pillow):
                raise

    def carry_out(self, operation: Operation, arguments: Mapping[str, Any], asker: Asker) -> Answer:
        """Carry out an operation; see `dispatch.carry_out`."""
        for name, scope in operation.argument_scopes.items():
            if arguments.get(name):
                asker.check_scope(scope)
        return carry_out(self._api, operation, arguments, asker.actor)

    def count(self, endpoint: str, method: str, status: int) -> None:
        """Count an answer."""
        self._api.requests[endpoint, method, status] += 1


def collect_headers(operation: Operation, environ: Mapping[str, Any]) -> dict[str, Any]:
    """Return those arguments of a request that are headers."""
    headers = {argument: name for argument, (place, name) in operation.places.items() if place == "header"}
    keys = {argument: f"HTTP_{name.replace('-', '_').upper()}" for argument, name in headers.items()}
    return {
        argument: convert(environ[key], operation.parameters[argument])
        for argument, key in keys.items()
        if key in environ
    }


def convert(text: str, schema: Mapping[str, Any]) -> Any:
    """Return a text as the number or boolean that its schema wants; as it is, if it is none."""
    kind = schema.get("type")
    if kind == "boolean":
        return {"true": True, "": True, "false": False}.get(text, text)  # `?verbose` alone is true
    if kind in ("integer", "number"):
        with suppress(ValueError):
            number = int(text) if kind == "integer" else float(text)
            return number if math.isfinite(number) else text
    return text


def to_response(answer: Answer, environ: Mapping[str, Any]) -> Response:
    """Return an answer as it is sent, with the headers that every answer has.

    Raises:
        UnavailableError: it is a stream, and too many are open.
    """
    body = answer.body
    headers = [("Content-Type", _name_charset(answer.media_type)), *answer.headers.items()]
    if answer.pieces is not None:
        become_stream = environ.get(STREAM_KEY)
        if answer.is_stream and become_stream is not None and not become_stream():
            _close(answer.pieces)
            raise UnavailableError("too many streams are open", remedy="close one, or try again later")
    else:
        if answer.media_type in (JSON, PROBLEM):
            body = msgspec.json.encode(body) + b"\n"
        elif isinstance(body, str):
            body = body.encode()
        headers.append(("Content-Length", str(len(body))))
    headers += [each for each in HEADERS.items() if each[0] not in answer.headers]
    return Response(status=answer.status, headers=headers, body=body)


def _name_charset(media_type: str) -> str:
    """Return a media type with the charset that it needs (RFC 2046, 4.1.2)."""
    has_charset = media_type.startswith("text/") or media_type.endswith("+xml")
    return f"{media_type}; charset=utf-8" if has_charset else media_type


def _close(pieces: Any) -> None:
    close = getattr(pieces, "close", None)
    if close is not None:
        close()
