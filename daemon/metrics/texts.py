"""The text of the metrics in one format, kept between scrapes: only changed parts are written again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from daemon.metrics.families import Families, Reading, new_family

#: Ends a text in OpenMetrics; Prometheus' own format has no end.
END = b"# EOF\n"

#: Samples that are written in one step. They are few, so that their objects are freed before the garbage
#: collector runs: otherwise it soon scans the whole heap, which takes 50 ms with 200 pillows.
SAMPLES = 100

#: Pillows whose kept texts are handed over in one go: packing takes 1 ms for 100 kB.
PILLOWS = 20


#: How often series were dropped, since others may take their place; and the values of a family's series.
_Values = tuple[int, list[float]]


class Texts:
    """The texts of all families in one format.

    Args:
        encode: of prometheus-client; returns the text of the families that a collector has.
    """

    def __init__(self, encode: Callable[[Collector], bytes]) -> None:
        self._encode = encode
        # Family -> pillow -> its values and their text.
        self._counted: dict[str, dict[str, tuple[_Values, bytes]]] = {}
        self._read: dict[str, list[tuple[Any, bytes]]] = {}  # family -> rows, and their series
        self._heads: dict[str, bytes] = {}  # family -> its lines HELP and TYPE
        self._changes = 0

    def write_counted(self, families: Families) -> Iterator[bytes]:
        """Write the families that are counted as things happen, in pieces; some may be empty."""
        changed = families.list_changed(self._changes)
        self._changes = families.changes
        for name in families.names:
            if not families.is_by_pillow(name):
                yield self.write_family(families.collect(name))
                continue
            kept = self._counted.setdefault(name, {})
            for pillow, family in families.collect_pillows(name, changed):
                values = families.forgotten, [sample.value for sample in family.samples]
                if pillow not in kept or kept[pillow][0] != values:
                    kept[pillow] = values, self._write_series(family)
                yield b""
            yield self._write_head(name, families.describe)
            texts = [text for _, text in kept.values()]
            for begin in range(0, len(texts), PILLOWS):
                yield b"".join(texts[begin : begin + PILLOWS])

    def write_reading(self, reading: Reading) -> Iterator[bytes]:
        """Write a family whose values were read for this scrape, in pieces."""
        yield self._write_head(reading.name, new_family)
        before = self._read.get(reading.name, [])
        now: list[tuple[Any, bytes]] = []
        self._read[reading.name] = now
        for begin in range(0, len(reading.rows), SAMPLES):
            rows = reading.rows[begin : begin + SAMPLES]
            known = before[len(now)] if len(now) < len(before) else (None, b"")
            now.append(known if known[0] == rows else (rows, self._write_rows(reading.name, rows)))
            yield now[-1][1]

    def write_family(self, family: Family) -> bytes:
        """Write a whole family that is small."""
        return self._encode(_One(family)).removesuffix(END)

    def _write_head(self, name: str, describe: Callable[[str], Family]) -> bytes:
        if name not in self._heads:
            self._heads[name] = self.write_family(describe(name))
        return self._heads[name]

    def _write_rows(self, name: str, rows: Sequence[tuple[Sequence[str], float]]) -> bytes:
        family = new_family(name)
        for labels, value in rows:
            family.add_metric(labels, value)
        return self._write_series(family)

    def _write_series(self, family: Family) -> bytes:
        """Write the series without the lines HELP and TYPE, and whole numbers without a fraction."""
        return self.write_family(family).split(b"\n", 2)[2].replace(b".0\n", b"\n")


class _One(Collector):
    """A registry of one family."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Iterator[Family]:
        yield self._family
