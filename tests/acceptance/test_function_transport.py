"""A function of the user's as a transport, in the real daemon."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from tests.acceptance.process import Pillowd, couchdb
from tests.servers.couch_client import CouchDatabase

PLUGIN = """
    from pathlib import Path

    def write(batch):
        with Path(__file__).with_name("sent").open("a") as sent:
            for document in batch.documents:
                sent.write(document.id + "\\n")
"""


def test_g5_a_function_of_a_plugin_folder_is_a_transport(
    tmp_path: Path, couch: Any, couch_db: CouchDatabase
) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir(mode=0o755)
    (plugins / "sending_to_a_file.py").write_text(textwrap.dedent(PLUGIN))
    couch_db.bulk([{"_id": "a"}, {"_id": "b"}])
    pillow = {
        "source": {"connection": "couch", "database": couch_db.name},
        "transport": [{"connection": "own"}],
    }
    with Pillowd(
        tmp_path,
        pillows={"cases": pillow},
        connections={
            "couch": couchdb(couch.url, couch.auth),
            "own": {"type": "python", "function": "sending_to_a_file:write"},
        },
        daemon={"plugins_path": [str(plugins)]},
    ) as pillowd:
        checked = pillowd.command("check", "--connect")
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert "calls sending_to_a_file:write" in checked.stdout
        pillowd.start()
        pillowd.wait_for(lambda: pillowd.state("cases") == "live")
        assert sorted((plugins / "sent").read_text().split()) == ["a", "b"]
        assert pillowd.stop() == 0
