"""Decide which definition each build of a pillow has, and which tails run. Pure, except for reading the file.

The YAML holds up to two definitions: the pillow's own, and `next`. A build is known by the digest of its
definition, so after a switch the two may stay in place or be swapped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from daemon.config.models import Config, PillowConfig, split_by_pace
from daemon.config_digests import pipeline_digest
from daemon.rebuilds.record import COMING, FILE, Rebuild, RebuildState, read_rebuilds
from pillows.options import Build
from pillows.transports.common.builds import MARK

#: Returns the digests of the modules of a pillow's functions.
DigestCode = Callable[[PillowConfig], Sequence[str]]


def with_builds(config: Config, digest_code: DigestCode | None = None) -> Config:
    """Return a configuration with the tails of all builds that are recorded in its state directory.

    Args:
        config: a valid configuration.
        digest_code: computes code digests, to leave out builds whose code has changed since: they cannot be
            made again. None leaves out none.

    Raises:
        IntegrityError: the records can't be read.
    """
    return add_builds(config, _read(config), digest_code)


def add_builds(
    config: Config, rebuilds: Mapping[str, Rebuild], digest_code: DigestCode | None = None
) -> Config:
    """Return a configuration with the tails of all builds.

    Args:
        config: a valid configuration.
        rebuilds: the records by the text of the live tail's key.
        digest_code: see `with_builds`.
    """
    tails: dict[str, PillowConfig] = {}
    for name, pillow in config.pillows.items():
        for tail, settings in split_by_pace(name, pillow).items():
            key = f"{tail}@{pillow.source.connection}/{pillow.source.database}"
            tails |= _make_builds(tail, list_definitions(pillow, tail), rebuilds.get(key), digest_code) or {
                tail: settings
            }
    return config.with_tails(tails)


def list_definitions(pillow: PillowConfig, tail: str) -> list[PillowConfig]:
    """Return the definitions of a tail: the pillow's own, and `next` if it has one."""
    name = tail.partition(".")[0]
    return [split_by_pace(name, each)[tail] for each in pillow.definitions]


def list_live_next(config: Config) -> list[str]:
    """Return the pillows whose live build has the next definition.

    Raises:
        IntegrityError: the records can't be read.
    """
    found = []
    for text, rebuild in _read(config).items():
        name = text.partition("@")[0]
        pillow = config.pillows.get(name.partition(".")[0])
        if pillow is not None and pillow.next is not None and name in config.tails:
            definitions = list_definitions(pillow, name)
            if find_live(definitions, rebuild) is definitions[1]:
                found.append(name)
    return found


def find_live(definitions: Sequence[PillowConfig], rebuild: Rebuild | None) -> PillowConfig:
    """Return the definition of the live build.

    It is the definition with which the live build was made. If that was changed since, it is the definition
    that is not the other build's. The tail handles the change when it starts.
    """
    if rebuild is None or len(definitions) == 1:
        return definitions[0]
    digests = [pipeline_digest(each) for each in definitions]
    if rebuild.live_definition.settings in digests:
        return definitions[digests.index(rebuild.live_definition.settings)]
    return definitions[1 if digests[0] == rebuild.other_definition.settings else 0]


def find_other(
    definitions: Sequence[PillowConfig], rebuild: Rebuild, digest_code: DigestCode | None
) -> PillowConfig | None:
    """Return the definition of the other build; None if the definition or its code no longer exists."""
    wanted = rebuild.other_definition
    for each in definitions:
        if pipeline_digest(each) == wanted.settings:
            # The tail of an unfinished build notices changed code by itself, and begins again.
            is_same = (
                rebuild.state in COMING or digest_code is None or tuple(digest_code(each)) == wanted.code
            )
            return each if is_same else None
    return None


def _read(config: Config) -> Mapping[str, Rebuild]:
    try:
        return read_rebuilds(config.daemon.state_dir / FILE)
    except PermissionError:  # somebody who may read the configuration only
        return {}


def _make_builds(
    tail: str, definitions: Sequence[PillowConfig], rebuild: Rebuild | None, digest_code: DigestCode | None
) -> dict[str, PillowConfig]:
    if rebuild is None:
        return {}
    found = {tail: _of_build(find_live(definitions, rebuild), Build(number=rebuild.live))}
    if rebuild.has_other and rebuild.state is not RebuildState.DROPPING:
        other = find_other(definitions, rebuild, digest_code)
        if other is not None:
            if rebuild.workers is not None and rebuild.state in COMING:
                load = other.load.model_copy(update={"workers": rebuild.workers})
                other = other.model_copy(update={"load": load})
            build = Build(number=rebuild.other, live=False)
            found[f"{tail}{MARK}{rebuild.other}"] = _of_build(other, build)
    return found


def _of_build(settings: PillowConfig, build: Build) -> PillowConfig:
    entries = [
        entry.model_copy(
            update={"outputs": {name: each.of_build(build) for name, each in entry.outputs.items()}}
        )
        for entry in settings.transport
    ]
    return settings.model_copy(update={"transport": tuple(entries)})
