"""The HTTP session to a webhook, and its failures as ours. No message of an error quotes the URL's path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

import gevent
import requests
import urllib3
from requests.utils import requote_uri

from pillows.clock import SystemClock
from pillows.couch.exception_chain import is_connect_failure, walk_causes
from pillows.couch.http.response import read_bounded
from pillows.couch.http.session import IgnoreNetrc, bound_answers
from pillows.couch.http.trust import find_trusted_certificates
from pillows.errors import AccessError, AwayError, ConfigError, RetryableError
from pillows.transports.webhook.encoder import decode_secret, make_headers
from pillows.transports.webhook.options import WebhookConnection

#: A longer answer is not read: its part about single documents would be cut off.
MAX_ANSWER_BYTES = 16 * 2**20


class WebhookClient:
    """Posts bodies to one URL.

    Args:
        options: the webhook.

    Attributes:
        server: scheme, host and port: the part of the URL that may be shown.
    """

    def __init__(self, options: WebhookConnection) -> None:
        self._timeout_seconds = options.timeout
        self._url = options.url.get_secret_value()
        self._secret = decode_secret(options.secret.get_secret_value()) if options.secret else None
        self._clock = SystemClock()
        self._session = _create_session(options)
        self._hidden = _match_hidden_parts(self._url)
        self.server = get_server(self._url)

    def post(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Post a body; return status, headers and content of the answer.

        Raises:
            AwayError: no connection could be opened.
            RetryableError: the answer is late, too long, or was cut off.
            AccessError: the receiver's certificate is not trusted.
            ConfigError: the URL or a header is not valid.
        """
        # requests' own timeouts are for the next byte: an answer that trickles would take forever.
        late = RetryableError(f"The webhook did not answer within {self._timeout_seconds:g} s.")
        try:
            with gevent.Timeout(self._timeout_seconds, late):
                return self._exchange(body)
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader) as error:
            raise ConfigError(
                f"The webhook's URL or headers are not valid: {type(error).__name__}.",
                remedy="check the connection's `url` and `headers`",
            ) from None
        except requests.exceptions.SSLError as error:
            raise AccessError(
                f"The certificate of {self.server} is not trusted: {_describe_innermost(error)}.",
                remedy="set the connection's `ca_bundle`",
            ) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            kind = AwayError if is_connect_failure(error) else RetryableError
            reason = _describe_innermost(error)
            raise kind(f"The webhook at {self.server} cannot be reached: {reason}.") from None

    def redact(self, text: str) -> str:
        """Return a text of the receiver's without the URL's path and query."""
        return self._hidden.sub("/***", text)

    def close(self) -> None:
        """Close every idle connection."""
        self._session.close()

    def _exchange(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        with self._session.post(
            self._url,
            data=body,
            headers=make_headers(body, self._secret, int(self._clock.wall())),
            timeout=self._timeout_seconds,
            allow_redirects=False,
            stream=True,
        ) as response:
            content = read_bounded(response.raw, MAX_ANSWER_BYTES)
            if len(content) > MAX_ANSWER_BYTES and response.ok:
                raise RetryableError(f"The webhook's answer is longer than {MAX_ANSWER_BYTES} bytes.")
            return response.status_code, response.headers, content


def get_server(url: str) -> str:
    """Return the part of a URL that may be shown: its path or query often is its password."""
    parts = urlsplit(url)
    if not parts.hostname:
        return "another path of the same server"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _match_hidden_parts(url: str) -> re.Pattern[str]:
    """Return a pattern for the other parts of a URL, in every form that an answer may quote."""
    found: set[str] = set()
    for form in (url, requote_uri(url), unquote(url)):
        parts = urlsplit(form)
        found |= {f"{parts.path}?{parts.query}", parts.path, parts.query}
    longest_first = sorted(found - {"", "/", "?", "/?"}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _create_session(options: WebhookConnection) -> requests.Session:
    session = requests.Session()
    bound_answers(session)
    session.auth = IgnoreNetrc()
    session.headers.update({name: value.get_secret_value() for name, value in options.headers.items()})
    session.headers["User-Agent"] = "pillowd"
    session.verify = find_trusted_certificates(options.ca_bundle)
    session.cert = str(options.client_cert) if options.client_cert else None
    return session


def _describe_innermost(error: BaseException) -> str:
    # The errors around it quote the URL.
    *_, cause = walk_causes(error)
    return f"{type(cause).__name__}: {cause}"
