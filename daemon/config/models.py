"""The settings of a configuration: every key, its type, default and meaning.

Settings are declared beside the code that uses them (feed, batcher, checkpointer, dead letters, each
transport); only the daemon's own are declared here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, SerializeAsAny, model_validator

from daemon.config.listeners import AdminOptions, HttpOptions
from daemon.config.load_options import LoadOptions
from daemon.config.pipeline import (
    AttachmentOptions,
    CaseOptions,
    FilterOptions,
    FunctionOptions,
    StepOptions,
    Steps,
    TriggerOptions,
)
from daemon.config.problems import ConfigProblem, KeyPath, Place
from daemon.config.yaml.nodes import Node
from pillows.dead_letters.dead_letter import ErrorOptions
from pillows.delivery.batcher import BatchOptions
from pillows.feed.brake import HoursOfDay
from pillows.feed.options import SourceOptions
from pillows.options import Duration, Options, OutputOptions
from pillows.progress.checkpointer import CheckpointOptions

#: Pattern of the names of pillows, connections, transports and outputs, which become keys and file names.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"

#: Partitions of a database's changes unless given: divisible among 2, 3, 4 and 6 daemons.
DEFAULT_PARTITIONS = 12


class RestartOptions(Options):
    """The restarts of a crashed or stuck pillow; other pillows keep running.

    Attributes:
        initial: wait before the first restart; it doubles with every further restart, with jitter.
        max: longest wait.
        max_restarts: most restarts in the period `within`; one more makes the pillow `failed`.
        within: the period in which restarts are counted.
    """

    initial: Duration = Field(default=1.0, gt=0)
    max: Duration = Field(default=300.0, gt=0)
    max_restarts: int = Field(default=10, ge=0)
    within: Duration = Field(default=600.0, gt=0)

    @model_validator(mode="after")
    def _check_max(self) -> Self:
        if self.max < self.initial:
            raise ValueError("`max` is shorter than `initial`; make it at least as long")
        return self


class DaemonOptions(Options):
    """The daemon process.

    Attributes:
        state_dir: folder of checkpoints and dead letters; only one daemon can use it at a time.
        shutdown_timeout: longest time to drain when the daemon stops; then pillows are killed.
        plugins_path: folders to import `python:` functions from.
        http: see `HttpOptions`.
        admin: see `AdminOptions`.
        restart: see `RestartOptions`.
    """

    state_dir: Path = Path("/var/lib/pillowd")
    shutdown_timeout: Duration = Field(default=30.0, gt=0)
    plugins_path: tuple[Path, ...] = ()
    http: HttpOptions = HttpOptions()
    admin: AdminOptions = AdminOptions()
    restart: RestartOptions = RestartOptions()

    @property
    def listens(self) -> bool:
        """Whether any listener is configured."""
        return bool(self.http.listen or self.admin.listen or self.admin.tcp)


class LoggingOptions(Options):
    """The log, on standard error.

    Attributes:
        format: `json` for machines, `console` for people.
        level: lowest level that is written.
    """

    format: Literal["json", "console"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"


class TransportConfig(Options):
    """One target of a pillow.

    Attributes:
        name: unique in the pillow; by default the connection's name.
        connection: name of the connection.
        timeout: longest write of one batch; a write that takes longer is abandoned and retried.
        own_pace: run as a separate pillow, `pillow.name`, with its own checkpoint, so that it may fall
            behind the other transports.
        outputs: output name -> settings of the transport's `Output` model.
    """

    NOT_SHAPING: ClassVar[frozenset[str]] = frozenset({"timeout"})

    name: str = Field(pattern=NAME)
    connection: str
    timeout: Duration = Field(default=600.0, gt=0)
    own_pace: bool = False
    outputs: Mapping[str, SerializeAsAny[OutputOptions]]


class VerifyOptions(Options):
    """Compare the targets with the source on a schedule, as `pillowd verify` does.

    Attributes:
        every: time between two comparisons; null for none.
        hours: local times of day in which one may begin, such as `01:00-05:00`; always by default.
        repair: send differing documents through the pipeline again. The pillow stops meanwhile.
    """

    every: Annotated[Duration, Field(gt=0)] | None = None
    hours: HoursOfDay | None = None
    repair: bool = False


class NextOptions(Options):
    """The next definition of a pillow, for `pillowd rebuild`. Keys that are left out stay as they are.

    Attributes:
        filter, trigger, transform, attachments: as in the pillow; null for none.
        transport: as in the pillow, with the same transports and names: the new outputs get these names at
            the switch.
    """

    filter: FilterOptions | None = None
    trigger: TriggerOptions | None = None
    transform: Steps | None = None
    attachments: AttachmentOptions = AttachmentOptions()
    transport: tuple[TransportConfig, ...] = ()


class PillowConfig(Options):
    """One pillow.

    Attributes:
        enabled: whether the pillow runs.
        source: the database that it reads.
        outputs: names of its outputs; a transport without `outputs` writes the first. By default one output
            with the pillow's name.
        filter: chooses the documents; all by default.
        trigger: takes the document out of a change; by default the document that the change is about.
        transform: makes rows from a document; by default the document itself. One step, or a list.
        attachments: see `AttachmentOptions`.
        transport: the targets of the rows.
        load: see `LoadOptions`.
        isolate: always filter and transform in a worker process, at the head of the feed too, so that a
            function that blocks, leaks or crashes stops no other pillow.
        batch: see `BatchOptions`.
        errors: see `ErrorOptions`.
        verify: see `VerifyOptions`.
        rebuild: what happens if the definition has changed: `ask` leaves it to `pillowd rebuild`; `auto`
            fills new outputs beside the old ones, at the next start or reload, and switches to them.
        next: the definition that a rebuild builds; see `NextOptions`.
        tests: documents and their expected rows, for `pillowd check`; see `CaseOptions`.
    """

    enabled: bool = True
    source: SourceOptions
    outputs: tuple[Annotated[str, Field(pattern=NAME)], ...] = ()
    filter: FilterOptions | None = None
    trigger: TriggerOptions | None = None
    transform: Steps | None = None
    attachments: AttachmentOptions = AttachmentOptions()
    transport: tuple[TransportConfig, ...]
    load: LoadOptions = LoadOptions()
    isolate: bool = False
    batch: BatchOptions = BatchOptions()
    errors: ErrorOptions = ErrorOptions()
    verify: VerifyOptions = VerifyOptions()
    rebuild: Literal["ask", "auto"] = "ask"
    next: NextOptions | None = None
    tests: tuple[CaseOptions, ...] = ()

    @property
    def definitions(self) -> tuple[PillowConfig, ...]:
        """The pillow as it is defined, and as it is defined next, if it is."""
        if self.next is None:
            return (self,)
        changed = {name: getattr(self.next, name) for name in self.next.model_fields_set}
        return self, self.model_copy(update=changed | {"next": None})

    @property
    def transports(self) -> list[tuple[KeyPath, TransportConfig]]:
        """The transports that are written, those of the next definition too, each with its key path."""
        coming = self.next.transport if self.next is not None else ()
        found = ((("transport",), self.transport), (("next", "transport"), coming))
        return [((*at, index), entry) for at, entries in found for index, entry in enumerate(entries)]

    @property
    def functions(self) -> list[tuple[KeyPath, FunctionOptions]]:
        """The parts that call a function, each with its key path, in the order of the pipeline."""
        found: list[tuple[KeyPath, FunctionOptions]] = []
        if self.filter is not None and self.filter.jmespath is None:
            found.append((("filter",), self.filter))
        if self.trigger is not None:
            found.append((("trigger",), self.trigger))
        for index, step in enumerate(self.steps):
            if step.is_python:
                is_list = isinstance(self.transform, tuple)
                found.append((("transform", index) if is_list else ("transform",), step))
        return found

    @property
    def steps(self) -> tuple[StepOptions, ...]:
        """The transform's steps."""
        if self.transform is None:
            return ()
        return self.transform if isinstance(self.transform, tuple) else (self.transform,)


