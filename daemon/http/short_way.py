"""Answer frequent requests, such as those for `/metrics`, past Flask's routing, contexts and objects.

Those took most of the time of such a request. Flask itself is imported with the first request that needs it:
most daemons are only asked how their pillows are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http.client import responses
from typing import Any

from gevent.lock import RLock

from daemon.http.endpoint import Endpoint


class ShortWay:
    """The WSGI application of a listener.

    Args:
        endpoint: of the listener: it checks a request on either way.
        make_other: makes the application that answers all other requests; may give way.
    """

    def __init__(self, endpoint: Endpoint, make_other: Callable[[], Any]) -> None:
        self._endpoint = endpoint
        self._make_other = make_other
        self._other: Any = None
        self._making = RLock()
        self._plain = {each.path: each for each in endpoint.served if each.is_safe and "{" not in each.path}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a request."""
        operation = self._plain.get(environ["PATH_INFO"])
        is_plain = environ["REQUEST_METHOD"] == "GET" and not environ["QUERY_STRING"]
        if operation is None or not is_plain or environ.get("CONTENT_LENGTH", "0") != "0":
            answer: Iterable[bytes] = self._get_other()(environ, start_response)
            return answer
        response = self._endpoint.answer_plain(operation, environ)
        start_response(f"{response.status} {responses[response.status]}", response.headers)
        return response.body if response.is_stream else (response.body,)

    def _get_other(self) -> Any:
        with self._making:
            if self._other is None:
                self._other = self._make_other()
        return self._other
