"""Remote calls: calls, errors, frames, stale sockets."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import socket
import stat
import threading

import pytest

from checkpoints import (
    MessageTooLarge,
    RemoteError,
    RpcClient,
    RpcServer,
    StoreClosed,
    StoreLocked,
    StoreUnavailable,
    TryAgain,
)
from checkpoints.rpc import unix_socket
from tests.support.waiting import wait_until


def fail(kind):
    raise {"key": KeyError, "value": ValueError, "os": OSError, "locked": StoreLocked}[kind]("because")


@pytest.fixture
def server(tmp_path):
    with RpcServer(tmp_path / "s", {"echo": lambda **given: given, "fail": fail}) as server:
        yield server


@pytest.fixture
def client(server):
    with RpcClient(server.path) as client:
        yield client


def test_a_call_gives_what_the_handler_returned(client):
    assert client.call("echo", key="cases", n=[1, None, "ü"]) == {"key": "cases", "n": [1, None, "ü"]}


def test_e5_a_socket_is_reached_however_long_its_path_is(tmp_path):
    folder = tmp_path.joinpath(*["long" * 20] * 3)
    folder.mkdir(parents=True)
    path = folder / "control.sock"
    with RpcServer(path, {"echo": lambda **given: given}) as server, RpcClient(path) as client:
        assert client.call("echo", n=1) == {"n": 1}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(StoreLocked):
            RpcServer(path).start()
        server.close()
        assert not path.exists()
    with RpcServer(path):  # again, where one was
        pass


def test_e5_a_long_path_costs_no_descriptors(tmp_path):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    descriptors = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with RpcServer(folder / "s", {"echo": dict}) as server, RpcClient(server.path) as client:
            client.call("echo")
    wait_until(lambda: set(os.listdir("/proc/self/fd")) <= descriptors)


def test_a_handler_may_be_registered_while_the_server_runs(server, client):
    server.register("twice", lambda n: 2 * n)
    assert client.call("twice", n=21) == 42


@pytest.mark.parametrize(
    ("kind", "error"), [("key", KeyError), ("value", ValueError), ("locked", StoreLocked)]
)
def test_an_error_of_a_known_kind_is_raised_again_at_the_client(client, kind, error):
    with pytest.raises(error, match="because"):
        client.call("fail", kind=kind)
    assert client.call("echo") == {}


def test_any_other_error_is_named_and_the_server_goes_on(client):
    with pytest.raises(RemoteError, match="OSError: because") as caught:
        client.call("fail", kind="os")
    assert caught.value.kind == "OSError"
    assert client.call("echo") == {}


def test_an_unknown_call_and_wrong_arguments_are_errors_of_the_caller(client):
    with pytest.raises(Exception, match="unknown call 'nonsense'"):
        client.call("nonsense")
    with pytest.raises(TypeError):
        client.call("fail", nonsense=1)


def test_a_busy_handler_is_asked_again(server, client):
    answers = iter([TryAgain, TryAgain, 7])

    def sometimes():
        answer = next(answers)
        if answer is TryAgain:
            raise TryAgain
        return answer

    server.register("sometimes", sometimes)
    assert client.call("sometimes") == 7


def test_a_newer_callers_version_is_refused_by_name(server):
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(server.path))
        body = b'{"version": 2, "call": "echo", "arguments": {}}'
        raw.sendall(len(body).to_bytes(4, "big") + body)
        assert b"version 2 of the protocol, the server version 1" in raw.recv(4096)


def test_the_socket_is_0600_whatever_the_umask(tmp_path):
    with RpcServer(tmp_path / "s") as server:
        assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    assert not server.path.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_a_socket_of_another_user_is_named(tmp_path):
    """connect() names no file."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        for folder in (tmp_path, *tmp_path.parents[:2]):
            folder.chmod(0o711)
        os.seteuid(65534)
        try:
            with pytest.raises(PermissionError, match=re.escape(str(path))):
                unix_socket.listen(path)
        finally:
            os.seteuid(0)


