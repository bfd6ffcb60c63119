"""The page of all events of the log: names, levels, loggers and fields from the code, meanings from here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import daemon

#: Of the packages, wherever this page is made.
ROOT = Path(daemon.__file__).parents[1]
_LEVELS = ("debug", "info", "warning", "error", "critical")
#: Hooks of observers that take the event as an argument -> the level at which they log.
_HOOKS = {"warning": "warning", "notice": "info"}


@dataclass(frozen=True, slots=True, order=True)
class LogEvent:
    """One event.

    Attributes:
        name: what `event` has in the log.
        logger: without `pillowd.`.
        level: the lowest level at which it is logged.
        fields: names of its other fields.
    """

    name: str
    logger: str
    level: str
    fields: tuple[str, ...]


def find_events(packages: Path) -> list[LogEvent]:
    """Return all events that the code can log, sorted by name."""
    found: dict[str, LogEvent] = {}
    for package in ("pillows", "daemon"):
        for path in sorted((packages / package).rglob("*.py")):
            for event in _events(ast.parse(path.read_text(encoding="utf-8"))):
                found.setdefault(event.name, event)
    return sorted(found.values())


def _events(module: ast.Module) -> Iterator[LogEvent]:
    logger = next(
        (
            node.args[0].value.removeprefix("pillowd.")
            for node in ast.walk(module)
            if isinstance(node, ast.Call)
            and _name(node.func) == "get_logger"
            and node.args
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, str)
        ),
        "pillow",
    )
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            yield from _called(node, logger)


def _called(call: ast.Call, logger: str) -> Iterator[LogEvent]:
    """Yield the events that a call logs."""
    method = _name(call.func)
    keywords = {each.arg: each.value for each in call.keywords if each.arg}
    if "event" in keywords and method in _HOOKS:
        details = keywords.get("details")
        keys = details.keys if isinstance(details, ast.Dict) else []
        fields = ("pillow", *(name for key in keys for name in _texts(key)))
        for name in _texts(keywords["event"]):
            yield LogEvent(name, "pillow", _HOOKS[method], fields)
    elif call.args and _is_log(call.func) and (method in _LEVELS or method == "write"):
        for name in _texts(call.args[0]):
            yield LogEvent(name, logger, method if method != "write" else "info", tuple(keywords))


def _is_log(function: ast.expr) -> bool:
    """Return whether this is `_log.METHOD`, or a variable `write` that has one."""
    if isinstance(function, ast.Attribute):
        return _name(function.value) in {"_log", "log"}
    return isinstance(function, ast.Name) and function.id == "write"


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _texts(value: ast.expr | None) -> list[str]:
    """Return the texts that an expression can have, as far as the code shows them."""
    if isinstance(value, ast.IfExp):
        return _texts(value.body) + _texts(value.orelse)
    return [value.value] if isinstance(value, ast.Constant) and isinstance(value.value, str) else []


#: Event -> what it means to an operator.
MEANINGS = {
    "audit.not_written": "The audit log cannot be written, so the act was refused.",
    "audit.unfinished": "The daemon ended during an act; whether it was done is unknown.",
    "batch.written": "Every transport has acknowledged a batch.",
    "changes.taken": "Changes went through filter and transform.",
    "checkpoint.edited": "An operator changed a checkpoint.",
    "checkpoint.not_copied": "The target keeps a copy of the checkpoint, and it could not be renewed.",
    "checkpoint.not_saved": "A checkpoint could not be saved; it is tried again.",
    "checkpoint.saved": "A checkpoint was saved.",
    "config.needs_restart": "A changed key takes effect at the next start of the daemon only.",
    "config.problem": "A mistake in the configuration.",
    "config.refused": "A reload changed nothing, since the configuration has mistakes.",
    "config.reloaded": "A changed configuration is in force.",
    "config.warning": "Something in the configuration is probably not meant so.",
    "control.not_applied": "What operators have asked for could not be applied here; it is tried again.",
    "control.not_read": "A record of the topic `control` that no pillowd has written is left out.",
    "daemon.started": "The pillows are started.",
    "daemon.stopped": "The daemon has ended; `cut` counts pillows that could not finish in time.",
    "daemon.stopping": "The daemon was asked to end, and finishes what is in flight.",
    "dead_letter.added": "A document could not be written, and is kept as a dead letter.",
    "dead_letter.discarded": "An operator discarded dead letters.",
    "dead_letter.retried": "An operator asked to try dead letters again.",
    "http.certificate_expires": "The certificate of the TCP listener expires within 14 days.",
    "http.certificate_refused": "A renewed certificate cannot be used; the former one is.",
    "http.not_listening": "An address of the HTTP API cannot be used.",
    "hub.blocked": "Something kept all pillows waiting; the traceback shows what.",
    "kafka.copies": "The loss of one broker may lose what the cluster has acknowledged.",
    "kafka.waiting": "No broker answers, so the daemon waits with everything.",
    "offset.not_noted": "That a partition has an offset could not be noted; the next checkpoint tries again.",
    "operator.act": "An operator's act begins.",
    "operator.act_ended": "An operator's act has ended.",
    "operator.requested": "An operator asked for a pause, resume or restart.",
    "output.changed": "An output was changed in place: the configuration was, or a first pass was given up.",
    "partitions.assigned": "Partitions of a pillow were assigned to this daemon, and their tails begin.",
    "partitions.lost": "Partitions of a pillow belong to another daemon already; their tails were cut.",
    "partitions.revoked": "Partitions were drained and given back; `cut` names the tails that were too slow.",
    "pass.completed": "A pass is complete: the target has the source's documents, and no others.",
    "pillow.crashed": "A defect ended a pillow; it is started again. Please report it.",
    "pillow.killed": "A pillow that did not end in time was ended by force.",
    "pillow.moved": "The checkpoint of a pillow was moved by somebody else, so it starts again from there.",
    "pillow.removed": "A pillow is no longer configured.",
    "pillow.state": "A pillow changed its state; of level error if it is `failed`.",
    "pillow.status_unknown": "A pillow does not say how it is.",
    "pillow.stop_failed": "A pillow could not be stopped in good order.",
    "pillow.verified": "A comparison has ended; of level warning if source and target differ.",
    "purges.compared": "CouchDB no longer lists all purges, so the targets were compared with the source.",
    "readers.crashed": "A defect ended the readers of databases; they are started again. Please report it.",
    "readers.failed": "Another daemon runs with the same state directory, so this one reads no database.",
    "readers.retry": "The readers of databases have lost the brokers, and start again after the delay.",
    "rebuild.dropped": "The outputs of a build that is not live were removed.",
    "rebuild.ready": "A build is complete, and nothing differs from the source.",
    "rebuild.refused": "A rebuild, or its switch, was refused; nothing has changed.",
    "rebuild.started": "A rebuild begins.",
    "rebuild.step_failed": "A step of a rebuild failed, and is tried again.",
    "rebuild.switched": "Another build is live.",
    "rebuild.waits": "A switch waits for a target, and is tried again.",
    "request.crashed": "A request met a defect of pillowd. Please report it.",
    "reset.not_committed": "A partition could not take an operator's reset yet; it is tried again.",
    "retry": "A request failed, and is tried again after the delay.",
    "source.rewound": "The source went back, so changes come again.",
    "status.not_read": "A status that another daemon has told is not understood, and counts as not told.",
    "status.not_told": "The other daemons of the service could not be told how the pillows are.",
    "tail.resumed": "A tail goes on from its checkpoint.",
    "tail.started": "A tail has no checkpoint, and reads from the beginning.",
    "topic.not_followed": "What other daemons of the service tell could not be read; it is tried again.",
    "transform.slow": "A transform took so long that other pillows had to wait.",
    "transports.diverged": "The targets of a pillow answered differently about a document.",
    "verify.completed": "A scheduled comparison has ended.",
    "verify.failed": "A scheduled comparison could not be done.",
    "verify.not_kept": "The result of a comparison could not be stored.",
    "verify.repair": "A repair writes documents again.",
    "worker.ended": "A worker process ended, and is replaced.",
    "workers.refused": "The worker processes cannot be used.",
    "workers.running": "So many worker processes run.",
}


def make_page() -> str:
    """Return the page."""
    lines = [
        "# Log events",
        "",
        "Each line of the log is a JSON object with `event`, `level`, `time`, and the fields below. Where",
        "the level depends on the outcome, the lowest one is listed. `pillowd log-level` shows the loggers,",
        "and logs more for a while: `pillowd log-level pillowd.pillow debug --for 10m`. Repetitions of an",
        "event are counted in `repeated`.",
        "",
        "| event | | level | logger | fields |",
        "|---|---|---|---|---|",
    ]
    for event in find_events(ROOT):
        fields = ", ".join(f"`{name}`" for name in event.fields)
        meaning = MEANINGS.get(event.name, "")
        lines.append(f"| `{event.name}` | {meaning} | {event.level} | `pillowd.{event.logger}` | {fields} |")
    return "\n".join([*lines, ""])
