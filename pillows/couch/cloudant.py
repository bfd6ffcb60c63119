"""ibmcloudant's client over our own connections.

ibmcloudant builds a request and `CouchClient` sends it, so that authentication, timeouts, stopping and errors
are the same as for all other requests.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import cache
from typing import Any

import requests
from ibm_cloud_sdk_core.authenticators import NoAuthAuthenticator
from ibmcloudant.cloudant_v1 import CloudantV1

#: Sends a method and a path, and returns the unread response.
Send = Callable[[str, str], requests.Response]


def create_cloudant(url: str, send: Send) -> CloudantV1:
    """Return ibmcloudant's client of a server, for GET requests with `stream=True`.

    Args:
        url: the server.
        send: sends each request.
    """
    cloudant = copy(_make_client())
    cloudant.set_service_url(url)
    cloudant.set_http_client(_Session(url, send))
    return cloudant


@cache
def _make_client() -> CloudantV1:
    """Return a client to copy: a new one loads certificates for 20 ms, for a session that ours replaces."""
    return CloudantV1(authenticator=NoAuthAuthenticator())


class _Session(requests.Session):
    def __init__(self, url: str, send: Send) -> None:
        super().__init__()
        self._url = url
        self._send = send

    def request(self, method: Any, url: Any, *_: Any, **__: Any) -> requests.Response:
        return self._send(method, url.removeprefix(self._url))