def test_a_stale_socket_is_replaced_and_a_living_one_is_not(tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    with RpcServer(tmp_path / "s", {"echo": lambda: "new"}) as server:
        assert RpcClient(server.path).call("echo") == "new"
        with pytest.raises(StoreLocked):
            RpcServer(tmp_path / "s").start()
        assert RpcClient(server.path).call("echo") == "new"


def test_a_question_over_the_limit_is_an_error_and_the_connection_goes_on(client):
    with pytest.raises(MessageTooLarge, match="1048576"):
        client.call("echo", value="x" * (1024 * 1024))
    assert client.call("echo", n=1) == {"n": 1}


def test_an_answer_over_the_limit_is_an_error_and_the_connection_goes_on(server, client):
    server.register("much", lambda: "x" * (2 * 1024 * 1024))
    with pytest.raises(MessageTooLarge):
        client.call("much")
    assert client.call("echo", n=1) == {"n": 1}


def test_a_foreign_message_over_the_limit_is_skipped_and_answered(server):
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(server.path))
        size = 3 * 1024 * 1024
        raw.sendall(size.to_bytes(4, "big") + b"x" * size)
        assert b"MessageTooLarge" in raw.recv(4096)
        body = b'{"version": 1, "call": "echo", "arguments": {}}'
        raw.sendall(len(body).to_bytes(4, "big") + body)
        assert b"result" in raw.recv(4096)


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x03{]}",
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x02[]",
        b"GET / HTTP/1.1\r\n",
    ],
)
def test_a_malformed_frame_closes_only_that_client(server, client, frame):
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(60)
        raw.connect(str(server.path))
        raw.sendall(frame)
        with contextlib.suppress(ConnectionResetError):  # what it did not read
            assert raw.recv(4096) == b""
    assert client.call("echo", n=1) == {"n": 1}


def test_a_client_cut_off_within_a_message_harms_nobody(server, client):
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(server.path))
        raw.sendall(b"\x00\x00\x01\x00half")
    assert client.call("echo", n=1) == {"n": 1}


def test_nobody_there_is_said_at_once(tmp_path):
    with pytest.raises(StoreUnavailable, match="nobody answers"):
        RpcClient(tmp_path / "nobody").call("echo")


def test_a_server_that_never_answers_is_given_up(tmp_path):
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "s"))
        mute.listen()
        with pytest.raises(StoreUnavailable):
            RpcClient(tmp_path / "s", timeout_seconds=0.05).call("echo")


def test_a_closed_server_ends_its_connections_and_a_new_one_is_found(tmp_path):
    client = RpcClient(tmp_path / "s")
    with RpcServer(tmp_path / "s", {"echo": lambda: 1}):
        assert client.call("echo") == 1
    with pytest.raises(StoreUnavailable):
        client.call("echo")
    with RpcServer(tmp_path / "s", {"echo": lambda: 2}):
        assert client.call("echo") == 2


def test_a_closed_client_says_so(client):
    client.close()
    with pytest.raises(StoreClosed):
        client.call("echo")


def test_a_client_can_be_pickled(client):
    assert pickle.loads(pickle.dumps(client)).call("echo", n=1) == {"n": 1}


def test_what_a_session_holds_is_undone_when_its_client_goes(server):
    undone = threading.Event()
    server.register_session("hold", lambda session: session.callback(undone.set) and None)
    with RpcClient(server.path) as client:
        client.call("hold")
        assert not undone.is_set()
    assert undone.wait(60)


def test_clients_are_served_side_by_side(server):
    """A handler that blocks holds up its own client only."""
    release = threading.Event()
    server.register("wait", lambda: release.wait(60))
    blocked = threading.Thread(target=lambda: RpcClient(server.path).call("wait"))
    blocked.start()
    assert RpcClient(server.path).call("echo") == {}
    release.set()
    blocked.join(60)
    assert not blocked.is_alive()


def test_a_server_that_cannot_accept_for_a_while_goes_on(server, monkeypatch, caplog):
    accept, failures = socket.socket.accept, iter([OSError(24, "Too many open files")])

    def failing(listener):
        connection = accept(listener)
        for error in failures:
            connection[0].close()
            raise error
        return connection

    monkeypatch.setattr(socket.socket, "accept", failing)
    with RpcClient(server.path) as first, contextlib.suppress(StoreUnavailable):
        first.call("echo")  # served before the fault took effect, or cut off by it
    with RpcClient(server.path) as second, contextlib.suppress(StoreUnavailable):
        second.call("echo")
    with RpcClient(server.path) as third:
        assert third.call("echo", n=1) == {"n": 1}
    assert "Too many open files" in caplog.text
