"""The definitions and targets of a pillow's builds, as the configuration in effect has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from checkpoints import CheckpointStore, TailKey
from daemon.assembly.pipelines import build_transport
from daemon.config.models import Config, PillowConfig
from daemon.config.plugins import digest_functions
from daemon.config_digests import pipeline_digest
from daemon.rebuilds.definitions import list_definitions
from daemon.rebuilds.record import Definition, Rebuild
from pillows.errors import ConfigError
from pillows.options import Build, Options, OutputOptions
from pillows.transports.base import KeyedTransport, Transport
from pillows.transports.common.builds import BuildSwitch

#: Documents whose contents are compared with `verify: sample`.
SAMPLE_DOCUMENTS = 1000


class Builds:
    """Looks up definitions, and makes the objects that act on the targets.

    Args:
        get_config: returns the configuration in effect.
        store: the checkpoints, which hold the digests of the live rows' definition.
    """

    def __init__(self, get_config: Callable[[], Config], store: CheckpointStore) -> None:
        self._get_config = get_config
        self._store = store

    def find_definitions(self, key: TailKey) -> list[PillowConfig]:
        """Return the definitions of a pillow: its own, and `next` if it has one.

        Raises:
            ConfigError: the pillow is not in the configuration.
        """
        pillow = self._get_config().pillows.get(key.pillow.partition(".")[0])
        if pillow is None:
            raise ConfigError(
                f"{key} is not in the configuration any more.", remedy="put it back, then `pillowd reload`"
            )
        return list_definitions(pillow, key.pillow)

    def describe(self, settings: PillowConfig) -> Definition:
        """Return the digests of a definition."""
        return Definition(settings=pipeline_digest(settings), code=tuple(self._digest_code(settings)))

    def describe_live(self, key: TailKey, settings: PillowConfig) -> Definition:
        """Return the definition of the live rows; nothing if the configuration no longer has it."""
        stored = self._store.get(key)
        made_by = stored.digest.pipeline if stored is not None else ""
        is_same = made_by in ("", pipeline_digest(settings, self._digest_code(settings)))
        return self.describe(settings) if is_same else Definition()

    def make_switches(self, key: TailKey, settings: PillowConfig, build: Build) -> dict[str, BuildSwitch]:
        """Return the switches that exchange builds, by the names of the transports.

        Raises:
            ConfigError: a target has no builds.
        """
        return {each.name: each.make_switch() for each in self._make_transports(key, settings, build)}

    def _make_transports(self, key: TailKey, settings: PillowConfig, build: Build) -> list[Transport]:
        return [
            build_transport(
                self._get_config().with_tails({key.pillow: settings}),
                key,
                entry.model_copy(
                    update={"outputs": {name: each.of_build(build) for name, each in entry.outputs.items()}}
                ),
            )
            for entry in settings.transport
        ]

    def refuse_obstacles(self, key: TailKey, coming: PillowConfig, build: Build, *, copies: bool) -> None:
        """Refuse a rebuild that could not be made or switched; the error names every obstacle.

        Args:
            key: the tail of the live build.
            coming: the definition of the other build.
            build: the other build.
            copies: whether its rows are to be copied.

        Raises:
            ConfigError: there is an obstacle.
            RetryableError, AccessError: a target can't be asked.
        """
        self._refuse_taken(key, coming, build)
        switches = self.make_switches(key, coming, Build())
        if copies and len(switches) > 1:
            raise ConfigError(
                "`--switch replace-rows` works with one transport only: it copies rows in one transaction.",
                remedy="move the other transports into pillows of their own",
            )
        found = {name: switch.list_obstacles(copies=copies) for name, switch in switches.items()}
        told = "; ".join(f"{name}: {obstacle}" for name, all_ in found.items() for obstacle in all_)
        if not told:
            return
        remedies = [f"`pillowd checkpoint reset {key}` rewrites the rows in place"]
        if not copies and len(switches) == 1:
            (switch,) = switches.values()
            seconds = switch.estimate_copy_seconds()
            if seconds is not None and not switch.list_obstacles(copies=True):
                remedies.insert(
                    0,
                    f"`pillowd rebuild {key} --switch replace-rows` copies the rows, while readers wait for "
                    f"about {seconds:.0f} s",
                )
        raise ConfigError(f"{key} can't be switched to another build: {told}.", remedy="; or ".join(remedies))

    def _refuse_taken(self, key: TailKey, coming: PillowConfig, build: Build) -> None:
        """Refuse a build whose name an output has: loading a configuration does not check that."""
        owners = {
            address: (pillow, name)
            for pillow, settings in self._get_config().tails.items()
            for name, options, connection in self._list_outputs(settings)
            for address in options.addresses(connection)
        }
        for name, options, connection in self._list_outputs(coming):
            own = options.addresses(connection)  # of every build, in a target that has no builds
            taken = filter(None, map(owners.get, options.of_build(build).addresses(connection) - own))
            for pillow, other in taken:
                raise ConfigError(
                    f"{key} can't be rebuilt: build {build.number} of its output {name!r} needs the name "
                    f"of the output {other!r} of {pillow}.",
                    remedy="give that output another name",
                )

    def _list_outputs(self, settings: PillowConfig) -> Iterator[tuple[str, OutputOptions, Options]]:
        """Yield the name and settings of each output, with those of its connection."""
        for entry in settings.transport:
            connection = self._get_config().connections[entry.connection].options
            for name, options in entry.outputs.items():
                yield name, options, connection

    def choose_contents(self, key: TailKey, rebuild: Rebuild) -> list[str]:
        """Return the options of `pillowd verify` for comparing the other build's contents, if a target can.

        Raises:
            RetryableError, AccessError, ConfigError: a target can't be asked.
        """
        other, build = rebuild.name_other(key), Build(number=rebuild.other, live=False)
        settings = self._get_config().tails[other.pillow]
        if not any(_can_compare(each) for each in self._make_transports(other, settings, build)):
            return []
        return ["--content", *([f"--sample={SAMPLE_DOCUMENTS}"] if rebuild.verify == "sample" else [])]

    def _digest_code(self, settings: PillowConfig) -> Sequence[str]:
        return digest_functions(settings, self._get_config().daemon.plugins_path)


def _can_compare(transport: Transport) -> bool:
    if not isinstance(transport, KeyedTransport):
        return False
    try:
        return any(not transport.describe_incomparable(output) for output in transport.outputs)
    finally:
        transport.close()
