"""Each alert's fault is really there, and a real Prometheus that scrapes the real daemon says that it fires.

Nobody waits for an hour: the rules are those of `etc/prometheus/`, with durations and thresholds divided.
Thresholds of documents and bytes are divided too, so that a few hundred documents are many.
"""

from __future__ import annotations

import re
import signal
import sqlite3
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import gevent
import pytest
import yaml

from tests.acceptance.process import ROOT, Pillowd, couchdb
from tests.chaos.disk import mount_small_disk, unmount
from tests.conftest import ending_without_server
from tests.servers.couch_client import CouchDatabase
from tests.servers.couchdb.process import CouchDB
from tests.servers.process import free_port
from tests.servers.prometheus import Prometheus, promtool
from tests.servers.tcp_proxy import TcpProxy
from tests.support.certificate import make_certificate
from tests.support.waiting import wait_until

RULES = (ROOT / "etc" / "prometheus" / "pillowd.rules.yml").read_text()

#: A minute of the rules takes this long, but ranges and thresholds have room for some scrapes.
MINUTE_SECONDS, LEAST_SECONDS, MOST_SECONDS = 1.0, 5, 20
#: Each document counts this many times.
DOCUMENTS = 100

#: Faults of a daemon of their own: they would be in the way of the others. What a rebuild waits for is in
#: `test_rebuild_refused`.
APART = {"PillowdRewound", "PillowdDiskLow", "PillowdHubBlocked", "PillowdRebuildWaits"}
#: What is read again; each takes a millisecond then.
REPLAYED = 30_000
#: Longer than a scrape of the others may take.
BLOCKED_SECONDS, PATIENT_SCRAPE_SECONDS = 2, 4

PLUGIN = """
    import time
    from pathlib import Path
    from pillows import AppendOnlyTransport, Options, OutputOptions, register

    def spoil(doc):
        if doc["n"] % 2:
            raise ValueError("by design")
        return doc

    def block(doc):
        end = time.perf_counter() + (0.8 if doc.get("late") else 0)
        while time.perf_counter() < end:
            pass
        return doc

    def block_longer(doc):
        end = time.perf_counter() + BLOCKED_SECONDS
        while time.perf_counter() < end:
            pass
        return doc

    def replay(doc):
        if Path(__file__).with_name("slow").exists():
            time.sleep(0.001)
        return doc

    @register("transport", "crashing")
    class Crashing(AppendOnlyTransport):
        Connection = Options
        Output = OutputOptions

        def write(self, batch):
            raise KeyboardInterrupt
"""


def shorten(rules: str, *, minute_seconds: float = MINUTE_SECONDS) -> str:
    """Return the same rules in another scale of time and number."""
    units = {"m": 1, "h": 60, "d": 24 * 60}

    def time(found: re.Match[str]) -> str:
        seconds = int(found[2]) * units[found[3]] * minute_seconds
        return f"{found[1]}{min(MOST_SECONDS, max(LEAST_SECONDS, round(seconds)))}s{found[4]}"

    shorter = re.sub(r"(for: |\[)(\d+)([mhd])(\]|$)", time, rules, flags=re.MULTILINE)
    for threshold, less in {
        "}) > 600": f"}}) > {LEAST_SECONDS}",
        "}) > 3600": f"}}) > {2 * LEAST_SECONDS}",
        "_seconds > 120": f"_seconds > {LEAST_SECONDS}",
        "_seconds > 300": f"_seconds > {LEAST_SECONDS}",
        "8 * 86400": str(2 * LEAST_SECONDS),
        "> 2500": f"> {2500 // DOCUMENTS}",
        "> 5000": f"> {5000 // DOCUMENTS}",
        "> 10000": f"> {10000 // DOCUMENTS}",
        "> 500000": f"> {500000 // DOCUMENTS}",
        "> 1000000": f"> {1000000 // DOCUMENTS}",
    }.items():
        assert threshold in shorter, threshold
        shorter = re.sub(re.escape(threshold) + r"\b", less, shorter)
    return shorter


def write_plugin(folder: Path) -> Path:
    """Return the folder of the faults' module."""
    plugins = folder / "plugins"
    plugins.mkdir()
    text = textwrap.dedent(PLUGIN).replace("BLOCKED_SECONDS", str(BLOCKED_SECONDS))
    (plugins / "faults.py").write_text(text)
    return plugins


