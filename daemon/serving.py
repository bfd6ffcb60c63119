"""Open the API of a running daemon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from checkpoints import TailKey
from daemon.assembly.tails import repair_documents
from daemon.config.dump import to_effective
from daemon.config_digests import digest_config
from daemon.control.api import ControlApi
from daemon.control.running import RunningDaemon
from daemon.http.listeners import Listener, Listeners
from daemon.http.problems import to_answer
from daemon.parts import Parts, Surroundings

if TYPE_CHECKING:
    from daemon.kafka.operators.shared_pillows import SharedPillows


def serve(stack: ExitStack, parts: Parts, around: Surroundings) -> None:
    """Serve the API on the listeners of the configuration.

    Args:
        stack: closes the listeners.
        parts: the daemon.
        around: its surroundings.

    Raises:
        StoreLocked: another process answers on the admin socket.
        ConfigError: the daemon cannot listen on a configured address.
    """
    opened: list[Listener] = []
    api = ControlApi(
        keys=parts.supervisor.keys,
        state=parts.state,
        clock=around.clock,
        daemon=_describe_daemon(parts, around, opened),
        repair=_make_repair(parts),
        explain=lambda error: to_answer(error, around.logs.redactor).body,
    )
    stack.callback(api.operations.close)
    parts.state.audit.close_unfinished()
    listeners = Listeners(api, around.clock, around.logs.redactor)
    if api.metrics is not None:
        from daemon.metrics.facts import collect_facts  # noqa: PLC0415  see `Observers.count`

        facts = collect_facts(
            lambda: api.snapshots.get().statuses,
            api.requests,
            parts.services.feeds,
            parts.reloader,
            parts.state,
            lambda: listeners.expiries,
        )
        api.metrics.attach(facts, parts.supervisor.keys)
    opened += stack.enter_context(listeners.open(parts.reloader.config.daemon))


def _make_repair(parts: Parts) -> Callable[[TailKey, Sequence[str]], None]:
    """Return the function that sends documents of a stopped tail again, or of one that daemons share."""
    if parts.services.engine is not None:
        from daemon.assembly.partitions import repair_shared  # noqa: PLC0415 - needs Kafka's client

        return lambda key, ids: repair_shared(parts.state.backfills, key, ids, parts.services.clock)
    return lambda key, ids: repair_documents(parts.reloader.config, parts.services, key, ids)


def _find_shared(parts: Parts, around: Surroundings) -> SharedPillows | None:
    if parts.services.engine is None:
        return None
    from daemon.kafka.operators.shared_pillows import SharedPillows  # noqa: PLC0415 - needs Kafka's client

    return SharedPillows(parts.services.engine, around.clock)


def _describe_daemon(parts: Parts, around: Surroundings, listeners: Sequence[Listener]) -> RunningDaemon:
    reloader = parts.reloader

    def list_transports(key: TailKey) -> list[str]:
        settings = reloader.config.tails.get(key.pillow)
        return [entry.name for entry in settings.transport] if settings is not None else []

    return RunningDaemon(
        supervisor=parts.supervisor,
        observers=parts.observers,
        reloader=reloader,
        logs=around.logs,
        verification=parts.verification,
        rebuilder=parts.rebuilder,
        listeners=listeners,
        list_transports=list_transports,
        digest_config=lambda: digest_config(reloader.config),
        dump_config=lambda: to_effective(reloader.config),
        shared=_find_shared(parts, around),
    )
