"""The metrics, for Prometheus."""

from __future__ import annotations

from daemon.control.api import ControlApi
from daemon.errors import UnavailableError
from daemon.http.messages import Answer


def get_metrics(api: ControlApi, *, accept: str = "", accept_encoding: str = "") -> Answer:
    """Return all metrics as text, a second old at most."""
    if api.metrics is None:
        raise UnavailableError("the daemon is not running", remedy="`pillowd run`")
    page = api.metrics.pages.get(accept, accept_encoding)
    headers = {"Vary": "Accept, Accept-Encoding"}
    if page.encoding:
        headers["Content-Encoding"] = page.encoding
    return Answer(body=page.text, media_type=page.media_type, headers=headers)
