"""A transport at its own pace: it holds nobody back, and goes on from where it was."""

from __future__ import annotations

import signal
from collections.abc import Callable

from gevent.event import Event

from tests.acceptance.world import World, live, statuses
from tests.servers.scripted import Pause, Request, Script, ScriptedServer, json_reply

COUNT = 1500

#: Messages that the webhook answers before it is slow.
ANSWERED = 3


def test_a_slow_transport_at_its_own_pace_holds_nobody_and_goes_on_from_its_own_position(
    world: World, scripted_server: Callable[[], ScriptedServer]
) -> None:
    """Killed while it is behind, it reads on from its own checkpoint: what was answered is not sent again."""
    go = Event()
    delivered: list[list[str]] = []

    def webhook(request: Request) -> Script:
        delivered.append([each["id"] for each in request.json()["documents"]])
        slow = [] if len(delivered) <= ANSWERED else [Pause(go)]
        return [*slow, json_reply({})]

    server = scripted_server().on("POST", "/hook", webhook)
    world.connections["hook"] = {"type": "webhook", "url": f"{server.url}/hook", "timeout": "5m"}
    world.fill(COUNT)
    cases = world.pillow("cases", "postgres", batch={"max_docs": 200})
    cases["transport"].append({"connection": "hook", "own_pace": True})
    daemon = world.pillowd({"cases": cases}, checkpoints={"interval": "100ms", "max_uncheckpointed": 1})
    daemon.start()

    # It waits for the answer that does not come, and has saved what was answered.
    daemon.wait_for(lambda: live(daemon, "cases") and len(delivered) > ANSWERED)
    daemon.wait_for(lambda: daemon.ask("checkpoint", "get", "cases.hook")["changes"] > 0)
    assert world.differences("cases", "postgres") == {}
    assert statuses(daemon)["cases.hook"]["changes"] < statuses(daemon)["cases"]["changes"] == COUNT
    world.couch.put("later", n=1)
    daemon.wait_for(lambda: "later" in world.read("postgres", "cases"))

    daemon.signal(signal.SIGKILL)
    daemon.ended()
    saved = daemon.ask("checkpoint", "get", "cases.hook")
    done = [id for message in delivered[:ANSWERED] for id in message][: saved["changes"]]
    assert 0 < saved["changes"] < COUNT
    killed = len(delivered)
    go.set()
    daemon.start()
    daemon.wait_for(lambda: live(daemon, "cases", "cases.hook"))

    again = {id for message in delivered[killed:] for id in message}
    assert len(again) == COUNT + 1 - saved["changes"]
    assert not again & set(done)
    assert world.differences("cases", "postgres") == {}
