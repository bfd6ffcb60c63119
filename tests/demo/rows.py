"""The transform of the demo, as an operator would write it in a module of his own."""

from __future__ import annotations

from typing import Any


def visit_rows(visit: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a visit, and a row for each of its prescriptions."""
    fields = ("patient_id", "visited_on", "reason", "weight_kg")
    return {
        "visits": {field: visit.get(field) for field in fields},
        "prescriptions": [{"drug": p["drug"], "days": p["days"]} for p in visit.get("prescriptions", [])],
    }
