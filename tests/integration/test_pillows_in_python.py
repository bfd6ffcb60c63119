"""The how-to page on building a pillow in Python does what it says."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from pillows.registry import registered
from tests.support.couch_auth import to_auth

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "pillows-in-python.md"


def test_a_pillow_is_built_by_composition_without_yaml_or_a_base_class(tmp_path, couch, couch_db):
    couch_db.bulk(
        [
            {"_id": "c1", "type": "Case", "name": "ada lovelace", "address": {"city": "London"},
             "visits": [{"on": "mon"}, {"on": "tue"}]},
            {"_id": "c2", "type": "Case", "name": "cy"},
            {"_id": "f1", "type": "Form", "name": "no"},
        ]
    )  # fmt: skip
    example, plugin = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    auth = to_auth(couch.auth)
    names = {"url": couch.url, "auth": auth, "database": couch_db.name, "folder": tmp_path}
    exec(compile(example, str(PAGE), "exec"), names)

    with closing(sqlite3.connect(tmp_path / "cases.sqlite")) as db:
        cases = db.execute("select _id, name, city from cases order by _id").fetchall()
        visits = db.execute("select _id, day from visits order by _id, _row").fetchall()
    assert cases == [("c1", "Ada Lovelace", "London"), ("c2", "Cy", None)]
    assert visits == [("c1", "mon"), ("c1", "tue")]

    exec(compile(plugin, str(PAGE), "exec"), {})
    recent: Any = registered("filter", "recent")
    assert recent({"opened_on": "2026-02-01"}, since="2026-01-01")
