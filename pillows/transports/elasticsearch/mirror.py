"""Elasticsearch as a mirror's target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pillows.transports.common.search.mirror import SearchMirror


class ElasticsearchMirror(SearchMirror):
    """An index of any documents in Elasticsearch."""

    TYPE: ClassVar[str] = "elasticsearch"
    SCHEMES: ClassVar[tuple[str, ...]] = ("elasticsearch+http", "elasticsearch+https")
    FORM: ClassVar[str] = "elasticsearch+https://HOST:PORT"
    SETTINGS: ClassVar[Mapping[str, Any]] = {
        **SearchMirror.SETTINGS,
        "index.mapping.total_fields.ignore_dynamic_beyond_limit": True,
    }
