"""Where the daemon's configuration comes from, and the checks before it is used."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import gevent
from msgspec import Struct

from checkpoints import TailKey
from daemon.checks.functions import check_functions
from daemon.checks.pillow_tests import check_pillow_tests
from daemon.checks.transports import check_transports
from daemon.config.load import load
from daemon.config.models import Config
from daemon.config.plugins import digest_functions
from daemon.config.problems import ConfigErrors
from daemon.rebuilds.definitions import with_builds
from daemon.tail_lookup import tail_keys
from pillows.errors import ConfigError
from pillows.transports.common.builds import find_live_key


class ConfigSource(Struct, frozen=True, kw_only=True):
    """Where a configuration is read from again, and which of its tails run.

    Attributes:
        path: the main file; None if the configuration was made and not read (`pillowd mirror`).
        environ: the environment for `${VAR}` and the default folders.
        chosen: the tails that run, where present; all enabled ones if None.
    """

    path: Path | None
    environ: Mapping[str, str]
    chosen: Collection[TailKey] | None = None

    def peek(self) -> Config:
        """Load the configuration without importing modules of plugins; for a thread.

        Raises:
            ConfigErrors: it has problems; `read` may find more.
            ConfigError: it was not read from a file.
        """
        return load(self._require_path(), self.environ, plugins=False)

    def read(self, peeked: Config | None) -> Config:
        """Load the configuration and check it as `pillowd check` does, without connecting to anything.

        Args:
            peeked: of a moment ago; None if it had problems.

        Raises:
            ConfigErrors: it has problems: all of them.
        """
        if peeked is None or peeked.daemon.plugins_path:
            config = load(self._require_path(), self.environ, checks=(check_functions, check_transports))
        else:
            config = peeked
            problems = check_functions(config)
            gevent.sleep(0)  # so that no other greenlet waits for all checks at once
            if problems := [*problems, *check_transports(config)]:
                raise ConfigErrors(problems)
        if problems := check_pillow_tests(config, within_daemon=True):
            raise ConfigErrors(problems)
        return self.add_builds(config)

    def add_builds(self, config: Config) -> Config:
        """Return a configuration with the tails of all builds that can run; see `daemon.rebuilds`."""
        folders = config.daemon.plugins_path
        return with_builds(config, lambda settings: digest_functions(settings, folders))

    def list_keys(self, config: Config) -> list[TailKey]:
        """Return the tails of a configuration that should run."""
        return [key for key in tail_keys(config) if self.chosen is None or find_live_key(key) in self.chosen]

    def _require_path(self) -> Path:
        if self.path is None:
            raise ConfigError(
                "this daemon was started without a configuration file, so there is nothing to reload.",
                remedy="stop it, and start it with the options that you want",
            )
        return self.path
