"""The how-to page on nested documents, done step by step."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import psycopg
import pytest

from checkpoints import TailKey
from daemon.assembly.pipelines import build_pillow, build_transports
from daemon.config.load import load
from daemon.config.plugin_modules import add_folders
from pillows.models import Document, DocumentRows
from tests.conformance.steps import assert_applied
from tests.conformance.target import at, batch, gone

PAGE = (Path(__file__).parents[3] / "docs/how-to/nested-documents.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def configurations() -> list[str]:
    """The whole configurations; the others are excerpts."""
    return [block for block in blocks("yaml") if "\npillows:" in block]


def test_the_pillow_of_the_page_has_fifteen_lines() -> None:
    (yaml,) = configurations()
    pillow = yaml.partition("pillows:\n")[2].rstrip().splitlines()
    assert len(pillow) <= 15


def test_the_steps_of_the_page_work(
    postgres_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (yaml,), (function,), (example,) = configurations(), blocks("python"), blocks("json")
    total, index = blocks("sql")
    (tmp_path / "shop_rows.py").write_text(function)
    here = yaml.replace("/etc/pillowd/plugins", str(tmp_path)).replace(
        "postgresql://pillowd@db.example/reporting", postgres_dsn
    )
    (tmp_path / "pillowd.yaml").write_text(here)
    config = load(tmp_path / "pillowd.yaml", {"HOME": str(tmp_path)})
    monkeypatch.syspath_prepend(str(tmp_path))
    add_folders(config.daemon.plugins_path)
    pillow = build_pillow("orders", config.pillows["orders"])
    (transport,) = build_transports(config, TailKey("orders", "couch/shop"))

    def rows(version: int, order: dict[str, object]) -> DocumentRows:
        raw = msgspec.Raw(msgspec.json.encode(order))
        document = Document("order-17", f"{version}-a", version, deleted=False, raw=raw)
        return DocumentRows("order-17", f"{version}-a", version, pillow.transform(document))

    order = json.loads(example)
    transport.open()
    transport.acquire(at("0"))
    with psycopg.connect(postgres_dsn, autocommit=True) as reader:
        assert_applied(transport.write(batch(rows(2, order))))
        assert [(id, name, str(amount)) for id, name, amount in reader.execute(total.encode())] == [
            ("order-17", "Ada", "39.00")
        ]
        reader.execute(index.encode())
        bad = order | {"lines": [{"sku": "A-1", "count": "many"}]}
        assert set(transport.write(batch(rows(3, bad))).dead) == {"order-17"}
        assert len(reader.execute("select * from order_lines").fetchall()) == 2
        assert_applied(transport.write(batch(rows(4, order | {"lines": order["lines"][:1]}))))
        assert len(reader.execute("select * from order_lines").fetchall()) == 1
        assert_applied(transport.write(batch(gone("order-17", 5))))
        assert reader.execute("select * from order_lines").fetchall() == []
        assert reader.execute("select * from orders").fetchall() == []
    transport.close()
