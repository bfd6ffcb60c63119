"""All listeners of a daemon with scripted tails, in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gevent
import pytest

from checkpoints import TailKey
from daemon import state_dir
from daemon.config.listeners import AdminOptions, HttpOptions, TcpOptions, TlsOptions, TokenOptions
from daemon.config.models import DaemonOptions
from daemon.control.api import ControlApi
from daemon.control.running import RunningDaemon
from daemon.http.listeners import Listener, Listeners
from daemon.http.problems import to_answer
from daemon.state_dir import StateDir
from daemon.supervision.supervisor import Supervisor
from pillows.clock import SystemClock
from pillows.observer import Observer
from pillows.redaction import Redactor
from tests.support.certificate import make_certificate
from tests.support.http_listener import HttpListener
from tests.unit.daemon.tails import ScriptedTail, well

#: The tails: the second and third have the names of routes as their databases.
KEYS = [
    TailKey("cases", "couch/cases"),
    TailKey("visits", "couch/x/status"),
    TailKey("visits", "couch/x/checkpoint"),
]
TOKENS = {"ops": "o" * 40, "reader": "r" * 40, "short": "s" * 8}


@dataclass(frozen=True, kw_only=True)
class Served:
    """A daemon that listens.

    Attributes:
        read, admin, tcp: its listeners as clients see them.
    """

    api: ControlApi
    state: StateDir
    listeners: list[Listener]
    read: HttpListener
    admin: HttpListener
    tcp: HttpListener
    cert: Path
    socket: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def served(tmp_path: Path, certificate: tuple[Path, Path]) -> Iterator[Served]:
    with serve(tmp_path, certificate) as served:
        yield served


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Served]:
    """One for tests that change nothing in it."""
    with serve(tmp_path_factory.mktemp("shared"), certificate) as served:
        yield served


@contextmanager
def serve(folder: Path, certificate: tuple[Path, Path]) -> Iterator[Served]:
    clock, redactor = SystemClock(), Redactor(["hunter2hunter2"])
    factories = {key: partial(ScriptedTail, key, clock, well) for key in KEYS}
    with state_dir.open_state_dir(folder / "state", clock, redactor) as state:
        supervisor = Supervisor(factories, clock=clock, observer=Observer(), pauses=state.pauses)
        supervisor.start_all()
        ticking = gevent.spawn(_tick, supervisor)
        opened: list[Listener] = []
        api = ControlApi(
            keys=KEYS,
            state=state,
            clock=clock,
            daemon=RunningDaemon(supervisor=supervisor, listeners=opened),
            repair=lambda key, ids: None,
            explain=lambda error: to_answer(error, redactor).body,
        )
        cert, key = certificate
        scopes = {"ops": ("read", "write"), "reader": ("read",), "short": ("read", "write")}
        tokens = tuple(
            TokenOptions.model_validate(
                {"name": name, "sha256": hashlib.sha256(text.encode()).hexdigest(), "scopes": scopes[name]}
            )
            for name, text in TOKENS.items()
        )
        settings = DaemonOptions(
            http=HttpOptions(listen="127.0.0.1:0", hosts=("pillowd.example",)),
            admin=AdminOptions(
                listen=f"unix:{folder}/admin.sock",
                tcp=TcpOptions(listen="127.0.0.1:0", tls=TlsOptions(cert=cert, key=key), tokens=tokens),
            ),
        )
        with Listeners(api, clock, redactor).open(settings) as listeners:
            opened += listeners
            ports = [int(each.address.rpartition(":")[2]) for each in listeners if each.address[0] != "u"]
            yield Served(
                api=api,
                state=state,
                listeners=listeners,
                read=HttpListener(("127.0.0.1", ports[1])),
                admin=HttpListener(folder / "admin.sock"),
                tcp=HttpListener(("127.0.0.1", ports[0]), cert=cert),
                cert=cert,
                socket=folder / "admin.sock",
            )
        api.operations.close()
        ticking.kill()
        supervisor.stop_all()


def _tick(supervisor: Supervisor) -> None:
    while True:
        gevent.sleep(0.02)
        supervisor.tick()
