"""Set up the log: events as JSON lines, or for people, on standard error.

Events are named `noun.verb` and never hold documents or secrets. A repeated warning or error is
written once in ten seconds, with the number of repetitions. A thread writes them: a reader that does
not read stops no pillow.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO

import gevent
import structlog

from daemon.logs.background_stream import DRAIN_SECONDS, BackgroundStream
from daemon.logs.levels import DEFAULT_SECONDS, LEVELS, ROOT, LoggerLevel, LogLevels
from pillows.clock import Clock
from pillows.redaction import Redactor
from pillows.user_code import describe_error, describe_greenlet

#: How long a repeated warning or error is held back.
REPEAT_SECONDS = 10.0
#: Two events with the same name and these fields are repetitions.
_SAME = ("pillow", "where", "transport", "logger", "code")
#: Fields that hold nothing but our own words, and names that the operator gave.
_OURS = frozenset({"event", "pillow", "transport", "where", "how", "what", "state"})
_LIMITED = frozenset({"warning", "error", "critical"})

Event = MutableMapping[str, Any]


class RepeatLimit:
    """A processor that drops and counts repeated warnings and errors.

    Args:
        clock: measures the time since the first one.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[tuple[object, ...], tuple[float, list[dict[str, Any]]]] = {}

    def __call__(self, _logger: object, method: str, event: Event) -> Event:
        """Pass the first event of its kind; raise DropEvent for its repetitions."""
        if method not in _LIMITED or "repeated" in event:
            return event
        kind = (event.get("event"), *(event.get(name) for name in _SAME))
        now = self._clock.monotonic()
        until, held = self._held.get(kind, (now, []))
        if now < until:
            held[:] = [{**event, "repeated": (held[0]["repeated"] if held else 0) + 1, "level": method}]
            raise structlog.DropEvent
        self._held[kind] = (now + REPEAT_SECONDS, [])
        return {**event, **({"repeated": held[0]["repeated"]} if held else {})}

    def due(self) -> Iterator[dict[str, Any]]:
        """Return the summaries that are due: the last dropped event of each kind, with its count."""
        now = self._clock.monotonic()
        for kind in [kind for kind, (until, _) in self._held.items() if until <= now]:
            yield from self._held.pop(kind)[1]


class LineWriter:
    """Writes each event as one line.

    Args:
        stream: the stream.
        name: the logger that writes them.
    """

    def __init__(self, stream: BackgroundStream, name: str = ROOT) -> None:
        self._stream = stream
        self.name = name

    def msg(self, line: str) -> None:
        """Write one line."""
        self._stream.write(line + "\n")

    debug = info = warning = error = critical = log = msg


class _Routed(logging.Handler):
    """Passes the log records of libraries to structlog.

    structlog's `ProcessorFormatter` would need a second way to the stream, without `LineWriter`.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record as an event `library.<level>`."""
        level = record.levelname.lower() if record.levelname.lower() in LEVELS else "error"
        try:
            write = getattr(structlog.get_logger(), level)
            write(f"library.{level}", logger=record.name, message=record.getMessage())
        except Exception:  # noqa: BLE001  a handler must not fail the library that logs
            self.handleError(record)


def _greenlet_failed(context: object, t: Any, v: Any, tb: Any) -> None:
    """Log an error that ended a greenlet that nothing waits for; gevent would print it."""
    structlog.get_logger().error(
        "greenlet.failed",
        greenlet=describe_greenlet(context),
        error=describe_error(v) if isinstance(v, BaseException) else getattr(t, "__name__", str(t)),
        stack="".join(traceback.format_tb(tb)) if tb else "",
    )


