"""Every status that `openapi.yaml` documents is given by a real daemon, and no other."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

from checkpoints.journal.journal import Journal
from daemon.http.access import MAX_FAILURES
from daemon.http.contract import Operation, load_contract
from tests.acceptance.house import BEARER, WRITER_TOKEN, House
from tests.acceptance.process import ROOT
from tests.servers.couch_client import CouchDatabase
from tests.servers.process import free_port
from tests.support.http_listener import HttpListener

OPERATIONS = load_contract().operations
#: Streams that may be open at once, as the description says.
MAX_STREAMS = 16
OTHER_SITE = {"Origin": "https://evil.example"}
#: What is kept of a pillow in the store of checkpoints.
KINDS = ("checkpoint", "history")
#: Statuses that no request to a daemon gets for certain -> the test that has them.
ELSEWHERE = {
    ("list_databases", 200): (
        "tests/acceptance/test_several_databases.py",
        "test_the_read_only_listener_serves_databases_and_counts",
    ),
    ("get_livez", 503): (
        "tests/unit/daemon/http/test_app.py",
        "test_a_process_whose_supervisor_does_not_tick_is_not_alive",
    ),
}

Documented = set[tuple[str, int]]


def list_documented() -> Documented:
    """Return operation and status of every answer in the API's description."""
    return {
        (raw["operationId"], int(status))
        for item in load_contract().document["paths"].values()
        for method, raw in item.items()
        if method != "parameters"
        for status in raw["responses"]
    }


class Asker:
    """Asks for operations, and keeps which statuses each has answered with.

    Attributes:
        seen: operation and status.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self.seen: Documented = set()

    def ask(
        self,
        name: str,
        status: int,
        /,
        *,
        listener: HttpListener | None = None,
        body: Any = None,
        query: str = "",
        headers: dict[str, str] | None = None,
        **path: str,
    ) -> Any:
        """Send a request that is answered with this status; return the answer."""
        operation = OPERATIONS[name]
        place = operation.path.format(**{"key": "cases", "name": "pillowd", "id": "none", **path}) + query
        given = body if body is not None else {} if operation.body is not None else None
        seen = (listener or self._house.admin).ask(operation.method, place, given, **(headers or {}))
        assert seen.status == status, (name, seen.status, seen.text)
        self.seen.add((name, status))
        return seen

    def open(self, id: str, stack: ExitStack, listener: HttpListener, status: int = 200) -> None:
        """Open a stream, which stays open until the end of the stack."""
        place = OPERATIONS[id].path.format(key="cases")
        connection = stack.enter_context(listener.connect())
        connection.sendall(f"GET {place} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        begin = connection.recv(12)
        assert begin == f"HTTP/1.1 {status}".encode(), begin
        self.seen.add((id, status))


def test_every_documented_status_is_given_and_no_other(
    house: Callable[..., House], couch_db: CouchDatabase, tmp_path: Path
) -> None:
    couch_db.put("one", {})
    with silent_server() as port:
        source = {"connection": "couch", "database": couch_db.name}
        made = house(
            connections={
                "away": {"type": "couchdb", "url": f"http://127.0.0.1:{free_port()}"},
                "silent": {"type": "couchdb", "url": f"http://127.0.0.1:{port}"},
                "hook": {"type": "webhook", "url": f"http://127.0.0.1:{port}/"},
                "tables": {"type": "sqlite", "path": str(tmp_path / "target.sqlite")},
            },
            pillows={
                name: {
                    "source": {"connection": connection, "database": "x"},
                    "transport": [{"connection": "nowhere"}],
                }
                for name, connection in {"away": "away", "unheard": "silent"}.items()
            }
            | {
                "slow": {"source": source, "transport": [{"connection": "hook"}]},
                "rows": {"source": source, "transport": [{"connection": "tables", "table": "rows"}]},
            },
        )
        daemon = made.daemon
        with closing(Journal(daemon.folder / "state" / "checkpoints")) as journal:
            journal.put({(kind, "former", "couch/x"): {"seq": 1.5} for kind in KINDS})
            journal.sync()
        daemon.start()
        daemon.wait_for(lambda: daemon.state("cases") == "live" and daemon.state("away") == "backing-off")
        daemon.wait_for(lambda: daemon.status("cases")["checkpoint_age_seconds"] is not None)
        asker = Asker(made)
        asker.ask("pause_pillow", 200, key="unheard", query="?wait=30s")  # not tried yet is not ready
        ask_what_looks(asker, made)
        ask_for_rebuilds(asker, made)
        ask_for_acts(asker, made)
        ask_for_backfills(asker)
        ask_for_checkpoints(asker)
        ask_with_another_configuration(asker, daemon.config)
        ask_as_nobody_may(asker, made)
        daemon.signal(signal.SIGTERM)
        daemon.wait_for(lambda: daemon.events("daemon.stopping"))
        asker.ask("reload_config", 409)
        daemon.child.kill()
    for file, test in ELSEWHERE.values():
        assert f"def {test}(" in (ROOT / file).read_text()
    documented = list_documented()
    assert asker.seen - documented == set(), "given, but not documented"
    assert documented - asker.seen - ELSEWHERE.keys() == set(), "documented, but never given"


@contextmanager
def silent_server() -> Iterator[int]:
    """Yield the port of a server that takes every message, and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def ask_what_looks(asker: Asker, made: House) -> None:
    for id in (
        "get_page",
        "get_livez",
        "get_readyz",
        "get_metrics",
        "get_openapi",
        "get_version",
        "list_pillows",
        "get_pillow",
        "list_checkpoints",
        "list_loggers",
        "get_logger",
        "get_checkpoint",
        "list_checkpoint_history",
        "list_dead_letters",
        "list_operations",
        "list_backfills",
        "get_config",
        "list_greenlets",
        "get_memory",
        "list_audit",
    ):
        asker.ask(id, 200)
    asker.ask("get_asset", 200, name="main.js")
    asker.ask("get_asset", 404, name="nothing.js")
    asker.ask("get_readyz", 503, query="?strict=true")
    asker.ask("list_dead_letter_ids", 200, query="?transport=nowhere")
    asker.ask("list_dead_letter_ids", 404, query="?transport=nowhere", key="nobody")
    asker.ask("get_operation", 404)
    asker.ask("get_logger", 404, name="nothing")
    asker.ask("list_databases", 404)
    for id in ("get_pillow", "tap_pillow", "get_checkpoint", "list_checkpoint_history", "list_dead_letters"):
        asker.ask(id, 404, key="nobody")
    for id, listener in (("stream_events", made.read), ("tap_pillow", made.admin)):
        with ExitStack() as stack:
            for _ in range(MAX_STREAMS):
                asker.open(id, stack, listener)
            asker.open(id, stack, listener, 503)


