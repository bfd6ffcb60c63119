"""Read a configuration, and prepare everything for putting it into effect, so that the rest cannot fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext

from msgspec import Struct

from checkpoints import TailKey
from checkpoints.files.blocking import run_blocking
from daemon.assembly.services import Services
from daemon.assembly.tails import build_tails
from daemon.config import plugin_modules
from daemon.config.models import Config
from daemon.config.plugins import is_outdated, list_modules
from daemon.config.problems import ConfigErrors
from daemon.reload.difference import Difference, TailParts, compare, find_restart_needs, list_parts
from daemon.reload.source import ConfigSource
from daemon.supervision.supervised_tail import TailFactory


class InEffect(Struct, frozen=True, kw_only=True):
    """A configuration in effect.

    Attributes:
        config: the configuration.
        parts: the parts of each tail.
        plugins: how often the modules of plugins have been imported, from 1.
    """

    config: Config
    parts: Mapping[TailKey, TailParts]
    plugins: int

    @classmethod
    def of(cls, config: Config, keys: Sequence[TailKey], *, plugins: int = 1) -> InEffect:
        """Return a configuration with the parts of the tails that run.

        Raises:
            ConfigError: a function can't be found.
        """
        return cls(config=config, parts=list_parts(config, keys, plugins=plugins), plugins=plugins)


class Candidate(Struct, frozen=True, kw_only=True):
    """A valid configuration that can be put into effect.

    Attributes:
        in_effect: the new configuration in effect.
        difference: the added, changed, removed and unchanged tails.
        factories: build the tails to start.
        notes: the changes that only a restart applies.
    """

    in_effect: InEffect
    difference: Difference
    factories: Mapping[TailKey, TailFactory]
    notes: Sequence[str]


def prepare_candidate(source: ConfigSource, old: InEffect, services: Services, *, keep: bool) -> Candidate:
    """Read and check the configuration, and build what will start.

    Modules of plugins are imported again if a file or the list of folders has changed.

    Args:
        source: reads it.
        old: the configuration in effect.
        services: what the tails share.
        keep: keep the imported modules, unless the configuration has problems.

    Raises:
        ConfigErrors: it has problems, or needs a restart.
        ConfigError: it was not read from a file.
    """
    try:
        peeked = run_blocking(source.peek)
    except ConfigErrors:
        peeked = None  # `read` finds these problems again, with those in Python modules
    with plugin_modules.exchange(keep=keep) if (fresh := _needs_import(peeked, old)) else nullcontext():
        config = source.read(peeked)
        if problems := list(find_restart_needs(old.config, config)):
            raise ConfigErrors(problems)
        return _make_candidate(source, old, services, config, plugins=old.plugins + fresh)


def prepare_builds(source: ConfigSource, old: InEffect, services: Services) -> Candidate:
    """Prepare the configuration in effect with the builds that the records have now.

    Raises:
        ConfigError: a function can't be found.
    """
    return _make_candidate(source, old, services, source.add_builds(old.config), plugins=old.plugins)


def _make_candidate(
    source: ConfigSource, old: InEffect, services: Services, config: Config, *, plugins: int
) -> Candidate:
    new = InEffect.of(config, source.list_keys(config), plugins=plugins)
    difference = compare(old.parts, new.parts)
    return Candidate(
        in_effect=new,
        difference=difference,
        factories=build_tails(config, services, [*difference.added, *difference.changed]),
        notes=list(_list_notes(new)),
    )


def _needs_import(peeked: Config | None, old: InEffect) -> bool:
    """Return whether modules of plugins must be imported again, so that a refusal can undo it."""
    if peeked is None or peeked.daemon.plugins_path != old.config.daemon.plugins_path:
        return True
    return run_blocking(plugin_modules.have_changed)


def _list_notes(new: InEffect) -> Iterator[str]:
    folders = new.config.daemon.plugins_path
    modules = {module for parts in new.parts.values() for module in list_modules(parts.settings, folders)}
    for module in sorted(filter(is_outdated, modules)):
        yield (
            f"the file of the installed module {module} has changed. A reload imports modules of "
            "`daemon.plugins_path` only; restart the daemon to run the changed one"
        )
