"""The WSGI application of a listener: Flask with the operations that the listener serves."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from http.client import responses
from typing import Any

import flask
import msgspec
import werkzeug
from msgspec import Struct
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.utils import get_content_type

from daemon.control.api import ControlApi
from daemon.control.audit import Actor
from daemon.errors import InvalidRequestError, NotFoundError, RequestError, UnavailableError
from daemon.http.access import Tokens, check_host, check_origin, check_scope
from daemon.http.contract import Contract, ListenerKind, Operation
from daemon.http.dispatch import carry_out, name_target
from daemon.http.messages import JSON, PROBLEM, Answer
from daemon.http.problems import to_answer
from daemon.http.server.handler import LISTENER_KEY, PEER_KEY, STREAM_KEY
from pillows.redaction import Redactor
from pillows.suggest import suggest

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


class NoSuchRouteError(NotFoundError):
    """There is no such path."""


class MethodError(RequestError):
    """The path does not have the request's method."""

    status = 405


class AppSettings(Struct, frozen=True, kw_only=True):
    """Settings of the application of one listener.

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


def make_app(contract: Contract, api: ControlApi, settings: AppSettings) -> flask.Flask:
    """Return the application of one listener."""
    app = flask.Flask("pillowd", static_folder=None)
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True
    is_admin = settings.kind == "admin"
    served = [each for each in contract.operations.values() if is_admin or each.listener == "read"]
    endpoint = _Endpoint(contract, api, settings)
    for operation in served:
        app.add_url_rule(
            _to_rule(operation.path),
            endpoint=operation.id,
            view_func=endpoint.respond,
            methods=[operation.method],
            provide_automatic_options=False,
        )
    app.before_request(endpoint.check_request)
    app.register_error_handler(Exception, endpoint.explain)
    app.after_request(endpoint.finish)
    app.wsgi_app = _ShortWay(app.wsgi_app, endpoint, served)  # type: ignore[method-assign]
    return app


def _to_rule(path: str) -> str:
    """Return Flask's form of a path: `{key}` is `<key>`."""
    return re.sub(r"\{(\w+)\}", r"<\1>", path)


class _Endpoint:
    """Answers the requests of one listener.

    Args:
        contract: the whole API.
        api: what the handlers work on.
        settings: of the listener.
    """

    def __init__(self, contract: Contract, api: ControlApi, settings: AppSettings) -> None:
        self._operations = contract.operations
        self._api = api
        self._settings = settings
        rules = [Rule(_to_rule(each.path), methods=[each.method]) for each in self._operations.values()]
        self._all_rules = Map(rules, merge_slashes=False).bind("")
        self._hosts = frozenset(name.lower() for name in (*LOCAL_HOSTS, *settings.hosts))

    def answer_plain(self, operation: Operation, environ: Mapping[str, Any]) -> _Response:
        """Answer a `GET` without parameters in path or query, and without a body, as Flask would."""
        try:
            asker = self._identify(environ)
            asker.check_scope(operation.scope)
            answer = self._carry_out(operation, _collect_headers(operation, environ), asker)
            response = _to_response(answer, environ)
        except Exception as error:  # noqa: BLE001  as Flask's error handler
            response = _to_response(to_answer(error, self._settings.redactor), environ)
        self._count(operation.id, "GET", response.status)
        return response

    def check_request(self) -> None:
        """Check who sends a request, and from where, before anything else is done.

        Raises:
            HTTPException: the host, path or method is not one of this listener.
            RequestError: the client may not send it.
        """
        request = flask.request
        asker = self._identify(request.environ)
        if request.routing_exception is not None:
            raise request.routing_exception
        flask.g.asker = asker
        operation = self._operations[request.endpoint or ""]
        self._check_operation(operation, request, asker, pillow=(request.view_args or {}).get("key"))

    def respond(self, **path: str) -> flask.Response:
        """Carry out the operation that a request names."""
        operation = self._operations[flask.request.endpoint or ""]
        flask.g.pillow = path.get("key")
        arguments = _collect(operation, path, flask.request)
        flask.g.pillow = name_target(arguments)
        answer = self._carry_out(operation, arguments, flask.g.asker)
        return _to_response(answer, flask.request.environ).to_flask()

    def explain(self, error: Exception) -> flask.Response:
        """Return the problem document of an error."""
        if isinstance(error, HTTPException):
            error = self._translate(error, flask.request)
        answer = to_answer(error, self._settings.redactor, pillow=flask.g.get("pillow"))
        return _to_response(answer, flask.request.environ).to_flask()

    def finish(self, response: flask.Response) -> flask.Response:
        """Count an answer."""
        self._count(flask.request.endpoint or "none", flask.request.method, response.status_code)
        return response

    def _identify(self, environ: Mapping[str, Any]) -> _Asker:
        """Return the sender of a request to this server.

        Raises:
            RequestError: it is meant for another server, or the token is wrong.
        """
        check_host(environ.get("HTTP_HOST", ""), self._hosts)
        via = environ.get(LISTENER_KEY, "http")
        peer = environ.get(PEER_KEY)
        address = environ.get("REMOTE_ADDR") or None
        if peer is not None:
            return _Asker(actor=Actor(via=via, uid=peer[0], pid=peer[1]))
        if self._settings.tokens is None:
            return _Asker(actor=Actor(via=via, address=address))
        holder = self._settings.tokens.recognize(environ.get("HTTP_AUTHORIZATION", ""), address or "")
        return _Asker(actor=Actor(via=via, token=holder.name, address=address), scopes=holder.scopes)

    def _check_operation(
        self, operation: Operation, request: werkzeug.Request, asker: _Asker, *, pillow: str | None = None
    ) -> None:
        """Check that the client may request an operation; write an act that is refused to the audit log."""
        try:
            check_origin(request.method, dict(request.headers), self._settings.origins)
            asker.check_scope(operation.scope)
        except RequestError:
            if operation.is_safe:
                raise
            with self._api.audit.act(operation.id, by=asker.actor, pillow=pillow):
                raise

    def _carry_out(self, operation: Operation, arguments: Mapping[str, Any], asker: _Asker) -> Answer:
        for name, scope in operation.argument_scopes.items():
            if arguments.get(name):
                asker.check_scope(scope)
        return carry_out(self._api, operation, arguments, asker.actor)

    def _translate(self, error: HTTPException, request: werkzeug.Request) -> RequestError:
        if error.code in (404, 405) and self._all_rules.test(request.path, request.method):
            return NoSuchRouteError(
                "this listener only shows how the pillows are; the whole API is on the admin socket",
                remedy="`curl --unix-socket`, with the path of `daemon.admin.listen`",
            )
        if error.code == 404:
            return NoSuchRouteError("there is no such path here", remedy="see /v1/openapi.json")
        if error.code == 405:
            return MethodError("the path is not for this method", remedy="see /v1/openapi.json")
        return InvalidRequestError(error.description or error.name, status=error.code or 400)

    def _count(self, endpoint: str, method: str, status: int) -> None:
        self._api.requests[endpoint, method, status] += 1


