"""Configurations that are written to a file and loaded."""

from __future__ import annotations

import sys
import textwrap

import pytest

from daemon.config.load import load
from tests.support.configuration import ENVIRON

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


@pytest.fixture
def config(tmp_path):
    """Loads text as `pillowd.yaml`, with other files beside it."""

    def load_text(text: str, environ: dict[str, str] | None = None, **files: str):
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.with_suffix(".yaml").write_text(content)
        (tmp_path / "pillowd.yaml").write_text(text)
        return load(tmp_path / "pillowd.yaml", ENVIRON if environ is None else environ)

    return load_text
