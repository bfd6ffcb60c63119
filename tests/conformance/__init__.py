"""The suite that every keyed transport passes against its real target.

A transport's test class inherits it and gives one fixture, `target` (see `tests.conformance.target.Target`):

    class TestSqlite(TransportConformance):
        @pytest.fixture
        def target(self, tmp_path):
            return SqliteTarget(tmp_path / "target.db")

Each test writes through the transport and reads with the target's own client, never through the
transport. What a target cannot do by its nature it says in the attributes of its `Target`.
"""

from __future__ import annotations

from tests.conformance.builds import BuildConformance
from tests.conformance.contents import ContentConformance
from tests.conformance.failures import FailureConformance
from tests.conformance.guards import GuardConformance
from tests.conformance.odd_documents import OddDocumentConformance
from tests.conformance.target_states import TargetStateConformance
from tests.conformance.writes import WriteConformance


class TransportConformance(
    WriteConformance,
    GuardConformance,
    FailureConformance,
    OddDocumentConformance,
    ContentConformance,
    TargetStateConformance,
    BuildConformance,
):
    """Inherit this, and give a fixture `target`."""


__all__ = ["TransportConformance"]