class _Asker(Struct, frozen=True, kw_only=True):
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


class _ShortWay:
    """Answers frequent requests, such as those for `/metrics`, past Flask's routing, contexts and objects.

    Those took most of the time of such a request.

    Args:
        other: answers everything else.
        endpoint: of the same listener: it checks a request on either way.
        served: the operations of the listener.
    """

    def __init__(self, other: Any, endpoint: _Endpoint, served: Iterable[Operation]) -> None:
        self._other = other
        self._endpoint = endpoint
        self._plain = {each.path: each for each in served if each.is_safe and "{" not in each.path}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        operation = self._plain.get(environ["PATH_INFO"])
        is_plain = environ["REQUEST_METHOD"] == "GET" and not environ["QUERY_STRING"]
        if operation is None or not is_plain or environ.get("CONTENT_LENGTH", "0") != "0":
            answer: Iterable[bytes] = self._other(environ, start_response)
            return answer
        response = self._endpoint.answer_plain(operation, environ)
        start_response(f"{response.status} {responses[response.status]}", response.headers)
        return response.body if response.is_stream else (response.body,)


def _collect(operation: Operation, path: Mapping[str, str], request: werkzeug.Request) -> dict[str, Any]:
    """Return the arguments of a request, with text converted to numbers and booleans by the schema.

    Raises:
        InvalidRequestError: a parameter is unknown or given twice, or the body is not JSON.
    """
    arguments: dict[str, Any] = dict(path)
    names = {name: argument for argument, (place, name) in operation.places.items() if place == "query"}
    for name, values in request.args.lists():
        argument = names.get(name)
        if argument is None:
            raise InvalidRequestError(
                f"`{name[:64]}` is not a parameter here", remedy=suggest(name, sorted(names), "parameters")
            )
        schema = operation.parameters[argument]
        if schema.get("type") == "array":
            arguments[argument] = [_convert(value, schema["items"]) for value in values]
        elif len(values) > 1:
            raise InvalidRequestError(f"`{name}` is given twice")
        else:
            arguments[argument] = _convert(values[0], schema)
    arguments.update(_collect_headers(operation, request.environ))
    if body := request.get_data():
        if operation.body is None:
            raise InvalidRequestError("this request takes no body")
        arguments["body"] = _parse_body(body)
    return arguments


def _collect_headers(operation: Operation, environ: Mapping[str, Any]) -> dict[str, Any]:
    """Return those arguments of a request that are headers."""
    headers = {argument: name for argument, (place, name) in operation.places.items() if place == "header"}
    keys = {argument: f"HTTP_{name.replace('-', '_').upper()}" for argument, name in headers.items()}
    return {
        argument: _convert(environ[key], operation.parameters[argument])
        for argument, key in keys.items()
        if key in environ
    }


def _convert(text: str, schema: Mapping[str, Any]) -> Any:
    kind = schema.get("type")
    if kind == "boolean":
        return {"true": True, "": True, "false": False}.get(text, text)  # `?verbose` alone is true
    if kind in ("integer", "number"):
        with suppress(ValueError):
            number = int(text) if kind == "integer" else float(text)
            return number if math.isfinite(number) else text
    return text


def _parse_body(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError("the body is not JSON") from error


class _Response(Struct, frozen=True, kw_only=True):
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
        return not isinstance(self.body, bytes)

    def to_flask(self) -> flask.Response:
        return flask.Response(self.body, status=self.status, headers=self.headers)


def _to_response(answer: Answer, environ: Mapping[str, Any]) -> _Response:
    body = answer.body
    headers = [("Content-Type", get_content_type(answer.media_type, "utf-8")), *answer.headers.items()]
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
    return _Response(status=answer.status, headers=headers, body=body)


def _close(pieces: Any) -> None:
    close = getattr(pieces, "close", None)
    if close is not None:
        close()
