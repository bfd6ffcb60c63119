"""Pillows whose keys do not fit together."""

from __future__ import annotations

import pytest

from daemon.assembly.pipelines import build_pillow, build_transports
from daemon.config.load import load
from daemon.config.problems import ConfigErrors
from daemon.tail_lookup import tail_keys
from tests.support.case_document import document
from tests.support.configuration import PACED


def test_transport_with_own_pace_is_a_pillow_of_its_own(tmp_path):
    """It has its own checkpoint, and holds nobody back; others call it an optional sink."""
    (tmp_path / "pillowd.yaml").write_text(PACED)
    config = load(tmp_path / "pillowd.yaml")
    assert [str(key) for key in tail_keys(config)] == ["cases@couch/cases", "cases.slow@couch/cases"]
    names = [[each.name for each in build_transports(config, key)] for key in tail_keys(config)]
    assert names == [["files"], ["slow"]]
    own = build_pillow("cases.slow", config.tails["cases.slow"])
    assert list(own.outputs) == ["cases"]
    assert list(own.transform(document())) == ["cases"]


def test_several_batches_in_flight_need_a_target_that_takes_them(tmp_path):
    text = PACED + "    batch: { max_in_flight: 4 }\n"
    (tmp_path / "pillowd.yaml").write_text(text)
    with pytest.raises(
        ConfigErrors, match=r"batch.max_in_flight: `files` \(jsonl\) writes one batch at a time"
    ):
        load(tmp_path / "pillowd.yaml")

    alone = text.replace("    - { connection: files, file: cases.jsonl }\n", "").replace(
        ", own_pace: true", ""
    )
    (tmp_path / "pillowd.yaml").write_text(alone)
    config = load(tmp_path / "pillowd.yaml")
    (key,) = tail_keys(config)
    assert config.tails[key.pillow].batch.max_in_flight == 4


def test_one_transport_keeps_the_pillows_name(tmp_path):
    text = PACED.replace("    - { connection: files, file: cases.jsonl }\n", "")
    (tmp_path / "pillowd.yaml").write_text(text)
    with pytest.raises(ConfigErrors, match=r"transport\[0\].own_pace: every transport .* so none is left"):
        load(tmp_path / "pillowd.yaml")