class Logs:
    """The running log.

    Args:
        limit: holds repetitions back.
        stream: where the log is written.
        levels: decides which events are written.
        redactor: removes secrets.

    Attributes:
        redactor: as given; learns the secrets of a reloaded configuration.
    """

    def __init__(
        self, limit: RepeatLimit, stream: BackgroundStream, levels: LogLevels, redactor: Redactor
    ) -> None:
        self._limit = limit
        self._stream = stream
        self._levels = levels
        self.redactor = redactor

    def set_redactor(self, redactor: Redactor) -> None:
        """Replace the redactor that removes secrets."""
        self.redactor = redactor

    def configure_level(self, level: str) -> None:
        """Change the configured level."""
        self._levels.configure(level)
        self._filter()

    def choose_level(self, logger: str, level: str, seconds: float = DEFAULT_SECONDS) -> LoggerLevel:
        """Give a logger another level for a while; see `LogLevels.choose`."""
        chosen = self._levels.choose(logger, level, seconds)
        self._filter()
        return chosen

    def restore_level(self, logger: str) -> LoggerLevel:
        """Return a logger to the configured level; see `LogLevels.restore`."""
        restored = self._levels.restore(logger)
        self._filter()
        return restored

    def list_levels(self) -> list[LoggerLevel]:
        """Return the level of every logger."""
        return self._levels.list_all()

    def get_level(self, logger: str) -> LoggerLevel:
        """Return the level of one logger; see `LogLevels.get`."""
        return self._levels.get(logger)

    def flush(self) -> None:
        """Write a summary of dropped events that is due; called with every tick, and at the end.

        Set loggers back to their configured level when their time is up.
        """
        if over := self._levels.expire():
            self._filter()
            structlog.get_logger("pillowd.operator").info("log.level_restored", loggers=over)
        for event in self._limit.due():
            getattr(structlog.get_logger(), event.pop("level"))(event.pop("event"), **event)

    def drain(self, seconds: float = DRAIN_SECONDS) -> bool:
        """Wait until everything is written, `seconds` at most. Return whether it is."""
        return self._stream.drain(seconds)

    def drop_by_level(self, logger: object, method: str, event: Event) -> Event:
        """Raise DropEvent for an event that its logger does not write; a processor."""
        if not self._levels.allows(getattr(logger, "name", ROOT), method):
            raise structlog.DropEvent
        return event

    def redact(self, _logger: object, _method: str, event: Event) -> Mapping[str, Any]:
        """Remove secrets from an event; a processor."""
        return {
            name: value if name in _OURS else self.redactor.redact_item(name, value)
            for name, value in event.items()
        }

    def _filter(self) -> None:
        """Drop what no logger writes as early, and as cheaply, as structlog can."""
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(self._levels.lowest))


@contextmanager
def configure_logging(
    *, format: str, level: str, stream: TextIO | BackgroundStream, clock: Clock, redactor: Redactor
) -> Iterator[Logs]:
    """Configure structlog and the standard library's root logger until the end of the `with`.

    Args:
        format: `json` or `console`.
        level: the lowest level that is written.
        stream: the stream.
        clock: for the limit of repetitions.
        redactor: removes secrets.

    Yields:
        the log, to flush with every tick.
    """
    limit = RepeatLimit(clock)
    background = stream if isinstance(stream, BackgroundStream) else BackgroundStream(stream)
    levels = LogLevels(level, clock)
    log = Logs(limit, background, levels, redactor)
    structlog.configure(
        processors=[
            log.drop_by_level,
            limit,
            log.redact,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _renderer(format, background),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(levels.lowest),
        logger_factory=lambda *names: LineWriter(background, *names),
        cache_logger_on_first_use=False,
    )
    root, handler = logging.getLogger(), _Routed(logging.WARNING)
    root.addHandler(handler)
    hub = gevent.get_hub()
    hub.print_exception = _greenlet_failed  # type: ignore[method-assign]  # gevent looks it up here
    logging.captureWarnings(True)
    try:
        yield log
    finally:
        background.close()
        del hub.print_exception
        logging.captureWarnings(False)
        root.removeHandler(handler)
        structlog.reset_defaults()


def _renderer(format: str, stream: BackgroundStream) -> Any:
    if format == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=stream.isatty())
