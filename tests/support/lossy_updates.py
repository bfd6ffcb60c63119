"""A proxy before a CouchDB that loses lines of `_db_updates`, and cuts the feed again and again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Self
from urllib.parse import quote

import gevent
import requests
from gevent.pywsgi import WSGIServer

_PASSED_ON = {"HTTP_AUTHORIZATION": "Authorization", "CONTENT_TYPE": "Content-Type", "HTTP_ACCEPT": "Accept"}


class LossyUpdates:
    """Passes every other request on as it is; a context manager.

    Args:
        url: of the CouchDB.
        share: of the lines that are lost.
        cut_seconds: how long a feed lasts.
        draw: returns a number in [0, 1).

    Attributes:
        lost, passed: lines so far.
        cuts: feeds that were cut so far.
    """

    def __init__(
        self, url: str, *, share: float, cut_seconds: float, draw: Callable[[], float] = random.random
    ) -> None:
        self.lost = self.passed = self.cuts = 0
        self._url = url
        self._share = share
        self._cut_seconds = cut_seconds
        self._draw = draw
        self._session = requests.Session()
        self._front = WSGIServer(("127.0.0.1", 0), self._answer, log=None, error_log=None)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._front.server_port}"

    def __enter__(self) -> Self:
        self._front.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._front.stop(timeout=1)
        self._session.close()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterator[bytes]:
        query = environ["QUERY_STRING"]
        is_feed = environ["PATH_INFO"] == "/_db_updates" and "feed=continuous" in query
        answer = self._session.request(
            environ["REQUEST_METHOD"],
            f"{self._url}{quote(environ['PATH_INFO'], safe='/')}{query and '?'}{query}",
            headers={name: environ[key] for key, name in _PASSED_ON.items() if environ.get(key)},
            data=environ["wsgi.input"].read(),
            stream=is_feed,
            timeout=60,
        )
        start(f"{answer.status_code} {answer.reason}", [("Content-Type", answer.headers["Content-Type"])])
        yield from self._lose(answer) if is_feed else [answer.content]

    def _lose(self, answer: requests.Response) -> Iterator[bytes]:
        """Yield the lines that get through, until the feed is cut."""
        lines = answer.iter_lines(chunk_size=1)
        cut_at = time.monotonic() + self._cut_seconds
        try:
            while (left_seconds := cut_at - time.monotonic()) > 0:
                line = gevent.with_timeout(left_seconds, next, lines, timeout_value=None)
                if line is None:
                    return
                if b"db_name" in line and self._draw() < self._share:
                    self.lost += 1
                    continue
                self.passed += b"db_name" in line
                yield line + b"\n"
        finally:
            answer.close()
            self.cuts += 1