def scrape(*addresses: str, seconds: int) -> dict[str, Any]:
    """Return the settings of a Prometheus that scrapes daemons."""
    often = {"scrape_interval": f"{seconds}s", "scrape_timeout": f"{seconds}s"}
    return {
        "global": {"evaluation_interval": "1s", **often},
        "rule_files": ["pillowd.rules.yml"],
        "scrape_configs": [{"job_name": "pillowd", "static_configs": [{"targets": list(addresses)}]}],
    }


def list_alerts() -> set[tuple[str, str]]:
    """Return name and severity of every alert."""
    rules = yaml.safe_load(RULES)["groups"][0]["rules"]
    return {(rule["alert"], rule["labels"]["severity"]) for rule in rules}


@pytest.fixture
def recreated(couch: Any, couch_db: CouchDatabase) -> Iterator[CouchDatabase]:
    """A database of the pillow on several."""
    database = couch.database(f"{couch_db.name}-a").create()
    yield database
    database.drop()
    database.close()


@pytest.fixture
def daemon(tmp_path: Path, couch: Any, couch_db: CouchDatabase) -> Iterator[Pillowd]:
    def pillow(connection: str, database: str = couch_db.name, **more: Any) -> dict[str, Any]:
        output = {"table": "rows"} if connection.startswith("copy") else {}
        which = {"databases" if "*" in database else "database": database}
        source = {"connection": "couch", **which, **more.pop("source", {})}
        return {"source": source, "transport": [{"connection": connection, **output}], **more}

    cert, key = make_certificate(tmp_path, days=7)
    built = Pillowd(
        tmp_path,
        connections={
            "couch": couchdb(couch.url, couch.auth),
            **{f"copy{n}": {"type": "sqlite", "path": str(tmp_path / f"copy{n}.sqlite")} for n in range(6)},
            "away": {"type": "webhook", "url": f"http://127.0.0.1:{free_port()}/"},
            "bad": {"type": "crashing"},
        },
        pillows={
            "differs": pillow("copy0", verify={"every": "1s"}),
            "away": pillow("away"),
            "missing": pillow("copy1", "nowhere", source={"on_missing": "wait"}, verify={"every": "1s"}),
            "failed": pillow("copy2", "nowhere", source={"on_missing": "fail"}),
            "spoilt": pillow("copy3", transform={"python": "faults:spoil"}),
            "blocking": pillow("copy4", transform={"python": "faults:block"}),
            "crashing": pillow("bad"),
            "several": pillow("copy5", f"{couch_db.name}-*", source={"poll": "1s"}),
        },
        daemon={
            "http": {"listen": f"127.0.0.1:{free_port()}"},
            "admin": {
                "listen": f"unix:{tmp_path}/admin.sock",
                "tcp": {
                    "listen": f"127.0.0.1:{free_port()}",
                    "tls": {"cert": str(cert), "key": str(key)},
                    "tokens": [{"name": "ops", "sha256": sha256(b"t" * 40).hexdigest(), "scopes": ["read"]}],
                },
            },
            "plugins_path": [str(write_plugin(tmp_path))],
            "restart": {"initial": "100ms", "max": "200ms", "max_restarts": 1000},
        },
    )
    with built:
        yield built


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_every_alert_fires_at_its_fault(
    daemon: Pillowd, couch_db: CouchDatabase, recreated: CouchDatabase, tmp_path: Path
) -> None:
    couch_db.bulk({"_id": f"d{number}", "n": number} for number in range(300))
    shorter = shorten(RULES)
    expected = {alert for alert in list_alerts() if alert[0] not in APART}
    daemon.start()
    settings = scrape(daemon.settings["daemon"]["http"]["listen"], f"127.0.0.1:{free_port()}", seconds=1)
    fired: set[tuple[str, str]] = set()
    with ExitStack() as stack, ending_without_server():
        prometheus = stack.enter_context(Prometheus(settings, rules=shorter))
        checked = promtool("check", "config", prometheus.config)
        assert checked.returncode == 0, checked.stderr
        wait_until(lambda: daemon.state("differs") == "live", seconds=120)
        wait_until(lambda: daemon.status("several")["databases"] == {"parked": 1}, seconds=120)
        recreated.recreate()
        with sqlite3.connect(tmp_path / "copy0.sqlite") as target:
            target.execute("delete from rows where _id = 'd7'")
        numbers = count(300)
        broken: list[int] = []  # once: a comparison reads the configuration, too

        def is_complete() -> bool:
            number = next(numbers)
            if number % 20 == 0:
                couch_db.put(f"d{number}", {"n": number // 20, "late": True})
            fired.update(prometheus.firing())
            if ("PillowdDiverges", "critical") in fired and not broken:
                broken.append(daemon.config.write_text("version: 1\nnonsense: true\n"))
                daemon.signal(signal.SIGHUP)
            return fired >= expected

        wait_until(is_complete, seconds=300, explain=lambda: expected - fired)
    tell(fired)


def tell(fired: set[tuple[str, str]]) -> None:
    print(f"\nfired: {', '.join(sorted(f'{name} {severity}' for name, severity in fired))}")


@pytest.fixture
def other_daemon(
    tmp_path: Path, couch_server: Callable[..., CouchDB], tcp_proxy: Callable[[Any], TcpProxy]
) -> Iterator[tuple[Pillowd, CouchDB, TcpProxy]]:
    """Its state directory is on a disk of 64 MiB, and it reaches its CouchDB by a line that can be cut."""
    (tmp_path / "disk").mkdir()
    assert mount_small_disk(tmp_path / "disk"), "a small disk takes the right to mount"
    couch = couch_server()
    proxy = tcp_proxy(couch)
    pillows = {
        name: {
            "source": {"connection": "couch", "database": name},
            "transform": {"python": f"faults:{transform}"},
            "transport": [{"connection": name, "table": name}],
        }
        for name, transform in {"rewound": "replay", "blocking": "block_longer"}.items()
    }
    built = Pillowd(
        tmp_path,
        connections={
            "couch": couchdb(proxy.url, couch.auth),
            **{name: {"type": "sqlite", "path": str(tmp_path / f"{name}.sqlite")} for name in pillows},
        },
        pillows=pillows,
        daemon={
            "http": {"listen": f"127.0.0.1:{free_port()}"},
            "plugins_path": [str(write_plugin(tmp_path))],
            "state_dir": str(tmp_path / "disk" / "state"),
        },
    )
    with built:
        yield built, couch, proxy
    unmount(tmp_path / "disk")


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_a_rewind_a_full_disk_and_a_blocked_hub_fire(
    other_daemon: tuple[Pillowd, CouchDB, TcpProxy], tmp_path: Path
) -> None:
    daemon, couch, proxy = other_daemon
    rewound, blocking = (
        CouchDatabase(couch.url, name, auth=couch.auth).create() for name in ("rewound", "blocking")
    )
    for start in range(0, REPLAYED, 5_000):
        rewound.fill(5_000, start=start)
    daemon.start()
    address = daemon.settings["daemon"]["http"]["listen"]
    rules = shorten(RULES, minute_seconds=PATIENT_SCRAPE_SECONDS)
    fired: set[tuple[str, str]] = set()
    with ExitStack() as stack, ending_without_server():
        for database in (rewound, blocking):
            stack.callback(database.close)
        prometheus = stack.enter_context(
            Prometheus(scrape(address, seconds=PATIENT_SCRAPE_SECONDS), rules=rules)
        )
        daemon.wait_for(lambda: daemon.state("rewound") == "live", seconds=120)
        wait_until(lambda: prometheus.query("pillowd_rewinds_total > -1"))
        assert not {name for name, _ in prometheus.firing()} & {"PillowdRewound", "PillowdHubBlocked"}

        def fires(*names: str) -> bool:
            fired.update(prometheus.firing())
            return fired >= {alert for alert in list_alerts() if alert[0] in names}

        numbers = count()

        def blocks() -> bool:
            blocking.put(f"d{next(numbers)}", {})
            gevent.sleep(BLOCKED_SECONDS + 1)
            return fires("PillowdDiskLow", "PillowdHubBlocked")

        wait_until(blocks, seconds=180, explain=lambda: fired)
        assert "PillowdRewound" not in {name for name, _ in fired}
        assert ("PillowdDown", "critical") not in fired, "scrapes get through meanwhile"
        (tmp_path / "plugins" / "slow").touch()
        # Several: a single one was used up by a request that does not read on.
        couch.fail(does="rewind", path="/rewound/_changes", times=4)
        proxy.reset()
        wait_until(
            lambda: fires("PillowdRewound"),
            seconds=180,
            explain=lambda: fired,
        )
    tell(fired)
    with closing(sqlite3.connect(tmp_path / "rewound.sqlite")) as target:
        assert target.execute("select count(*) from rewound").fetchone() == (REPLAYED,)
