"""Functions and transports that plugins register."""

from __future__ import annotations

import textwrap

import pytest

from daemon.assembly.pipelines import build_pillow, build_transports
from daemon.checks.functions import check_functions
from daemon.config.load import load
from daemon.config.problems import ConfigErrors
from daemon.tail_lookup import tail_keys
from pillows.models import Change
from tests.support.case_document import document
from tests.support.configuration import PACED


def built(config):
    return build_pillow("cases", config.pillows["cases"], config.daemon.plugins_path)


PLUGIN = """
    from pillows.registry import register

    @register("filter", "only-NAME")
    def only(doc, kind="Case"):
        return doc["kind"] == kind

    @register("transform", "greet-NAME")
    class Greet:
        def __init__(self, greeting):
            self.greeting = greeting

        def __call__(self, doc):
            return {"case": {"text": f"{self.greeting} {doc['name']}"}}

    def many(docs):
        return [{"case": doc} for doc in docs]
"""


def test_registered_functions_are_found_by_name_with_arguments(loaded):
    config = loaded(
        """
        filter: { name: only-NAME, args: { kind: Form } }
        transform: { name: greet-NAME, args: { greeting: Hello } }
        """,
        PLUGIN,
    )
    assert check_functions(config) == []
    pillow = built(config)
    kept = [
        pillow.filter(Change(id="a", revs=("1-a",), leaf_version=1, raw=document({"kind": kind}).raw))
        for kind in ("Form", "Case")
    ]
    assert kept == [True, False]
    assert pillow.transform(document({"name": "Ada"})) == {"case": ({"text": "Hello Ada"},)}


def test_a_plugin_that_cannot_be_imported_is_named(loaded):
    (mistake,) = check_functions(loaded("transform: { name: nobody }", "raise ValueError('broken')"))
    assert "broken" in mistake.message


TRANSPORT_PLUGIN = """
    from pillows.registry import register
    from pillows.transports.null import NullTransport

    @register("transport", "mytype-NAME")
    class MyTransport(NullTransport):
        pass
"""


def test_transport_may_be_registered_by_a_plugin(tmp_path):
    (tmp_path / "plugins").mkdir()
    plugin = TRANSPORT_PLUGIN.replace("NAME", tmp_path.name)
    (tmp_path / "plugins" / f"transport_{tmp_path.name}.py").write_text(textwrap.dedent(plugin))
    text = PACED.replace('type: "null"', f"type: mytype-{tmp_path.name}")
    (tmp_path / "pillowd.yaml").write_text(f"{text}daemon: {{ plugins_path: [plugins] }}\n")
    config = load(tmp_path / "pillowd.yaml")
    (transport,) = build_transports(config, tail_keys(config)[1])
    assert type(transport).__name__ == "MyTransport"

    (tmp_path / "pillowd.yaml").write_text(f"{text}daemon: {{ plugins_path: [] }}\n".replace("mytype", "x"))
    with pytest.raises(ConfigErrors, match="there is no type `x-"):
        load(tmp_path / "pillowd.yaml")
