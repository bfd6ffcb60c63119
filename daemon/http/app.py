"""The WSGI application that answers requests with parameters: Flask with the operations of a listener."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import flask
import msgspec
import werkzeug
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule

from daemon.errors import InvalidRequestError, NotFoundError, RequestError
from daemon.http.contract import Operation
from daemon.http.dispatch import name_target
from daemon.http.endpoint import Endpoint, Response, collect_headers, convert, to_response
from daemon.http.problems import to_answer
from pillows.suggest import suggest


class NoSuchRouteError(NotFoundError):
    """There is no such path."""


class MethodError(RequestError):
    """The path does not have the request's method."""

    status = 405


def make_app(endpoint: Endpoint) -> flask.Flask:
    """Return the application of one listener."""
    app = flask.Flask("pillowd", static_folder=None)
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True
    way = _FlaskWay(endpoint)
    for operation in endpoint.served:
        app.add_url_rule(
            _to_rule(operation.path),
            endpoint=operation.id,
            view_func=way.respond,
            methods=[operation.method],
            provide_automatic_options=False,
        )
    app.before_request(way.check_request)
    app.register_error_handler(Exception, way.explain)
    app.after_request(way.finish)
    return app


def _to_rule(path: str) -> str:
    """Return Flask's form of a path: `{key}` is `<key>`."""
    return re.sub(r"\{(\w+)\}", r"<\1>", path)


class _FlaskWay:
    """Answers the requests that go through Flask.

    Args:
        endpoint: of the listener.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._operations = endpoint.operations
        rules = [Rule(_to_rule(each.path), methods=[each.method]) for each in self._operations.values()]
        self._all_rules = Map(rules, merge_slashes=False).bind("")

    def check_request(self) -> None:
        """Check who sends a request, and from where, before anything else is done.

        Raises:
            HTTPException: the host, path or method is not one of this listener.
            RequestError: the client may not send it.
        """
        request = flask.request
        asker = self._endpoint.identify(request.environ)
        if request.routing_exception is not None:
            raise request.routing_exception
        flask.g.asker = asker
        operation = self._operations[request.endpoint or ""]
        self._endpoint.check_operation(
            operation,
            dict(request.headers),
            asker,
            method=request.method,
            pillow=(request.view_args or {}).get("key"),
        )

    def respond(self, **path: str) -> flask.Response:
        """Carry out the operation that a request names."""
        operation = self._operations[flask.request.endpoint or ""]
        flask.g.pillow = path.get("key")
        arguments = _collect(operation, path, flask.request)
        flask.g.pillow = name_target(arguments)
        answer = self._endpoint.carry_out(operation, arguments, flask.g.asker)
        return _to_flask(to_response(answer, flask.request.environ))

    def explain(self, error: Exception) -> flask.Response:
        """Return the problem document of an error."""
        if isinstance(error, HTTPException):
            error = self._translate(error, flask.request)
        answer = to_answer(error, self._endpoint.redactor, pillow=flask.g.get("pillow"))
        return _to_flask(to_response(answer, flask.request.environ))

    def finish(self, response: flask.Response) -> flask.Response:
        """Count an answer."""
        self._endpoint.count(flask.request.endpoint or "none", flask.request.method, response.status_code)
        return response

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


def _to_flask(response: Response) -> flask.Response:
    return flask.Response(response.body, status=response.status, headers=response.headers)


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
            arguments[argument] = [convert(value, schema["items"]) for value in values]
        elif len(values) > 1:
            raise InvalidRequestError(f"`{name}` is given twice")
        else:
            arguments[argument] = convert(values[0], schema)
    arguments.update(collect_headers(operation, request.environ))
    if body := request.get_data():
        if operation.body is None:
            raise InvalidRequestError("this request takes no body")
        arguments["body"] = _parse_body(body)
    return arguments


def _parse_body(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError("the body is not JSON") from error
