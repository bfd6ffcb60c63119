"""The answer to a scrape, made at most once a second: more scrapers cost no more."""

from __future__ import annotations

from collections.abc import Callable

from gevent.lock import BoundedSemaphore
from msgspec import Struct
from prometheus_client.exposition import choose_encoder

from pillows.clock import Clock

#: Age at which a page is made again.
MAX_AGE_SECONDS = 1.0


class Page(Struct, frozen=True, kw_only=True):
    """The answer to a scrape.

    Attributes:
        media_type: the type of the text.
        text: the metrics.
        encoding: `gzip` if the text is packed; else empty.
    """

    media_type: str
    text: bytes
    encoding: str = ""


class Pages:
    """Holds the newest page of each format.

    The first request for a format renders its page; requests that arrive during that, or within a second, get
    the same page. Whenever a page is rendered, pages that are a second old or older are dropped, so there are
    never more pages than formats (a format of prometheus-client, with or without gzip).

    Args:
        render: makes a page for the headers `Accept` and `Accept-Encoding`.
        clock: for the age.
    """

    def __init__(self, render: Callable[[str, str], Page], clock: Clock) -> None:
        self._render = render
        self._clock = clock
        self._newest: dict[tuple[str, bool], tuple[float, Page]] = {}
        self._making = BoundedSemaphore()

    def get(self, accept: str = "", accept_encoding: str = "") -> Page:
        """Return the metrics as text, a second old at most; see `Metrics.render`."""
        format = choose_encoder(accept)[1], "gzip" in accept_encoding
        with self._making:
            now = self._clock.monotonic()
            fresh = {key: made for key, made in self._newest.items() if now - made[0] < MAX_AGE_SECONDS}
            if format not in fresh:
                fresh[format] = (now, self._render(accept, accept_encoding))
                self._newest = fresh
            return fresh[format][1]
