"""The level of each logger: the configured one, or another for a limited time."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from pillows.clock import Clock
from pillows.suggest import suggest

#: Level -> its number in the standard library.
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
#: The logger above all others.
ROOT = "pillowd"
#: Logger -> description of its events. Without loggers of libraries: at level debug, they would write
#: documents.
LOGGERS = {
    ROOT: "everything",
    "pillowd.config": "warnings of the configuration, and reloads",
    "pillowd.daemon": "start and end of the daemon",
    "pillowd.http": "the listeners, and requests that met a defect",
    "pillowd.kafka": "messages between the daemons of a service",
    "pillowd.operator": "what operators do",
    "pillowd.pillow": "what pillows read and write; at level debug a line for each batch",
    "pillowd.rebuild": "rebuilds, and switches to their outputs",
    "pillowd.supervisor": "crashes and restarts",
    "pillowd.verify": "scheduled comparisons",
}
#: How long a level holds by default, and at most. One that is to stay belongs in the configuration.
DEFAULT_SECONDS = 600.0
MAX_SECONDS = 86_400.0


class LoggerLevel(Struct, frozen=True, kw_only=True):
    """The level of one logger.

    Attributes:
        name: the logger.
        level: the lowest level that it writes.
        seconds_left: until it returns to the configured level; None if it has that level.
    """

    name: str
    level: str
    seconds_left: float | None


class LogLevels:
    """Decides which events are written.

    Args:
        configured: the level in `logging.level`.
        clock: measures how long another level holds.
    """

    def __init__(self, configured: str, clock: Clock) -> None:
        self._configured = configured
        self._clock = clock
        self._chosen: dict[str, tuple[str, float]] = {}

    @property
    def lowest(self) -> int:
        """The number of the lowest level that any logger writes."""
        chosen = [level for level, _ in self._chosen.values()]
        return min(LEVELS[level] for level in [self._configured, *chosen])

    def allows(self, logger: str, level: str) -> bool:
        """Return whether a logger writes events of a level; `critical` is always written."""
        if level not in LEVELS:
            return True
        return LEVELS[level] >= LEVELS[self._find(logger)[0]]

    def get(self, logger: str) -> LoggerLevel:
        """Return the level of a logger.

        Raises:
            ValueError: there is no such logger.
        """
        _check_name("logger", logger, LOGGERS)
        level, until = self._find(logger)
        left = None if until is None else max(0.0, until - self._clock.monotonic())
        return LoggerLevel(name=logger, level=level, seconds_left=left)

    def list_all(self) -> list[LoggerLevel]:
        """Return the level of every logger."""
        return [self.get(name) for name in LOGGERS]

    def choose(self, logger: str, level: str, seconds: float = DEFAULT_SECONDS) -> LoggerLevel:
        """Give a logger and those below it another level for a while.

        Raises:
            ValueError: there is no such logger or level, or the time is not between 0 and a day.
        """
        _check_name("logger", logger, LOGGERS)
        _check_name("level", level, LEVELS)
        if not 0 < seconds <= MAX_SECONDS:
            raise ValueError(
                f"a level holds for at most {MAX_SECONDS / 3600:g} hours. Remedy: for longer, set "
                "`logging.level` in the configuration, then `pillowd reload`"
            )
        self._chosen = {name: it for name, it in self._chosen.items() if not name.startswith(f"{logger}.")}
        self._chosen[logger] = (level, self._clock.monotonic() + seconds)
        return self.get(logger)

    def restore(self, logger: str) -> LoggerLevel:
        """Return a logger, and those below it, to the configured level.

        Raises:
            ValueError: there is no such logger.
        """
        _check_name("logger", logger, LOGGERS)
        self._chosen = {
            name: it
            for name, it in self._chosen.items()
            if name != logger and not name.startswith(f"{logger}.")
        }
        return self.get(logger)

    def configure(self, level: str) -> None:
        """Change the configured level. A level that was chosen for a while stays."""
        self._configured = level

    def expire(self) -> list[str]:
        """Set loggers whose time is up back to the configured level. Return their names."""
        now = self._clock.monotonic()
        over = [name for name, (_, until) in self._chosen.items() if until <= now]
        for name in over:
            del self._chosen[name]
        return over

    def _find(self, logger: str) -> tuple[str, float | None]:
        """Return the level of a logger, and until when it holds."""
        name = logger
        while name:
            if name in self._chosen:
                return self._chosen[name]
            name = name.rpartition(".")[0]
        return self._configured, None


def _check_name(what: str, name: str, known: Mapping[str, object]) -> None:
    if name not in known:
        raise ValueError(f"there is no {what} {name!r}. Remedy: {suggest(name, list(known), f'{what}s')}")
