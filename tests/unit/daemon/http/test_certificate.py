"""When the certificate of a listener ends, and what replaces it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from daemon.config.listeners import TlsOptions
from daemon.http.certificate import ServerCertificate, read_certificate
from pillows.clock import SystemClock
from pillows.errors import ConfigError
from tests.support.certificate import make_certificate
from tests.support.clock import FakeClock

DAY = 86_400.0


@pytest.fixture
def options(tmp_path: Path) -> TlsOptions:
    cert, key = make_certificate(tmp_path, days=30)
    return TlsOptions(cert=cert, key=key)


def clock_in(days: float) -> FakeClock:
    """Return a clock that is ahead by some days."""
    return FakeClock(auto=False, wall=SystemClock().wall() + days * DAY)


def test_its_end_is_read(options: TlsOptions) -> None:
    now = SystemClock().wall()
    assert read_certificate(options, now).expires_at == pytest.approx(now + 30 * DAY, abs=60)


def test_an_expired_one_is_refused_with_the_remedy(options: TlsOptions) -> None:
    with pytest.raises(ConfigError, match=r"cert\.pem expired on \d{4}-.* UTC.*Remedy: renew it"):
        ServerCertificate(options, clock_in(30.1))


@pytest.mark.parametrize(("days", "warned"), [(15.9, 0), (16.1, 1)])
def test_one_that_ends_within_two_weeks_is_warned_of(options: TlsOptions, days: float, warned: int) -> None:
    with capture_logs() as logs:
        _ = ServerCertificate(options, clock_in(days)).current
    assert [each["event"] for each in logs] == ["http.certificate_expires"] * warned


def test_a_renewed_one_is_served_once_both_files_are_there(options: TlsOptions, tmp_path: Path) -> None:
    certificate = ServerCertificate(options, SystemClock())
    old = certificate.current
    assert certificate.current is old
    (tmp_path / "new").mkdir()
    cert, key = make_certificate(tmp_path / "new", days=90)
    with capture_logs() as logs:
        os.replace(cert, options.cert)
        assert [certificate.current, certificate.current] == [old, old], "the key does not belong to it yet"
        os.replace(key, options.key)
        assert certificate.current.expires_at == pytest.approx(SystemClock().wall() + 90 * DAY, abs=60)
    assert [each["event"] for each in logs] == ["http.certificate_refused"], "told once"
    options.cert.unlink()
    assert certificate.current.expires_at > SystemClock().wall() + 80 * DAY, "gone for a moment"


def test_a_key_of_another_certificate_is_told_apart(options: TlsOptions, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    _, key = make_certificate(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"other/key\.pem does not belong to .*/cert\.pem"):
        read_certificate(TlsOptions(cert=options.cert, key=key), 0.0)
