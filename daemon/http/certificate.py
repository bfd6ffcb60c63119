"""The certificate of the TCP listener: when it expires, and its renewal while the daemon runs."""

from __future__ import annotations

import ssl
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from msgspec import Struct

from daemon.config.listeners import TlsOptions
from pillows.clock import Clock
from pillows.errors import ConfigError

#: Certificates are renewed 20 to 30 days before they expire. One with less time was forgotten.
RENEWAL_SECONDS = 14 * 86_400.0

#: X509_V_FLAG_NO_CHECK_TIME of OpenSSL (x509_vfy.h), which `ssl` does not name.
_ANY_TIME = ssl.VerifyFlags(0x200000)

_log = structlog.get_logger("pillowd.http")


class Certificate(Struct, frozen=True, kw_only=True):
    """A certificate that was read.

    Attributes:
        context: serves it, by TLS 1.2 or later.
        expires_at: wall-clock seconds.
    """

    context: ssl.SSLContext
    expires_at: float


class ServerCertificate:
    """Reads a certificate, and reads it again when its files have changed.

    Args:
        options: its files.
        clock: for the check whether it has expired.

    Raises:
        ConfigError: it cannot be used, or has expired.
    """

    def __init__(self, options: TlsOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._stamp = self._read_stamp()
        self._current = read_certificate(options, clock.wall())
        self._warn()

    @property
    def current(self) -> Certificate:
        """The certificate of the files; the former one if the new one cannot be used."""
        stamp = self._read_stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._current = read_certificate(self._options, self._clock.wall())
            except ConfigError as error:  # half of a pair is there, and the other half follows
                _log.warning("http.certificate_refused", reason=str(error))
            else:
                self._warn()
        return self._current

    def _read_stamp(self) -> tuple[int, ...]:
        with suppress(OSError):
            found = [path.stat() for path in (self._options.cert, self._options.key)]
            return tuple(number for each in found for number in (each.st_ino, each.st_mtime_ns))
        return ()

    def _warn(self) -> None:
        if self._current.expires_at - self._clock.wall() < RENEWAL_SECONDS:
            _log.warning(
                "http.certificate_expires",
                reason=f"{self._options.cert} expires on {_date(self._current.expires_at)}. "
                "Remedy: renew it; the new one is used as soon as it is there",
            )


def read_certificate(options: TlsOptions, now: float) -> Certificate:
    """Return the certificate of the listener.

    Args:
        options: its files.
        now: wall-clock seconds.

    Raises:
        ConfigError: the certificate or its key cannot be used, or it has expired.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(options.cert, options.key)
        expires_at = find_expiry(context, options.cert)
    except (OSError, ssl.SSLError) as error:
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"The key {options.key} does not belong to the certificate {options.cert}.",
                remedy="give both of one pair in `daemon.admin.tcp.tls`",
            ) from error
        raise ConfigError(
            f"`daemon.admin.tcp.tls` cannot be used: {error}.",
            remedy=f"give {options.cert} and its key as PEM files that this user can read",
        ) from error
    if expires_at <= now:
        raise ConfigError(
            f"The certificate {options.cert} expired on {_date(expires_at)}, so clients refuse it.",
            remedy="renew it, or remove `daemon.admin.tcp`",
        )
    return Certificate(context=context, expires_at=expires_at)


def find_expiry(context: ssl.SSLContext, cert: Path) -> float:
    """Return when the certificate of a server expires, in seconds since 1970.

    `ssl` shows the fields of a certificate only to a client that has verified it. So a client that trusts
    this one shakes hands with the server, in memory.

    Raises:
        ssl.SSLError: no client would accept the certificate.
        OSError: the file cannot be read.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _ANY_TIME
    trusting.load_verify_locations(cert)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = trusting.wrap_bio(to_client, to_server)
    for side in (client, server, client):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    fields: Any = client.getpeercert()
    return float(ssl.cert_time_to_seconds(fields["notAfter"]))


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