class CoordinationOptions(Options):
    """Which daemons run the pillows.

    Attributes:
        type: `none`: this daemon alone; `postgres`: of several daemons the one that holds a lease in
            PostgreSQL, where the state of the service lies, too; `kafka`: all of them, each a part of the
            documents.
        connection: a connection of that type, for the lease or the changes, and for the state.
        service: the name that the daemons have in common.
        partitions: with `kafka`: number of parts into which the documents of a database are divided. At most
            this many daemons share a pillow. It may be raised later.
    """

    type: Literal["none", "postgres", "kafka"] = "none"
    connection: str | None = None
    service: Annotated[str, Field(pattern=NAME)] | None = None
    partitions: int | None = Field(default=None, ge=1, le=1000)

    @model_validator(mode="after")
    def _check_complete(self) -> Self:
        if self.type == "none" and (self.connection or self.service):
            raise ValueError("has a `connection` or `service` without a `type`; write `type: postgres`")
        if self.type != "kafka" and self.partitions is not None:
            raise ValueError("has `partitions`, which needs `type: kafka`; remove it")
        if self.type != "none" and not (self.connection and self.service):
            raise ValueError("is incomplete; give `connection` and `service`")
        return self

    @property
    def number_of_partitions(self) -> int:
        """The partitions of each database, with `kafka`."""
        return self.partitions or DEFAULT_PARTITIONS