def ask_for_acts(asker: Asker, made: House) -> None:
    asker.ask("set_logger", 200, body={"level": "debug"})
    asker.ask("set_logger", 404, body={"level": "debug"}, name="nothing")
    asker.ask("restore_logger", 200)
    asker.ask("restore_logger", 404, name="nothing")
    for id in ("retry_dead_letters", "discard_dead_letters"):
        asker.ask(id, 200, body={"all": True})
        asker.ask(id, 404, body={"ids": ["none"]})
    for id, body in (("verify_pillow", {}), ("repair_documents", {"ids": ["one"]})):
        asker.ask(id, 404, body=body, key="nobody")
        started = asker.ask(id, 202, body=body)
        asker.ask("get_operation", 200, id=started.json["id"], query="?wait=30s")
    # The message of `slow` is never answered, so it does nothing soon.
    for id in ("stop_pillow", "pause_pillow"):
        asker.ask(id, 504, key="slow", query="?wait=10ms")
    for id in ("resume_pillow", "restart_pillow"):  # its source is never answered, either
        asker.ask(id, 504, key="unheard", query="?wait=10ms")
    for id in ("restart_pillow", "pause_pillow", "resume_pillow", "stop_pillow", "resume_pillow"):
        asker.ask(id, 404, key="nobody")
        asker.ask(id, 202)
        asker.ask(id, 200, query="?wait=30s")
    asker.ask("pause_pillow", 200, query="?wait=30s")
    for id in ("stop_pillow", "restart_pillow"):
        asker.ask(id, 409)
    asker.ask("restart_pillows", 202)


def ask_for_rebuilds(asker: Asker, made: House) -> None:
    def await_state(state: str) -> None:
        made.daemon.wait_for(lambda: made.daemon.status("rows")["rebuild"]["state"] == state)

    made.daemon.wait_for(lambda: made.daemon.state("rows") == "live")
    acts = ("start_rebuild", "switch_rebuild", "roll_back_rebuild", "cancel_rebuild", "drop_rebuild")
    for id in ("get_rebuild", *acts):
        asker.ask(id, 404, key="nobody")
    asker.ask("start_rebuild", 202, body={"switch": "manual", "keep": "1h"}, key="rows")
    for id in ("start_rebuild", "roll_back_rebuild", "drop_rebuild"):
        asker.ask(id, 409, key="rows")
    asker.ask("switch_rebuild", 202, key="rows")
    await_state("switched")
    asker.ask("get_rebuild", 200, key="rows")
    for id in ("switch_rebuild", "cancel_rebuild"):
        asker.ask(id, 409, key="rows")
    asker.ask("roll_back_rebuild", 202, key="rows")
    await_state("rolled-back")
    asker.ask("drop_rebuild", 202, key="rows")
    await_state("dropped")
    asker.ask("start_rebuild", 202, key="rows")
    asker.ask("cancel_rebuild", 202, key="rows")
    await_state("dropped")


