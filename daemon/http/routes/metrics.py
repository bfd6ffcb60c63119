"""The metrics, for Prometheus."""

from __future__ import annotations

from daemon.control.api import ControlApi
from daemon.errors import UnavailableError
from daemon.http.messages import Answer


def get_metrics(api: ControlApi, *, accept: str = "") -> Answer:
    """Return all metrics as text."""
    if api.render_metrics is None:
        raise UnavailableError("the daemon is not running", remedy="`pillowd run`")
    media_type, text = api.render_metrics(accept)
    return Answer(body=text, media_type=media_type)
