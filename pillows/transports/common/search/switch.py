"""The alias of an output moves to the index of another build, and back.

All aliases of a transport move in one request, which the cluster carries out as a whole. The indices are
refreshed before, so that a search finds all that was written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from urllib.parse import quote

from checkpoints import TailKey
from pillows.errors import ConfigError
from pillows.transports.common.builds import BuildSwitch, Exchange, find_live_key, require_live
from pillows.transports.common.search.client import AnswerError, SearchClient
from pillows.transports.common.search.errors import translate_errors
from pillows.transports.common.search.index.ownership import Ownership, get_owner
from pillows.transports.common.search.index.schema import OwnedIndex
from pillows.transports.common.search.options import SearchOutput


class SearchSwitch(BuildSwitch):
    """Moves the aliases of a transport.

    Args:
        key: of the tail.
        make_client: connects to the cluster.
        outputs: the outputs by name; see `BuildSwitch`.
    """

    def __init__(
        self, key: TailKey, make_client: Callable[[], SearchClient], outputs: Mapping[str, SearchOutput]
    ) -> None:
        self._key = key
        self._make_client = make_client
        self._outputs = outputs

    def list_obstacles(self, *, copies: bool = False) -> Sequence[str]:
        """Return the aliases that do not exist; what searches an alias follows it."""
        if copies:
            raise ConfigError("No rows are copied in a cluster, and need not be: an alias moves.")
        with self._connect() as client:
            return [
                f"the alias {index.spec.alias} does not exist: let the pillow run first"
                for index in self._list_indices(client)
                if not _has_alias(client, index)
            ]

    def exchange(self, exchange: Exchange, *, copies: bool = False) -> None:
        """Move all aliases in one request; see `BuildSwitch.exchange`."""
        require_live((each.build for each in self._outputs.values()), live=True)
        if copies:
            self.list_obstacles(copies=True)
        with self._connect() as client:
            actions: list[Mapping[str, object]] = []
            for index in self._list_indices(client):
                index.locate_build(exchange.incoming)
                _require(index)
                client.call("POST", f"/{quote(index.spec.name, safe='')}/_refresh")
                actions += index.list_publication()
            if actions:
                client.change("POST", "/_aliases", {"actions": actions})

    def drop(self) -> None:
        """Delete the indices of a build; see `BuildSwitch.drop`.

        Their mapping may not be known any more, but the number is theirs alone.
        """
        require_live((each.build for each in self._outputs.values()), live=False)
        with self._connect() as client:
            for options in self._outputs.values():
                for index in self._find_build(client, options):
                    client.call("DELETE", f"/{quote(index, safe='')}", params={"ignore_unavailable": "true"})

    def _find_build(self, client: SearchClient, options: SearchOutput) -> list[str]:
        """Return the indices of a build that are the pillow's, and not behind the alias."""
        pattern = re.compile(rf"{re.escape(options.index)}-[0-9a-f]{{8}}-{options.build.number}")
        found = client.call("GET", f"/{quote(options.index, safe='')}-*-{options.build.number}")
        ownership = Ownership(find_live_key(self._key))
        return [
            name
            for name, index in found.items()
            if pattern.fullmatch(name)
            and ownership.covers(get_owner(index))
            and options.index not in index["aliases"]
        ]

    @contextmanager
    def _connect(self) -> Iterator[SearchClient]:
        with closing(self._make_client()) as client, translate_errors():
            client.check_product()
            yield client

    def _list_indices(self, client: SearchClient) -> list[OwnedIndex]:
        return [OwnedIndex(client, self._key, options) for options in self._outputs.values()]


def _has_alias(client: SearchClient, index: OwnedIndex) -> bool:
    """Return whether the alias exists."""
    alias = quote(index.spec.alias, safe="")
    return bool(client.call("GET", f"/{alias}", params={"ignore_unavailable": "true"}))


def _require(index: OwnedIndex) -> None:
    """Refuse to move an alias to an index that does not exist: it would be created, empty."""
    try:
        index.get()
    except AnswerError as error:
        if error.status != 404:
            raise
        raise ConfigError(
            f"The index {index.spec.name} is gone.", remedy="`pillowd rebuild cancel KEY`, and rebuild again"
        ) from error