class ConnectionConfig(Options):
    """One server, file or folder that is read from or written to.

    Attributes:
        type: `couchdb`, or the type of another transport.
        options: settings of that type's `Connection` model.
    """

    type: str
    options: SerializeAsAny[Options]


def _check_version(version: object) -> object:
    if version in (1, "1"):
        return 1
    raise ValueError("is not a version that this pillowd reads; write `version: 1`")


class Config(Options):
    """A whole, valid configuration.

    Attributes:
        version: version of this format.
        include: globs of files with more connections and pillows, relative to this file. Loading merges
            them and leaves this empty.
        daemon: see `DaemonOptions`.
        logging: see `LoggingOptions`.
        checkpoints: see `CheckpointOptions`.
        coordination: see `CoordinationOptions`.
        connections: servers, files and folders by name.
        pillows: pillows by name.
    """

    version: Annotated[Literal[1], BeforeValidator(_check_version)]
    include: tuple[str, ...] = ()
    daemon: DaemonOptions = DaemonOptions()
    logging: LoggingOptions = LoggingOptions()
    checkpoints: CheckpointOptions = CheckpointOptions()
    coordination: CoordinationOptions = CoordinationOptions()
    connections: Mapping[str, ConnectionConfig] = {}
    pillows: Mapping[str, PillowConfig] = {}

    _tails: Mapping[str, PillowConfig] | None = PrivateAttr(default=None)
    _root: Node = PrivateAttr(default=Node(value={}, place=Place(file="")))
    _warnings: tuple[ConfigProblem, ...] = PrivateAttr(default=())

    @property
    def root(self) -> Node:
        """The tree that was written, merged from all files."""
        return self._root

    @property
    def warnings(self) -> tuple[ConfigProblem, ...]:
        """The problems that do not keep the configuration from working."""
        return self._warnings

    @cached_property
    def tails(self) -> Mapping[str, PillowConfig]:
        """The pillows as they run: a transport with `own_pace` is a separate pillow, `pillow.transport`.

        With builds that are not live, each as a pillow of its own; see `daemon.rebuilds.definitions`.
        """
        if self._tails is not None:
            return self._tails
        found: dict[str, PillowConfig] = {}
        for name, pillow in self.pillows.items():
            found |= split_by_pace(name, pillow)
        return found

    def with_tails(self, tails: Mapping[str, PillowConfig]) -> Self:
        """Return the same configuration, of which these pillows run."""
        copy = self.model_copy()
        copy.__dict__.pop("tails", None)
        copy._tails = tails  # noqa: SLF001 - an own copy of this class
        return copy

    def with_origin(self, root: Node, warnings: tuple[ConfigProblem, ...]) -> Self:
        """Return the same configuration with the tree it was made from."""
        copy = self.model_copy()
        copy._root, copy._warnings = root, warnings  # noqa: SLF001 - an own copy of this class
        return copy

    def problem(self, path: KeyPath, message: str, remedy: str) -> ConfigProblem:
        """Return a problem at the place of `path`, or of the nearest thing above it that was written."""
        written = (self._root.find(path[:depth]) for depth in range(len(path), -1, -1))
        node = next(filter(None, written), self._root)
        return ConfigProblem(place=node.shown_at, path=path, message=message, remedy=remedy)


def split_by_pace(name: str, pillow: PillowConfig) -> dict[str, PillowConfig]:
    """Return a pillow as it runs: each transport with `own_pace` apart."""
    apart = [entry for entry in pillow.transport if entry.own_pace]
    together = tuple(entry for entry in pillow.transport if not entry.own_pace)
    found = {name: pillow.model_copy(update={"transport": together}) if apart else pillow}
    for entry in apart:
        found[f"{name}.{entry.name}"] = pillow.model_copy(update={"transport": (entry,)})
    return found
