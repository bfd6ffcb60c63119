"""The how-to page on using the parts on their own does what it says, whether or not a program patches."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "use-the-parts-on-their-own.md"

PATCH = "from gevent import monkey; monkey.patch_all()"
NAMES = "import sys; from pathlib import Path; url, folder = sys.argv[1], Path(sys.argv[2])"


@pytest.mark.parametrize("before", ["", PATCH], ids=["unpatched", "patched"])
def test_the_examples_do_what_the_page_says(before, tmp_path, couch, couch_db):
    couch_db.drop()
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    done = program([before, NAMES, *examples], url_of(couch, couch_db.name), str(tmp_path))
    assert done.stdout == "1200 written, 0 conflicts, 0 failed\nonce, to both\n", done.stderr
    assert couch_db.request("GET", "").json()["doc_count"] == 1200
    assert [(tmp_path / name).read_text() for name in ("here.txt", "there.txt")] == ["once, to both\n"] * 2


def test_an_unpatched_program_writes_to_couchdb_in_several_lanes_and_before_it_finishes(couch, couch_db):
    couch_db.drop()
    script = """
import json, threading
from pillows import BulkOptions, BulkPusher
pusher = BulkPusher(url, BulkOptions(threshold=10, max_age_seconds=0.05, max_in_flight=3, create=True))
for number in range(95):
    pusher.push({"_id": str(number)})
tick = threading.Event()
while pusher.counts.ok < 95:
    assert not tick.wait(0.02)
pusher.push({"_id": "7"})
counts = pusher.finish()
print(counts.ok, counts.conflict, list(counts.conflicts))
"""
    done = program([NAMES, script], url_of(couch, couch_db.name), ".")
    assert done.stdout == "95 1 ['7']\n", done.stderr
    assert couch_db.request("GET", "").json()["doc_count"] == 95


def program(lines, *arguments):
    return subprocess.run(
        [sys.executable, "-c", "\n".join(lines), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def url_of(couch, name):
    parts = urlsplit(couch.url)
    user = "{}:{}@".format(*couch.auth) if couch.auth else ""
    return urlunsplit(parts._replace(netloc=user + parts.netloc, path=f"/{name}"))
