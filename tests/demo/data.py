"""The demo's data: a small clinic's patients, visits and stock reports, the same at every run."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

PATIENTS = 1_500
VISITS = 4_200
STOCK_REPORTS = 500

_FIRST = [
    "Amina",
    "Beatrice",
    "Chanda",
    "David",
    "Esther",
    "Fatuma",
    "Grace",
    "Hamisi",
    "Irene",
    "John",
    "Khadija",
    "Luka",
    "Mary",
    "Neema",
]
_LAST = [
    "Banda",
    "Chirwa",
    "Daka",
    "Gondwe",
    "Hara",
    "Jere",
    "Kamanga",
    "Lungu",
    "Mwale",
    "Nkhoma",
    "Phiri",
    "Sakala",
    "Tembo",
    "Zulu",
]
_VILLAGES = ["Chipata", "Katete", "Lundazi", "Mambwe", "Nyimba", "Petauke", "Sinda", "Vubwi"]
_REASONS = ["antenatal", "fever", "follow-up", "immunisation", "injury", "cough", "family planning"]
_DRUGS = ["amoxicillin", "artemether-lumefantrine", "ferrous sulphate", "ORS", "paracetamol", "zinc"]
_EPOCH = date(2026, 1, 1)

Document = dict[str, Any]


def documents() -> list[Document]:
    """All documents as they are first written."""
    draw = random.Random(1)
    patients = [_patient(draw, number) for number in range(PATIENTS)]
    visits = [_visit(draw, number) for number in range(VISITS)]
    reports = [_stock_report(draw, number) for number in range(STOCK_REPORTS)]
    return patients + visits + reports


def edits(documents: list[Document], seed: int, share: float) -> Iterator[Document]:
    """Updates and deletions of a share of the documents, three to one.

    Args:
        documents: present documents, with `_id` and `_rev`.
        seed: which edits.
        share: of the documents that is edited.
    """
    draw = random.Random(seed)
    for document in draw.sample(documents, round(len(documents) * share)):
        if draw.random() < 0.25:
            yield {"_id": document["_id"], "_rev": document["_rev"], "_deleted": True}
        else:
            yield _edited(draw, document)


def conflicts(documents: list[Document], seed: int, count: int) -> Iterator[Document]:
    """Conflicting branches, as two offline phones would make them: written with `new_edits=false`."""
    draw = random.Random(seed)
    for document in draw.sample(documents, count):
        other = _edited(draw, document)
        digest = hashlib.sha256(f"{seed}/{document['_id']}".encode()).hexdigest()[:32]
        yield other | {"_rev": f"{int(document['_rev'].partition('-')[0])}-{digest}"}


def _patient(draw: random.Random, number: int) -> Document:
    return {
        "_id": f"patient:{number:05d}",
        "kind": "patient",
        "name": f"{draw.choice(_FIRST)} {draw.choice(_LAST)}",
        "born_on": str(date(1950, 1, 1) + timedelta(days=draw.randrange(27_000))),
        "address": {"village": draw.choice(_VILLAGES), "household": draw.randrange(1, 400)},
        "phone": f"+260 97 {draw.randrange(10**6, 10**7)}",
    }


def _visit(draw: random.Random, number: int) -> Document:
    return {
        "_id": f"visit:{number:05d}",
        "kind": "visit",
        "patient_id": f"patient:{draw.randrange(PATIENTS):05d}",
        "visited_on": str(_EPOCH + timedelta(days=draw.randrange(300))),
        "reason": draw.choice(_REASONS),
        "weight_kg": round(draw.uniform(3, 95), 1),
        "prescriptions": _prescriptions(draw),
    }


def _prescriptions(draw: random.Random) -> list[Document]:
    drugs = draw.sample(_DRUGS, draw.choice([0, 1, 1, 2, 3]))
    return [{"drug": drug, "days": draw.choice([3, 5, 7, 14])} for drug in drugs]


def _stock_report(draw: random.Random, number: int) -> Document:
    return {
        "_id": f"stock:{number:05d}",
        "kind": "stock-report",
        "village": draw.choice(_VILLAGES),
        "reported_on": str(_EPOCH + timedelta(days=draw.randrange(300))),
        "on_hand": {drug: draw.randrange(500) for drug in _DRUGS},
    }


def _edited(draw: random.Random, document: Document) -> Document:
    if document["kind"] == "patient":
        return document | {"phone": f"+260 96 {draw.randrange(10**6, 10**7)}"}
    if document["kind"] == "visit":
        return document | {"reason": draw.choice(_REASONS), "prescriptions": _prescriptions(draw)}
    return document | {"on_hand": {drug: draw.randrange(500) for drug in _DRUGS}}
