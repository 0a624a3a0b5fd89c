"""Stage ``encode``: VMamba and the DASTs read the rendered images of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import numpy as np
from safetensors.numpy import save
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from db.claims import Claim
from db.engine import transaction
from db.tables import PredictionRecord, ReadingRecord, ReadingState
from models.dmsr import unit
from models.manifest import Manifest
from models.pathologies import PATHOLOGIES
from models.reader import Encoded
from workers.context import Context
from workers.ingest import decode_image


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the networks say about one image."""

    probabilities: dict[str, float]
    positives: list[str]
    acuity: float
    logits: list[float]
    visual_vector: list[float]
    """Mean patch token, scaled to unit length."""
    tokens_key: str


def compute(context: Context, batch: Sequence[Claim]) -> list[Prediction]:
    """Encode the batch, release by release."""
    ids = [claim.subject_id for claim in batch]
    with transaction(context.engine) as session:
        rows = session.execute(
            select(ReadingRecord.id, ReadingRecord.release_id, ReadingRecord.image_key)
            .where(ReadingRecord.id.in_(ids))
            .order_by(ReadingRecord.release_id, ReadingRecord.id)
        ).all()
    found: dict[int, Prediction] = {}
    for release_id, members in groupby(rows, key=attrgetter("release_id")):
        readings = list(members)
        reader = context.reader(release_id)
        images = np.stack([decode_image(context.store.get_derived(r.image_key)) for r in readings])
        encoded = reader.encode(images)
        for position, reading in enumerate(readings):
            found[reading.id] = _prediction(context, reader.manifest, encoded, position)
    return [found[reading_id] for reading_id in ids]


def _prediction(context: Context, manifest: Manifest, encoded: Encoded, position: int) -> Prediction:
    probabilities = {
        p.value: float(value)
        for p, value in zip(PATHOLOGIES, encoded.probabilities[position].tolist(), strict=True)
    }
    tokens = {
        "patch_tokens": encoded.patch_tokens[position].numpy(),
        "disease_tokens": encoded.disease_tokens[position].numpy(),
        "attention": encoded.attention[position].numpy(),
    }
    contiguous = {name: np.ascontiguousarray(values) for name, values in tokens.items()}
    return Prediction(
        probabilities=probabilities,
        positives=[p.value for p in PATHOLOGIES if probabilities[p.value] >= manifest.threshold(p)],
        acuity=max(
            probability * context.rules.acuity_weights[name] for name, probability in probabilities.items()
        ),
        logits=encoded.logits[position].tolist(),
        visual_vector=unit(encoded.mean_token[position].numpy()).tolist(),
        tokens_key=context.store.put_derived("tokens", save(contiguous), ".safetensors"),
    )


def store(context: Context, session: Session, results: Sequence[tuple[Claim, Prediction]]) -> list[int]:
    """Write the predictions; readings still open go on to ``retrieve``."""
    ordered = sorted(results, key=lambda pair: pair[0].subject_id)
    session.execute(
        insert(PredictionRecord)
        .values(
            [
                {
                    "reading_id": claim.subject_id,
                    **result.probabilities,
                    "positives": result.positives,
                    "acuity": result.acuity,
                    "logits": result.logits,
                    "visual_vector": result.visual_vector,
                }
                for claim, result in ordered
            ]
        )
        .on_conflict_do_nothing(index_elements=["reading_id"])
    )
    onward = []
    for claim, result in ordered:
        still_open = session.scalar(
            update(ReadingRecord)
            .where(ReadingRecord.id == claim.subject_id, ReadingRecord.state == ReadingState.OPEN)
            .values(tokens_key=result.tokens_key)
            .returning(ReadingRecord.id)
        )
        if still_open is not None:
            onward.append(still_open)
    return onward
