"""The examples of the page on transforms pass their own tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from daemon.checks.functions import check_functions
from daemon.checks.pillow_tests import check_pillow_tests
from daemon.config.load import load

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "transforms.md").read_text()
HEAD = """\
version: 1
daemon: { plugins_path: [.] }
connections:
  couch: { type: couchdb, url: "http://127.0.0.1:5984" }
  nowhere: { type: "null" }
"""


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_examples_do_what_the_page_says(tmp_path, monkeypatch, number):
    functions = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    example = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[number]
    for name, function in zip(("words_rows", "parcel_trigger"), functions, strict=True):
        (tmp_path / f"{name}.py").write_text(function)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "pillowd.yaml").write_text(HEAD + example)
    config = load(tmp_path / "pillowd.yaml")
    assert check_functions(config) == []
    assert [str(mistake) for mistake in check_pillow_tests(config)] == []
    (pillow,) = config.pillows.values()
    assert pillow.tests
