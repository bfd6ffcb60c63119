"""Settings of an Elasticsearch cluster."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from pillows.options import Options, Secret
from pillows.transports.common.search.options import SearchConnection


class ElasticsearchAuth(Options):
    """Credentials: an API key, or a name and password.

    Attributes:
        api_key: the encoded key, as Elasticsearch gave it.
        username: with `password`, instead of a key.
        password: see `username`.
    """

    api_key: Secret | None = None
    username: str | None = None
    password: Secret | None = None

    @model_validator(mode="after")
    def _check_complete(self) -> ElasticsearchAuth:
        if (self.username is None) != (self.password is None):
            raise ValueError("has only one of username and password; give both")
        if (self.api_key is None) == (self.username is None):
            raise ValueError("needs exactly one of these: api_key, or username and password")
        return self


class ElasticsearchConnection(SearchConnection):
    """An Elasticsearch 9 cluster.

    Attributes:
        auth: credentials; none for an open cluster.
    """

    type: Literal["elasticsearch"] = "elasticsearch"
    auth: ElasticsearchAuth | None = None
