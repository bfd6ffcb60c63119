"""Build the parts of a running daemon, in order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event
from msgspec import Struct
from msgspec.structs import replace

from daemon.assembly.services import Services
from daemon.assembly.tails import build_tails
from daemon.config.models import Config
from daemon.logs.setup import Logs
from daemon.observers import Observers
from daemon.process.systemd import Notifier
from daemon.rebuilds.rebuilder import Rebuilder
from daemon.reload.candidate import InEffect
from daemon.reload.reloader import Reloader
from daemon.reload.source import ConfigSource
from daemon.state_dir import StateDir
from daemon.supervision.supervisor import Supervisor
from daemon.verification.command import VerifyCommand
from daemon.verification.runner import VerifyRunner
from pillows.clock import Clock
from pillows.feed.shared.pool import FeedPool

if TYPE_CHECKING:  # few daemons need Kafka's client
    from daemon.kafka.engine import Engine


class Surroundings(Struct, frozen=True, kw_only=True):
    """The parts of the process that the daemon uses.

    Attributes:
        clock: for every duration and wait.
        logs: the log, and the secrets that it masks.
        notifier: reports the state to the service manager.
        stop: set when the daemon should end.
    """

    clock: Clock
    logs: Logs
    notifier: Notifier
    stop: Event


class Parts(Struct, frozen=True, kw_only=True):
    """The parts of a running daemon.

    Attributes:
        state: the open state directory.
        observers: watch the tails.
        services: what the tails share.
        supervisor: runs the tails.
        reloader: has the configuration in effect, and applies a changed one.
        verification: compares targets with their sources; None if the configuration is not in a file.
        rebuilder: takes the steps of rebuilds; None without `verification`.
    """

    state: StateDir
    observers: Observers
    services: Services
    supervisor: Supervisor
    reloader: Reloader
    verification: VerifyRunner | None
    rebuilder: Rebuilder | None


def open_parts(
    stack: ExitStack, state: StateDir, config: Config, source: ConfigSource, around: Surroundings
) -> Parts:
    """Put a daemon together; nothing runs yet.

    Args:
        stack: closes what is opened.
        state: the open state directory.
        config: a valid configuration.
        source: where it was read from.
        around: the surroundings.

    Raises:
        ConfigError: a Python path of the configuration cannot be imported.
    """
    observers = Observers(around.clock)
    if config.daemon.listens:
        observers.count(stack, config.daemon.state_dir)
    services = _open_services(stack, state, observers, around.clock)
    if config.coordination.type == "kafka":
        from daemon.kafka.engine import open_engine  # noqa: PLC0415 - needs Kafka's client

        services = replace(services, engine=open_engine(stack, config, state, around.clock), backfills=None)
    config = source.add_builds(config)
    in_effect = InEffect.of(config, source.list_keys(config))
    supervisor = Supervisor(
        build_tails(config, services, list(in_effect.parts)),
        clock=around.clock,
        observer=services.observer,
        pauses=state.pauses,
        policy=config.daemon.restart,
        stop_timeout_seconds=config.daemon.shutdown_timeout,
    )
    reloader = Reloader(
        source,
        in_effect,
        supervisor=supervisor,
        services=services,
        logs=around.logs,
        notifier=around.notifier,
        audit=state.audit,
        stop=around.stop,
    )
    verification = rebuilder = None
    if services.engine is not None:
        services.engine.follow_pauses(supervisor, state.pauses)
        _take_backfills(stack, state, services, supervisor, lambda: reloader.config)
        _open_readers(stack, services, services.engine, lambda: reloader.config)
    elif source.path is not None:
        verification = VerifyRunner(
            VerifyCommand(source.path, source.environ).run,
            get_config=lambda: reloader.config,
            find_drift=reloader.find_drift,
            supervisor=supervisor,
            comparisons=state.comparisons,
            observer=services.observer,
            clock=around.clock,
        )
        stack.callback(verification.close)
        rebuilder = Rebuilder(
            state,
            reloader,
            supervisor=supervisor,
            verification=verification,
            clock=around.clock,
            stop=around.stop,
        )
        stack.callback(rebuilder.close)
    return Parts(
        state=state,
        observers=observers,
        services=services,
        supervisor=supervisor,
        reloader=reloader,
        verification=verification,
        rebuilder=rebuilder,
    )


def _take_backfills(
    stack: ExitStack,
    state: StateDir,
    services: Services,
    supervisor: Supervisor,
    get_config: Callable[[], Config],
) -> None:
    """Run the backfills of pillows that several daemons share, until the stack is closed."""
    from daemon.assembly.partitions import run_shared_backfills  # noqa: PLC0415 - needs Kafka's client

    stack.callback(state.backfills.close)
    state.backfills.take_over(
        lambda key: run_shared_backfills(get_config(), services, key, state.backfills), supervisor.keys
    )


def _open_readers(
    stack: ExitStack, services: Services, engine: Engine, get_config: Callable[[], Config]
) -> None:
    """Read the databases of this daemon's units, until the stack is closed."""
    from daemon.assembly.readers import build_reader, find_databases  # noqa: PLC0415 - needs Kafka's client
    from daemon.kafka.readers import Readers  # noqa: PLC0415  see above

    readers = Readers(
        lambda: find_databases(get_config()),
        lambda key, database: build_reader(key, database, engine, services),
        engine.make_reader,
        engine.statuses.tell,
        clock=services.clock,
        observer=services.observer,
    )
    stop = Event()
    stack.callback(gevent.spawn(readers.run, stop).join)
    stack.callback(stop.set)


def _open_services(stack: ExitStack, state: StateDir, observers: Observers, clock: Clock) -> Services:
    observer = observers.join()
    return Services(
        store=state.store,
        dead_letters=state.dead_letters,
        clock=clock,
        observer=observer,
        backfills=state.backfills,
        feeds=stack.enter_context(closing(FeedPool(clock=clock, observer=observer))),
        is_paused=state.pauses.__contains__,
    )
