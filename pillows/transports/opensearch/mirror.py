"""OpenSearch as a mirror's target."""

from __future__ import annotations

from typing import ClassVar

from pillows.transports.common.search.mirror import SearchMirror


class OpensearchMirror(SearchMirror):
    """An index of any documents in OpenSearch."""

    TYPE: ClassVar[str] = "opensearch"
    SCHEMES: ClassVar[tuple[str, ...]] = ("opensearch+http", "opensearch+https")
    FORM: ClassVar[str] = "opensearch+https://HOST:PORT"
