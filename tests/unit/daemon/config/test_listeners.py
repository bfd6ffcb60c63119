"""The settings of the listeners: closed by default, and what would open them is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from daemon.config.listeners import is_loopback, split_address
from daemon.config.load import load
from daemon.config.models import Config
from daemon.config.problems import ConfigErrors
from tests.support.configuration import ENVIRON, GOOD

DIGEST = hashlib.sha256(b"t" * 40).hexdigest()
TLS = "listen: 127.0.0.1:9148, tls: {{ cert: c, key: k }}"
TCP = f"tcp: {{{{ {TLS}, tokens: [{{{{ name: ops, sha256: {{digest}} }}}}] }}}}"
ONE = f"{{ name: ops, sha256: {DIGEST} }}"


def loaded(tmp_path: Path, daemon: str, environ: dict[str, str] | None = None) -> Config:
    (tmp_path / "pillowd.yaml").write_text(GOOD.replace("  shutdown_timeout: 30s\n", f"  {daemon}\n"))
    return load(tmp_path / "pillowd.yaml", ENVIRON | (environ or {}))


def problems(tmp_path: Path, daemon: str, **environ: str) -> str:
    with pytest.raises(ConfigErrors) as raised:
        loaded(tmp_path, daemon, environ)
    return str(raised.value)


def private(tmp_path: Path, name: str, text: str = "", mode: int = 0o600) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / name).chmod(mode)


def test_by_default_only_this_machine_is_answered(tmp_path: Path) -> None:
    config = loaded(tmp_path, "state_dir: x").daemon
    assert (config.http.listen, config.http.allow_remote) == ("127.0.0.1:9147", False)
    assert config.admin.tcp is None
    assert config.admin.path is not None


def test_listeners_can_be_switched_off(tmp_path: Path) -> None:
    config = loaded(tmp_path, "http: { listen: null }\n  admin: { listen: null }")
    assert (config.daemon.http.listen, config.daemon.admin.path) == (None, None)


@pytest.mark.parametrize(
    ("address", "parts"),
    [("127.0.0.1:1", ("127.0.0.1", 1)), ("[::1]:9147", ("::1", 9147)), ("localhost:80", ("localhost", 80))],
)
def test_an_address_is_a_host_and_a_port(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts
    assert is_loopback(parts[0])


@pytest.mark.parametrize("address", ["9147", ":9147", "::1:9147", "host:", "host:99999", "a b:1", ""])
def test_anything_else_is_none(tmp_path: Path, address: str) -> None:
    assert "write 127.0.0.1:9147" in problems(tmp_path, f"http: {{ listen: '{address}' }}")


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.7", "pillowd.example"])
def test_other_machines_are_answered_only_if_that_is_wanted(tmp_path: Path, host: str) -> None:
    said = problems(tmp_path, f"http: {{ listen: '{host}:9147' }}")
    assert "pillowd.yaml:3: daemon.http" in said
    assert "write `allow_remote: true`" in said
    loaded(tmp_path, f"http: {{ listen: '{host}:9147', allow_remote: true }}")


@pytest.mark.parametrize(
    ("tcp", "said"),
    [
        ("tcp: { listen: 127.0.0.1:1 }", "needs `tls`"),
        ("tcp: { listen: 127.0.0.1:1, tls: { cert: c, key: k } }", "needs `tokens`"),
        (TCP.format(digest="secret"), "is not the SHA-256 of a token"),
        (
            TCP.format(digest=DIGEST).replace("tokens: [", f"tokens: [{{ name: ops, sha256: {DIGEST} }}, "),
            "with the same name",
        ),
        (TCP.format(digest=DIGEST).replace("ops", "a b"), "not a valid name"),
    ],
)
def test_a_port_for_commands_needs_tls_and_tokens(tmp_path: Path, tcp: str, said: str) -> None:
    private(tmp_path, "k")
    found = problems(tmp_path, f"admin: {{ {tcp} }}")
    assert said in found
    assert "secret" not in found.replace("a secret", "")


@pytest.mark.parametrize("written", ["${file:ops}", "${credential:ops}"])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604])
def test_secrets_that_others_may_read_are_refused(tmp_path: Path, written: str, mode: int) -> None:
    private(tmp_path, "k")
    private(tmp_path, "ops", DIGEST, mode)
    tcp = f"admin: {{ {TCP.format(digest=chr(34) + written + chr(34))} }}"
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    if mode == 0o600:
        config: Any = loaded(tmp_path, tcp, environ)
        assert config.daemon.admin.tcp.tokens[0].digest == DIGEST
        private(tmp_path, "k", mode=0o644)
        assert f"other users may read {tmp_path}/k; chmod 600" in problems(tmp_path, tcp, **environ)
    else:
        assert f"other users may read {tmp_path}/ops; chmod 600" in problems(tmp_path, tcp, **environ)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    said = problems(tmp_path, f"admin: {{ {TCP.format(digest=DIGEST)} }}")
    assert f"daemon.admin.tcp.tls.key: {tmp_path}/k cannot be read" in said


@pytest.mark.parametrize("listen", ["/run/x", "unix:x", "unix:/" + "x" * 107])
def test_the_admin_socket_has_an_absolute_path_of_bounded_length(tmp_path: Path, listen: str) -> None:
    assert "daemon.admin.listen" in problems(tmp_path, f"admin: {{ listen: '{listen}' }}")
