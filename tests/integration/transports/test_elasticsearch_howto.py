"""The how-to page on Elasticsearch mappings, done step by step."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from checkpoints import TailKey
from daemon.config.load import load
from pillows.transports.elasticsearch.transport import ElasticsearchTransport
from tests.conformance.steps import assert_applied
from tests.conformance.target import at, batch, document
from tests.integration.transports.search_index import Node

PAGE = (Path(__file__).parents[3] / "docs/how-to/elasticsearch-mappings.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@contextmanager
def configured(folder: Path, node: Node, mapping: str, epoch: int) -> Iterator[ElasticsearchTransport]:
    """The transport of the page's configuration, on the test's node and under the test's names."""
    (yaml,) = blocks("yaml")
    (folder / "mappings").mkdir(exist_ok=True)
    (folder / "mappings" / "cases.json").write_text(mapping)
    here = yaml.replace("http://es.example:9200", node.url).replace(
        "index: cases", f"index: {node.alias('cases')}"
    )
    (folder / "pillowd.yaml").write_text(here)
    config = load(folder / "pillowd.yaml", {"HOME": str(folder)})
    (entry,) = config.pillows["cases"].transport
    options = config.connections[entry.connection].options
    assert isinstance(options, ElasticsearchTransport.Connection)
    outputs: Any = dict(entry.outputs)
    one = ElasticsearchTransport(entry.name, TailKey("cases", "couch/cases"), options, outputs)
    one.open()
    one.acquire(at("0", epoch=epoch))
    yield one
    one.close()


def test_the_steps_of_the_page_work(node: Node, tmp_path: Path) -> None:
    first, example, added, changed = blocks("json")
    case = document("case-17", 3, msgspec.json.encode(json.loads(example)), output="cases")
    bad = document("case-18", 1, {"opened_on": "next week"}, output="cases")
    with configured(tmp_path, node, first, 1) as one:
        result = one.write(batch(case, bad))
    assert set(result.dead) == {"case-18"}
    assert "opened_on" in result.dead["case-18"]
    assert "next week" not in result.dead["case-18"]
    assert list(node.read("cases")) == ["case-17"]
    found = node.ask("GET", f"{node.alias('cases')}/_search?q=owner.name:ann")["hits"]["hits"]
    assert [hit["_id"] for hit in found] == ["case-17"]
    (old,) = node.behind("cases")
    with configured(tmp_path, node, added, 2) as one:
        assert_applied(one.write(batch(case, epoch=2)))
    assert node.indices("cases") == [old]
    with configured(tmp_path, node, changed, 3) as one:
        assert_applied(one.write(batch(case, epoch=3)))
        assert node.behind("cases") == [old]
        one.finish_pass(3)
    (new,) = node.behind("cases")
    assert sorted([old, new]) == node.indices("cases")
    found = node.ask("GET", f"{node.alias('cases')}/_search?q=owner.name:ANN")["hits"]["hits"]
    assert [hit["_id"] for hit in found] == ["case-17"]
    node.ask("DELETE", old)
    assert node.indices("cases") == [new]
