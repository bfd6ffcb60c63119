"""Kafka: one real broker from its published jars, which is its own controller (KRaft)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers.maven import copy_jars, find_java_home, java_command, pinned_version
from tests.servers.packages import cached, run, say
from tests.servers.process import Server, free_port

SOURCE = Path(__file__).parent / "kafka"
HEAP = "256m"
CLUSTER_ID = "AAAAAAAAAAAAAAAAAAAAAQ"
#: One broker keeps every copy, and starts its consumer groups at once.
ALONE = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "CLIENTS",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
    "log.cleaner.dedupe.buffer.size": "2097152",
}


def version() -> str:
    """Returns the version that `pom.xml` asks for."""
    return pinned_version(SOURCE, "kafka")


def _install(folder: Path) -> None:
    say(f"installing Kafka {version()} (about 60 MB, by Maven)")
    copy_jars(SOURCE, folder / "lib")


class Kafka(Server):
    """A Kafka broker.

    Args:
        data_dir: where its data lives; a temporary directory of its own if None.
        port: where it listens for clients; a free port if None.
        protocol: of its clients: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
        advertised: the port that clients are told to use, such as a proxy's; its own if None.
        settings: broker settings, e.g. ``{"num.partitions": "3"}``.
        controller_port: where it listens for other controllers; a free port if None.
    """

    name = "kafka"

    def __init__(
        self,
        *,
        data_dir: Path | None = None,
        port: int | None = None,
        protocol: str = "PLAINTEXT",
        advertised: int | None = None,
        settings: Mapping[str, str] | None = None,
        controller_port: int | None = None,
    ) -> None:
        super().__init__(data_dir=data_dir, port=port)
        self._controller_port = controller_port or free_port()
        self._protocol = protocol
        self.advertised = advertised
        self._settings = dict(settings or {})

    @classmethod
    def home(cls) -> Path:
        """Returns the folder of the broker's jars, installed once per version."""
        return cached(f"kafka-{version()}", _install)

    @classmethod
    def install(cls) -> None:
        """Finds Java and installs the broker."""
        find_java_home()
        cls.home()

    @property
    def where(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Writes the settings, and formats the data once."""
        controller = f"127.0.0.1:{self._controller_port}"
        settings = {
            **ALONE,
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"CLIENTS://{self.where},CONTROLLER://{controller}",
            "advertised.listeners": f"CLIENTS://127.0.0.1:{self.advertised or self.port}",
            "listener.security.protocol.map": f"CONTROLLER:PLAINTEXT,CLIENTS:{self._protocol}",
            "log.dirs": str(self.data_dir / "logs"),
            **self._settings,
        }
        self._config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        if not (self.data_dir / "logs" / "meta.properties").exists():
            tool = ["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(self._config)]
            run([*self._java(), *tool])

    def command(self) -> Sequence[str | Path]:
        """Returns Java's command line."""
        return [*self._java(), "kafka.Kafka", str(self._config)]

    def answers(self) -> bool:
        """Asks which requests it takes: it says so once it serves clients."""
        if self._protocol != "PLAINTEXT":
            with socket.create_connection(self.address, timeout=5):
                return True
        ask = struct.pack(">hhih4s", 18, 0, 1, 4, b"test")
        with socket.create_connection(self.address, timeout=5) as connection:
            connection.sendall(struct.pack(">i", len(ask)) + ask)
            return len(connection.recv(4)) == 4

    @property
    def _config(self) -> Path:
        return self.data_dir / "server.properties"

    def _java(self) -> list[str | Path]:
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return [*java_command(HEAP), quiet, "-cp", str(self.home() / "lib" / "*")]


def make_brokers(count: int = 3) -> list[Kafka]:
    """Returns the brokers of one cluster, to be started at the same time: one alone never answers.

    Each record has as many copies as there are brokers, and is acknowledged by all but one.
    """
    ports = [free_port() for _ in range(count)]
    copies, needed = str(count), str(count - 1)
    settings = {
        "controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{port}" for n, port in enumerate(ports, 1)),
        "default.replication.factor": copies,
        "min.insync.replicas": needed,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": needed,
    }
    return [
        Kafka(controller_port=port, settings={**settings, "node.id": str(number)})
        for number, port in enumerate(ports, 1)
    ]
