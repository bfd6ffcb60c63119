"""Explain why a request had no usable answer: its address, the answer, and the remedy. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import BadStatusLine, RemoteDisconnected
from urllib.parse import urlsplit

from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ReadTimeoutError

from pillows.couch.exception_chain import walk_causes

#: Words of an error -> their meaning; the first match is used. `{host}` has the port.
_WORDS = (
    (
        ("Name or service not known", "name resolution", "nodename nor servname", "No address associated"),
        "The name of {host} cannot be resolved: correct the connection's `url`, or the name server.",
    ),
    (
        ("Connection refused",),
        "Connection refused by {host}: start the server, or correct the connection's `url`.",
    ),
    (
        ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNEXPECTED_EOF"),
        "{host} does not speak TLS: write `http://` in the connection's `url`, or the port of TLS.",
    ),
)

#: Classes of errors -> their meaning.
_KINDS = (
    (
        (ConnectTimeoutError,),
        "Connection to {host} timed out: correct the connection's `url`, or open the firewall.",
    ),
    ((NewConnectionError,), "Connection to {host} failed: {last}."),
    ((ReadTimeoutError, TimeoutError), "{host} did not answer in time: it timed out."),
    (
        (RemoteDisconnected,),
        "{host} closed the connection without an answer: if this is its port of TLS, write `https://`.",
    ),
    (
        (BadStatusLine,),
        "{host} does not answer in HTTP: if this is its port of TLS, write `https://`.",
    ),
)


def explain_failure(error: BaseException, url: str) -> str | None:
    """Return why no answer came from a server; None for what the error itself says best.

    Args:
        error: of requests, urllib3 or the socket.
        url: the server.
    """
    causes = list(walk_causes(error))
    text = str(error)
    found = next((meaning for words, meaning in _WORDS if any(word in text for word in words)), None)
    if found is None:
        found = next(
            (meaning for kinds, meaning in _KINDS if any(isinstance(c, kinds) for c in causes)), None
        )
    host = urlsplit(url).netloc.rpartition("@")[2]
    return found and found.format(host=host, last=str(causes[-1]).rpartition(": ")[2])


def explain_redirect(status: int, headers: Mapping[str, str], url: str) -> str:
    """Explain an answer with a redirection."""
    target = headers.get("Location", "")
    return (
        f"The server answered {status}: it sends requests for {url} to {target or 'another address'}. "
        "Write the address at which it serves CouchDB in the connection's `url`."
    )


def explain_page(url: str) -> str:
    """Explain an answer with HTML instead of JSON."""
    return (
        f"The answer to {url} is an HTML page, not CouchDB's JSON: a proxy, or a page to log in at, answers. "
        "Correct the connection's `url`, or let the proxy pass our requests."
    )
