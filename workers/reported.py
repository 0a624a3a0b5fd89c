"""Reported cases as training data: the data set ``reported``, and the rule by which it is made.

* A case is training data when it was imported as an exemplar (``nightread exemplar import``, from reported
  studies of the night by ``--reported``). Nothing else is: not a draft, not a reading.
* The patient decides the split, by the keyed hash that is kept instead of the Patient ID: of ten patients
  seven train, one validates, two are held out. It never changes, whatever is imported later, so that nobody
  who was held out is ever trained on. A case without a usable Patient ID is its own patient.
* Of a study that was imported more than once the newest import counts.

``reported`` names all of them, ``reported:SOURCE`` those of one source.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from sqlalchemy import select

from db.engine import transaction
from db.tables import ExemplarRecord
from workers.context import Context

KIND = "reported"


def is_reported(spec: str) -> bool:
    """Whether a data set is named that lies in the database."""
    return spec == KIND or spec.startswith(KIND + ":")


def split_of(patient: bytes) -> str:
    """Train, val or test by a patient's keyed hash."""
    place = int.from_bytes(hashlib.sha256(b"split/" + patient).digest()[:8], "big") % 10
    return "train" if place < 7 else "val" if place < 8 else "test"


def resolve(context: Context, spec: str) -> str:
    """Any data set as the readers take it; of ``reported`` a snapshot is written below the home.

    The snapshot is named by its content and never changes, so that a training that resumes sees what it
    began with.

    Raises:
        ObjectStoreUnavailable, DatabaseUnavailable: If one does not answer.
    """
    if not is_reported(spec):
        return spec
    source = spec.partition(":")[2]
    folder = context.home / "cache" / "reported"
    (folder / "images").mkdir(parents=True, exist_ok=True, mode=0o700)
    query = select(ExemplarRecord).order_by(ExemplarRecord.id)
    if source:
        query = query.where(ExemplarRecord.source == source)
    with transaction(context.engine) as session:
        newest = {bytes(one.study_hash): one for one in session.scalars(query)}
        lines = [json.dumps(_line(one), sort_keys=True) for one in newest.values()]
        keys = [one.image_key for one in newest.values()]
    for key in keys:
        _fetch(context, key, folder / "images" / Path(key).name)
    content = "".join(line + "\n" for line in lines)
    target = folder / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.jsonl"
    if not target.is_file():
        making = target.with_suffix(".making")
        making.write_text(content, encoding="utf-8")
        making.replace(target)
    return f"folder:{target}"


def _line(one: ExemplarRecord) -> dict[str, object]:
    patient = bytes(one.patient_hash or one.study_hash)
    line: dict[str, object] = {
        "id": bytes(one.study_hash).hex()[:24],
        "patient": patient.hex()[:24],
        "split": split_of(patient),
        "view": "frontal",
        "image": f"images/{Path(one.image_key).name}",
        "findings": one.findings,
        "impression": one.impression,
    }
    if one.labels is not None:
        from models.pathologies import PATHOLOGIES

        # What its source did not name positive is blank, and the recipe says what a blank is trained as.
        line["labels"] = {p.value: 1 if p.value in one.labels else None for p in PATHOLOGIES}
    return line


def _fetch(context: Context, key: str, target: Path) -> None:
    if target.is_file():
        return
    making = target.with_suffix(".making")
    making.write_bytes(context.store.get_derived(key))
    making.replace(target)
