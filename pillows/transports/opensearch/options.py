"""Settings of an OpenSearch cluster."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from pillows.options import Options, Secret
from pillows.transports.common.search.options import SearchConnection


class OpensearchAuth(Options):
    """Credentials: a name and password, or a token.

    Attributes:
        username: with `password`.
        password: see `username`.
        token: a JSON web token, instead of a name and password.
    """

    username: str | None = None
    password: Secret | None = None
    token: Secret | None = None

    @model_validator(mode="after")
    def _check_complete(self) -> OpensearchAuth:
        if (self.username is None) != (self.password is None):
            raise ValueError("has only one of username and password; give both")
        if (self.token is None) == (self.username is None):
            raise ValueError("is incomplete; give either username and password, or token")
        return self


class OpensearchConnection(SearchConnection):
    """An OpenSearch 2 or 3 cluster.

    Attributes:
        auth: credentials; none for an open cluster.
    """

    type: Literal["opensearch"] = "opensearch"
    auth: OpensearchAuth | None = None