def ask_for_backfills(asker: Asker) -> None:
    """The pillow is paused, so they wait."""
    asker.ask("list_backfills", 404, query="?key=nobody")
    asker.ask("start_backfill", 404, key="nobody", body={"prefix": "o"})
    for id, body in (
        ("get_backfill", None),
        ("add_backfill_ids", {"ids": ["one"]}),
        ("retry_backfill", {"range": 1}),
        ("cancel_backfill", None),
    ):
        asker.ask(id, 404, id="none", body=body)
    started = [asker.ask("start_backfill", 201, body={"ids": ["one"], "more": True}).json for _ in range(10)]
    asker.ask("start_backfill", 409, body={"prefix": "o"})
    id = started[0]["id"]
    asker.ask("get_backfill", 200, id=id)
    asker.ask("retry_backfill", 409, id=id, body={"range": 1})
    asker.ask("add_backfill_ids", 200, id=id, body={"ids": []})
    asker.ask("add_backfill_ids", 409, id=id, body={"ids": []})
    asker.ask("resume_pillow", 200, query="?wait=30s")
    for _ in range(300):
        if asker.ask("get_backfill", 200, id=id).json["state"] == "done":
            break
        time.sleep(0.1)
    asker.ask("retry_backfill", 200, id=id, body={"range": 1})
    asker.ask("cancel_backfill", 200, id=started[1]["id"])
    asker.ask("cancel_backfill", 409, id=started[1]["id"])
    asker.ask("pause_pillow", 200, query="?wait=30s")


def ask_for_checkpoints(asker: Asker) -> None:
    edit = {"to": "beginning"}
    for id, body in (("edit_checkpoint", edit), ("reset_checkpoint", None)):
        asker.ask(id, 428, body=body)
        asker.ask(id, 412, body=body, headers={"If_Match": '"7"'})
        asker.ask(id, 404, body=body, headers={"If_Match": "*"}, key="nobody")
        asker.ask(id, 200, body=body, headers={"If_Match": "*"})
    for id in ("get_checkpoint", "list_checkpoint_history"):
        asker.ask(id, 409, key="former")
    asker.ask("edit_checkpoint", 409, body={"to": 1.0}, headers={"If_Match": "*"}, key="former")


def ask_with_another_configuration(asker: Asker, config: Path) -> None:
    text = config.read_text()
    for id in ("validate_config", "reload_config"):
        config.write_text(yaml.safe_dump({"version": 1, "nonsense": True}))
        asker.ask(id, 422)
        config.write_text(text)
        asker.ask(id, 200)


def ask_as_nobody_may(asker: Asker, made: House) -> None:
    """Asks what the server itself refuses; this comes last, since nobody gets in once tokens were guessed."""
    admin = [each for each in OPERATIONS.values() if each.listener == "admin"]
    unsafe = [each for each in OPERATIONS.values() if not each.is_safe]
    for each in OPERATIONS.values():
        asker.ask(each.id, 400, headers={"Host": "evil.example"})
    for each in admin:
        asker.ask(each.id, 401, listener=made.tcp)
        asker.ask(each.id, 403, **refused(each, made))
    for each in unsafe:
        asker.ask(each.id, 415, headers={"Content_Type": "text/plain"})
        asker.ask(each.id, 413, body=b"x" * 70_000)
    audit = made.daemon.folder / "state" / "audit"
    audit.rename(audit.with_name("aside"))
    audit.touch()  # nothing can be written into it
    for each in unsafe:
        asker.ask(each.id, 503)
    audit.unlink()
    audit.with_name("aside").rename(audit)
    for _ in range(MAX_FAILURES):
        made.tcp.get("/livez", Authorization=f"Bearer {'x' * 40}")
    for each in admin:
        asker.ask(each.id, HTTPStatus.TOO_MANY_REQUESTS, listener=made.tcp, headers=BEARER)


def refused(operation: Operation, made: House) -> dict[str, Any]:
    """Return the arguments of a request that its sender may not send."""
    if not operation.is_safe:
        return {"headers": OTHER_SITE}
    return {"listener": made.tcp, "headers": {"Authorization": f"Bearer {WRITER_TOKEN}"}}
