"""`python -m bench.databases` measures what it says; at full size it proves what many databases cost."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bench import databases as bench
from bench.plot import Panel, draw


def test_a_few_databases_give_every_figure(monkeypatch, capsys):
    monkeypatch.setattr(bench, "SETTLE_SECONDS", 0.0)
    found = bench.measure(13, 2, "sqlite", 0.5)
    assert found.databases == 13
    assert 0 < found.bare_seconds < found.load_seconds
    assert found.restart_seconds > 0
    assert 20 < found.idle_mib < 1000
    assert found.descriptors > 10
    assert found.idle_core < 1
    bench.show([found], 2, "sqlite")
    assert "descriptors" in capsys.readouterr().out
    assert len(ElementTree.fromstring(bench.plot([found])).findall("{*}g")) == 3


@pytest.mark.parametrize("is_log", [True, False])
def test_a_chart_holds_all_its_points_inside_its_frame(is_log):
    lines = {"one": {10: 3.0, 100: 47.0, 1000: 5200.0}, "two & more": {10: 0.5, 1000: 9.0}}
    text = draw("Title", "databases", [Panel(title="Time, s", lines=lines, is_log=is_log)])
    root = ElementTree.fromstring(text)
    circles = root.findall(".//{*}circle")
    assert len(circles) == 5
    assert all(46 <= float(each.attrib["cx"]) <= 272 for each in circles)
    assert all(34 <= float(each.attrib["cy"]) <= 190 for each in circles)
    assert "two & more" in "".join(root.itertext())


@pytest.mark.proof
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("target", ["sqlite", "postgres"])
def test_ten_thousand_databases_cost_little(target, capsys):
    few, many = (bench.measure(databases, 10, target, 20.0) for databases in (1000, 10_000))
    with capsys.disabled():
        bench.show([few, many], 10, target)
    assert many.most_sockets <= 64
    assert many.idle_mib <= 200
    assert many.idle_core <= 0.03
    assert (many.idle_mib - few.idle_mib) / 9 < 1.0
    assert many.ratio <= 1.5
    assert many.restart_seconds < 60
