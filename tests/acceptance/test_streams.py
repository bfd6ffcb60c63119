"""What a running daemon streams: states to many readers, samples to who taps a pillow."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from daemon.http.event_reader import Message, read_messages
from tests.acceptance.process import PILLOWD, ROOT, Pillowd, couchdb
from tests.acceptance.world import live
from tests.servers.couch_client import CouchDatabase
from tests.servers.process import free_port
from tests.support.waiting import wait_until

JSON_PAGE = ROOT / "docs" / "reference" / "json.md"
CANARY = "canary-7f3a"


@pytest.fixture(scope="module")
def database(couch: Any) -> Iterator[CouchDatabase]:
    made = couch.database(f"test-{uuid.uuid4().hex[:12]}").create()
    made.bulk({"_id": f"d{number}", "name": CANARY, "n": number} for number in range(50))
    yield made
    made.drop()
    made.close()


@pytest.fixture(scope="module")
def daemon(
    tmp_path_factory: pytest.TempPathFactory, couch: Any, database: CouchDatabase
) -> Iterator[Pillowd]:
    source = {"connection": "couch", "database": database.name}
    folder = tmp_path_factory.mktemp("streams")
    built = Pillowd(
        folder,
        connections={
            "couch": couchdb(couch.url, couch.auth),
            "file": {"type": "sqlite", "path": str(folder / "copy.sqlite")},
        },
        pillows={"copy": {"source": source, "transport": [{"connection": "file", "table": "copy"}]}},
        daemon={"http": {"listen": f"127.0.0.1:{free_port()}"}},
    )
    with built:
        built.start()
        built.wait_for(lambda: live(built))
        yield built


class Stream:
    """A connection to the read-only listener's stream."""

    def __init__(self, daemon: Pillowd, stack: ExitStack, last_event_id: str = "") -> None:
        host, _, port = daemon.settings["daemon"]["http"]["listen"].partition(":")
        self._socket = stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
        given = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else ""
        # 1.0, so that the answer comes without chunks.
        self._socket.sendall(f"GET /v1/events HTTP/1.0\r\nHost: {host}\r\n{given}\r\n".encode())
        self._file = stack.enter_context(self._socket.makefile("rb"))
        self.status = int(self._file.readline().split()[1])
        self.headers = dict(self._headers())

    def _headers(self) -> Iterator[tuple[str, str]]:
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(":")
            yield name.lower(), value.strip()

    def messages(self) -> Iterator[Message]:
        return read_messages(self._file)


def first(stream: Stream, event: str) -> Message:
    return next(message for message in stream.messages() if message.event == event)


def test_sixteen_readers_are_told_of_a_change_and_one_more_is_sent_away(daemon: Pillowd) -> None:
    with ExitStack() as stack:
        streams = [Stream(daemon, stack) for _ in range(16)]
        assert {stream.status for stream in streams} == {200}
        assert streams[0].headers["content-type"].startswith("text/event-stream")
        opened = [first(stream, "status") for stream in streams]
        facts = opened[0].data["pillows"][0]
        assert (facts["pillow"], facts["state"], facts["seq"]) == ("copy", "live", None)
        assert [each["transport"] for each in facts["transports"]] == ["file"]
        assert [each["state"] for each in facts["history"]][-1] == "live"
        refused = Stream(daemon, stack)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        daemon.ask_here("pause", "copy")
        for stream in streams:
            wanted = (m for m in stream.messages() if m.event == "status" and m.data["pillows"])
            states = (m.data["pillows"][0].get("state") for m in wanted)
            assert "paused" in states
    with ExitStack() as stack:
        reopened = list[Stream]()

        def opens_again() -> bool:
            reopened.append(Stream(daemon, stack, opened[0].id))
            return reopened[-1].status == 200

        wait_until(opens_again)
        again = first(reopened[-1], "status")
        assert (again.data["complete"], again.data["pillows"][0]["state"]) == (False, "paused")
    assert daemon.ask_here("resume", "copy")["state"] == "live"


def test_a_tap_shows_types_and_values_only_on_request(daemon: Pillowd, database: CouchDatabase) -> None:
    def tapped(*options: str) -> list[dict[str, Any]]:
        with subprocess.Popen(
            [*PILLOWD, "tap", "copy", "--count", "2", "--json", "--config", str(daemon.config), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as tap:
            number = 0
            while tap.poll() is None:
                database.put(f"new{number}", name=CANARY, n=number)
                number += 1
                time.sleep(0.05)
            printed, said = tap.communicate()
        assert (tap.returncode, said) == (0, "")
        return [json.loads(line) for line in printed.splitlines()]

    masked = tapped()
    assert len(masked) == 2
    assert CANARY not in str(masked)
    (shown,) = re.findall(r"## `tap`\n.*?```json\n(.*?)```", JSON_PAGE.read_text(), re.DOTALL)
    assert masked[0].keys() == json.loads(shown).keys()
    assert {name: masked[0]["doc"][name] for name in ("name", "n")} == {"name": "text", "n": "number"}
    shown = tapped("--show-values", "--stage", "rows", "--rate", "50")
    assert shown[0]["rows"]["copy"][0]["name"] == CANARY


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, daemon: Pillowd, stack: ExitStack, *words: str, kind: str) -> None:
        self._master, slave = pty.openpty()
        stack.callback(os.close, self._master)
        environ = os.environ | {"TERM": kind, "COLUMNS": "160", "LINES": "30"}
        self.process = stack.enter_context(
            subprocess.Popen(
                [*PILLOWD, *words, "--config", str(daemon.config)],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=environ,
                start_new_session=True,
            )
        )
        stack.callback(self.process.kill)
        os.close(slave)
        self.shown = ""

    def shows(self, text: str) -> bool:
        while select.select([self._master], [], [], 0)[0]:
            try:
                self.shown += os.read(self._master, 65536).decode(errors="replace")
            except OSError:  # it has ended
                break
        return text in self.shown

    def press(self, key: str) -> None:
        os.write(self._master, key.encode())


@pytest.mark.skipif(sys.platform != "linux", reason="a pseudo-terminal behaves otherwise elsewhere")
def test_top_follows_the_pillows_on_any_terminal_and_ends_quietly(daemon: Pillowd) -> None:
    with ExitStack() as stack:
        drawn = Terminal(daemon, stack, "top", kind="xterm")
        dumb = Terminal(daemon, stack, "top", kind="dumb")
        wait_until(lambda: drawn.shows("q quits") and drawn.shows("copy"))
        wait_until(lambda: dumb.shows("copy"))
        daemon.ask_here("pause", "copy")
        wait_until(lambda: drawn.shows("paused"))
        drawn.press("q")
        dumb.process.send_signal(signal.SIGINT)
        assert (drawn.process.wait(10), dumb.process.wait(10)) == (0, 0)
        assert dumb.shows("")
        assert "\x1b" not in dumb.shown
        assert "Traceback" not in drawn.shown + dumb.shown


def test_without_a_daemon_they_say_so(daemon: Pillowd) -> None:
    """The last one here: it stops the daemon."""
    assert daemon.stop() == 0
    done = daemon.command("tap", "copy")
    assert (done.returncode, done.stdout) == (75, "")
    assert "no daemon answers" in done.stderr
    assert "Remedy: `pillowd run`" in done.stderr
