"""The errors of Elasticsearch's client, as ours."""

from __future__ import annotations

import pytest
from elastic_transport import ConnectionTimeout, SerializationError, TransportError
from elasticsearch import ConnectionError as EsConnectionError
from urllib3.exceptions import ConnectTimeoutError

from pillows.errors import AwayError, PillowError, RetryableError
from pillows.transports.elasticsearch.connection import to_pillow_error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionTimeout("timed out"), RetryableError),
        (ConnectionTimeout("no answer", errors=(ConnectTimeoutError("not opened"),)), AwayError),
        (EsConnectionError("refused"), AwayError),
        (SerializationError("the answer is not valid JSON"), RetryableError),
        (TransportError("anything"), AwayError),
    ],
)
def test_every_error_of_the_client_is_one_of_ours(error: TransportError, kind: type[PillowError]) -> None:
    assert type(to_pillow_error(error)) is kind
