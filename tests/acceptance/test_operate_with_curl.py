"""The how-to "Operate pillowd with curl", typed as it stands there."""

from __future__ import annotations

import json
import re
import subprocess

from tests.acceptance.process import ROOT
from tests.acceptance.world import World, live

PAGE = (ROOT / "docs" / "how-to" / "operate-with-curl.md").read_text()
BLOCKS = re.findall(r"<!-- not run: [^\n]*test_operate_with_curl[^\n]*-->\n```sh\n(.*?)```", PAGE, re.DOTALL)


def test_the_commands_of_the_page_do_what_it_says(world: World) -> None:
    world.fill(20)
    daemon = world.pillowd({"cases": world.pillow("cases", "sqlite")}).start()
    daemon.wait_for(lambda: live(daemon))
    socket = daemon.folder / "admin.sock"
    script = "\necho\n".join(BLOCKS).replace("/run/pillowd/admin.sock", str(socket))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=daemon.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]

    states = [answer["state"] for answer in answers if "state" in answer]
    assert states[0] == "live"
    assert states[1] == "paused"
    assert states[2] in {"catching-up", "live"}
    stacks = next(answer["greenlets"] for answer in answers if "greenlets" in answer)
    assert any(each["pillow"] and each["pillow"].startswith("cases@") for each in stacks)
    edited = next(answer for answer in answers if "before" in answer)
    assert (edited["seq"], edited["generation"]) == (0, 1)
    (shown,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert next(answer for answer in answers if answer.get("status") == 404) == json.loads(shown)
    lines = answers[-1]["audit"]
    acts = [line["act"] for line in lines if line["phase"] == "intent"]
    changed = ["pause_pillow", "resume_pillow", "restart_pillows", "edit_checkpoint"]
    assert acts == [*changed, "retry_dead_letters"]
    assert [line["phase"] for line in lines if line["phase"] != "intent"] == ["done"] * 5
    daemon.wait_for(lambda: live(daemon))
    assert world.differences("cases", "sqlite") == {}
    assert daemon.stop() == 0
