"""Open the API of a running daemon."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from checkpoints import TailKey
from daemon.assembly.tails import repair_documents
from daemon.config.dump import to_effective
from daemon.config_digests import digest_config
from daemon.control.api import ControlApi
from daemon.control.details import Details
from daemon.http.listeners import Listeners
from daemon.http.problems import to_answer
from daemon.parts import Parts, Surroundings
from daemon.streams.senders import EventSource


def serve(stack: ExitStack, parts: Parts, around: Surroundings) -> None:
    """Serve the API on the listeners of the configuration.

    Args:
        stack: closes the listeners.
        parts: the daemon.
        around: its surroundings.

    Raises:
        StoreLocked: another process answers on the admin socket.
        ConfigError: a configured address cannot be listened on.
    """
    api = _make_api(parts, around)
    stack.callback(api.operations.close)
    parts.state.audit.close_unfinished()
    if parts.observers.metrics is not None:
        from daemon.metrics.facts import collect_facts  # noqa: PLC0415  see `Observers.count`

        facts = collect_facts(api, parts.services.feeds, parts.reloader)
        parts.observers.metrics.attach(facts, parts.supervisor.keys)
        api.metrics = parts.observers.metrics
    listeners = Listeners(api, around.clock, around.logs.redactor)
    api.pillows.listeners = stack.enter_context(listeners.open(parts.reloader.config.daemon))


def _make_api(parts: Parts, around: Surroundings) -> ControlApi:
    reloader, services, observers = parts.reloader, parts.services, parts.observers
    api = ControlApi(
        keys=parts.supervisor.keys,
        state=parts.state,
        clock=around.clock,
        supervisor=parts.supervisor,
        repair=lambda key, ids: repair_documents(reloader.config, services, key, ids),
        explain=lambda error: to_answer(error, around.logs.redactor).body,
    )
    api.repair.hold_reloads = reloader.hold_off
    details = Details(api.pillows.to_json, observers.history, observers.transports, _transport_names(parts))
    api.pillows.to_details = details.to_json
    api.events = EventSource(api.snapshots.get, details.of, observers.events, around.clock)
    api.taps = observers.taps
    api.reloader, api.logs, api.verification = reloader, around.logs, parts.verification
    api.get_config_digest = lambda: digest_config(reloader.config)
    api.effective_config = lambda: to_effective(reloader.config)
    return api


def _transport_names(parts: Parts) -> Callable[[TailKey], list[str]]:
    """Return the function that names the transports of a tail, by the configuration in effect."""

    def list_names(key: TailKey) -> list[str]:
        settings = parts.reloader.config.tails.get(key.pillow)
        return [entry.name for entry in settings.transport] if settings is not None else []

    return list_names
