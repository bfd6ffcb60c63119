"""A configuration of one pillow, with a plugin beside it."""

from __future__ import annotations

import sys
import textwrap

import pytest

from daemon.config.load import load

HEAD = """\
version: 1
daemon: {{ plugins_path: [{plugins}] }}
connections:
  couch: {{ type: couchdb, url: "http://127.0.0.1:5984" }}
  nowhere: {{ type: "null" }}
pillows:
  cases:
    source: {{ connection: couch, database: cases }}
    outputs: [case, visit]
    transport: [{{ connection: nowhere, outputs: {{ case: {{}}, visit: {{}} }} }}]
"""


@pytest.fixture
def loaded(tmp_path):
    (tmp_path / "plugins").mkdir()

    def make(pillow: str, plugin: str = ""):
        name = f"plugin_{tmp_path.name}"
        (tmp_path / "plugins" / f"{name}.py").write_text(textwrap.dedent(plugin).replace("NAME", name))
        body = textwrap.indent(textwrap.dedent(pillow).replace("NAME", name), "    ")
        (tmp_path / "pillowd.yaml").write_text(HEAD.format(plugins="plugins") + body)
        return load(tmp_path / "pillowd.yaml")

    yield make
    folder = str(tmp_path / "plugins")
    if folder in sys.path:
        sys.path.remove(folder)
