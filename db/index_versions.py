"""Index versions: built from a snapshot, filled, verified, made ready, dropped when nobody needs them.

An index version is a row of ``exemplar_index`` and a narrow table ``exemplar_vector_N``. It holds one vector
for every exemplar whose image has the rendering and the size that its release reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from db.errors import IndexVersionNotUsable
from db.exemplars import binary_copy, packed
from db.tables import ActiveReleaseRecord, ExemplarIndexRecord

_LATELY_S = 120
"""A reading may be in the making that pins the version that was active a moment ago."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Which exemplars a release can read: those rendered as it reads them."""

    rendering: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Missing:
    """An exemplar that a version lacks."""

    exemplar_id: int
    image_key: str
    patient_hash: bytes | None
    study_hash: bytes


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """What SQL says about the vectors of a version."""

    rows: int
    wanted: int
    """Exemplars that it should hold."""
    missing: int
    foreign: int
    """Vectors of exemplars that it should not hold."""
    other_dimensions: int
    worst_norm: float
    """Largest difference of the length of a half to 1; halves of zeros aside."""
    zeros: int
    """Rows with a half of zeros: an image in which the encoder sees no direction at all."""


def find(session: Session, version: int) -> ExemplarIndexRecord:
    """An index version.

    Raises:
        IndexVersionNotUsable: If there is none of this number.
    """
    record = session.get(ExemplarIndexRecord, version, populate_existing=True)
    if record is None:
        raise IndexVersionNotUsable(
            f"There is no index version {version}; `nightread exemplar versions` lists them."
        )
    return record


def listing(session: Session) -> list[ExemplarIndexRecord]:
    """All index versions, newest first."""
    return list(session.scalars(select(ExemplarIndexRecord).order_by(ExemplarIndexRecord.id.desc())))


def rows(session: Session, version: int) -> int:
    """How many vectors a version holds."""
    return session.scalar(text(f"SELECT count(*) FROM {_table(version)}")) or 0  # noqa: S608


_WANTED = "exemplar.rendering = :rendering AND exemplar.image_size = :size"
_ALL = 2**62


def snapshot(session: Session) -> int:
    """The largest number of an exemplar. Later ones are larger only where the transaction holds imports back
    (``db.exemplars.stop_imports``): numbers are given under that lock.
    """
    return session.scalar(text("SELECT coalesce(max(id), 0) FROM exemplar")) or 0


def _lacks(version: int) -> str:
    return f"""NOT EXISTS (SELECT FROM {_table(version)} AS held
               WHERE held.exemplar_id = exemplar.id)"""


def count_wanted(session: Session, images: Images, *, until: int = _ALL) -> int:
    """How many exemplars, up to a number, have such an image."""
    return (
        session.scalar(
            text(f"SELECT count(*) FROM exemplar WHERE {_WANTED} AND id <= :until"),  # noqa: S608
            {**vars(images), "until": until},
        )
        or 0
    )


def count_missing(session: Session, version: int, images: Images, *, until: int = _ALL) -> int:
    """How many exemplars, up to a number, a version lacks."""
    return (
        session.scalar(
            text(
                f"SELECT count(*) FROM exemplar WHERE {_WANTED} AND id <= :until AND {_lacks(version)}"  # noqa: S608
            ),
            {**vars(images), "until": until},
        )
        or 0
    )


def missing(
    session: Session, version: int, images: Images, *, limit: int, after: int = 0, of: Sequence[int] = ()
) -> list[Missing]:
    """Exemplars that a version lacks, in the order of their numbers.

    Args:
        after: Only those of greater numbers.
        of: Only these, unless empty.
    """
    found = session.execute(
        text(
            f"""SELECT id, image_key, patient_hash, study_hash FROM exemplar
                WHERE {_WANTED} AND id > :after AND {_lacks(version)}
                  AND (NOT :some OR id = ANY(:of))
                ORDER BY id LIMIT :limit"""  # noqa: S608
        ),
        {**vars(images), "after": after, "limit": limit, "some": bool(of), "of": list(of)},
    )
    return [
        Missing(
            exemplar_id=row.id,
            image_key=row.image_key,
            patient_hash=None if row.patient_hash is None else bytes(row.patient_hash),
            study_hash=bytes(row.study_hash),
        )
        for row in found
    ]


def load(session: Session, version: int, exemplars: Sequence[Missing], matrix: NDArray[np.float16]) -> None:
    """Load vectors that the version certainly lacks by binary COPY, straight into its table.

    Args:
        matrix: ``[unit(v) ; unit(z)]`` a row, ``(M, D + K)``.
    """
    ids = np.array([one.exemplar_id for one in exemplars], np.int64)
    blocks = []
    order = sorted(range(len(exemplars)), key=lambda place: exemplars[place].patient_hash is None)
    for _, places in groupby(order, key=lambda place: exemplars[place].patient_hash is None):
        chosen = list(places)
        columns = (
            [exemplars[place].patient_hash for place in chosen],
            [exemplars[place].study_hash for place in chosen],
        )
        blocks.append(packed(ids[chosen], matrix[chosen], columns))
    connection: Any = session.connection().connection  # psycopg2's own, for COPY
    with connection.cursor() as cursor:
        cursor.copy_expert(
            f"COPY {_table(version)} (exemplar_id, patient_hash, study_hash, embedding) "
            "FROM STDIN WITH (FORMAT binary)",
            BytesIO(binary_copy(blocks)),
            size=1 << 20,
        )


def reuse(
    session: Session, version: int, source: int, images: Images, *, limit: int, after: int
) -> tuple[int, int | None]:
    """Copy vectors of another version of the same encoder for exemplars that this one lacks.

    The number of an exemplar stands for its content, so its vector under one encoder never changes.

    Returns:
        How many were copied, and the last number that was looked at; ``None`` when there are no more.
    """
    row = session.execute(
        text(
            f"""WITH page AS (
                SELECT held.* FROM {_table(source)} AS held WHERE held.exemplar_id > :after
                ORDER BY held.exemplar_id LIMIT :limit
            ), copied AS (
                INSERT INTO {_table(version)} (exemplar_id, patient_hash, study_hash, embedding)
                SELECT page.exemplar_id, page.patient_hash, page.study_hash, page.embedding
                FROM page JOIN exemplar ON exemplar.id = page.exemplar_id WHERE {_WANTED}
                ON CONFLICT DO NOTHING RETURNING exemplar_id)
            SELECT (SELECT count(*) FROM copied) AS copied, (SELECT max(exemplar_id) FROM page) AS last"""  # noqa: S608
        ),
        {**vars(images), "after": after, "limit": limit},
    ).one()
    return row.copied, row.last


def sources(session: Session, version: int) -> list[int]:
    """Other versions of the same encoder whose vectors can be reused, newest first."""
    encoder = find(session, version).encoder_digest
    return list(
        session.scalars(
            select(ExemplarIndexRecord.id)
            .where(
                ExemplarIndexRecord.encoder_digest == encoder,
                ExemplarIndexRecord.id != version,
                ExemplarIndexRecord.state == "ready",
            )
            .order_by(ExemplarIndexRecord.id.desc())
        )
    )


def examine(
    session: Session, version: int, images: Images, *, features: int, dimensions: int, until: int = _ALL
) -> Vectors:
    """Look at every vector of a version.

    Args:
        until: Leave out what was imported later.
        features: D, length of the visual half.
        dimensions: D + K.
    """
    found = session.execute(
        text(
            f"""SELECT count(*) AS rows,
                    count(*) FILTER (WHERE vector_dims(embedding) <> :dimensions) AS other_dimensions,
                    coalesce(max(greatest(
                        CASE WHEN v.length > 0 THEN abs(v.length - 1) ELSE 0 END,
                        CASE WHEN z.length > 0 THEN abs(z.length - 1) ELSE 0 END)), 0) AS worst_norm,
                    count(*) FILTER (WHERE v.length = 0 OR z.length = 0) AS zeros
                FROM {_table(version)} AS held
                CROSS JOIN LATERAL (SELECT l2_norm(subvector(embedding, 1, :features)) AS length) AS v
                CROSS JOIN LATERAL (
                    SELECT l2_norm(subvector(embedding, :features + 1, :dimensions - :features)) AS length
                ) AS z WHERE exemplar_id <= :until"""  # noqa: S608
        ),
        {"features": features, "dimensions": dimensions, "until": until},
    ).one()
    foreign = session.scalar(
        text(
            f"""SELECT count(*) FROM {_table(version)} AS held
                WHERE NOT EXISTS (SELECT FROM exemplar WHERE exemplar.id = held.exemplar_id AND {_WANTED})"""  # noqa: S608
        ),
        vars(images),
    )
    return Vectors(
        rows=found.rows,
        wanted=count_wanted(session, images, until=until),
        missing=count_missing(session, version, images, until=until),
        foreign=foreign or 0,
        other_dimensions=found.other_dimensions,
        worst_norm=float(found.worst_norm),
        zeros=found.zeros,
    )


def read(
    session: Session, version: int, *, batch: int = 20_000
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
    """All vectors in the order of their exemplars, batch by batch: ids ``(M,)`` and rows ``(M, D + K)``."""
    dimensions = find(session, version).dimensions
    layout = np.dtype(
        [
            ("fields", ">i2"),
            ("id_bytes", ">i4"),
            ("id", ">i8"),
            ("bytes", ">i4"),
            ("dimensions", ">i2"),
            ("unused", ">i2"),
            ("vector", ">f2", (dimensions,)),
        ]
    )
    header, trailer, after = 19, 2, 0
    while True:
        connection: Any = session.connection().connection
        target = BytesIO()
        with connection.cursor() as cursor:
            cursor.copy_expert(
                f"COPY (SELECT exemplar_id, embedding FROM {_table(version)} "  # noqa: S608
                f"WHERE exemplar_id > {int(after)} ORDER BY exemplar_id LIMIT {int(batch)}) "
                "TO STDOUT WITH (FORMAT binary)",
                target,
            )
        content = target.getbuffer()[header : len(target.getbuffer()) - trailer]
        table = np.frombuffer(content, layout)
        if not len(table):
            return
        yield table["id"].astype(np.int64), table["vector"].astype(np.float16)
        after = int(table["id"][-1])


def vector_of(session: Session, version: int, exemplar_id: int) -> NDArray[np.float32] | None:
    """One stored vector."""
    found = session.scalar(
        text(f"SELECT embedding::text FROM {_table(version)} WHERE exemplar_id = :id"),  # noqa: S608
        {"id": exemplar_id},
    )
    return None if found is None else np.array(found.strip("[]").split(","), np.float32)


def set_verified(
    session: Session, version: int, table: Sequence[Mapping[str, Any]], reason: str | None
) -> None:
    """Keep the table of a verification: the version is ready, or failed for a reason.

    The active one stays ready whatever is found: to switch away from it is a person's decision, and an
    import that is under way looks like a fault.
    """
    values: dict[str, Any] = {"verification": [dict(row) for row in table], "reason": reason}
    if reason is None:
        values |= {"state": "ready", "ready_at": func.coalesce(ExemplarIndexRecord.ready_at, func.now())}
    elif not session.scalar(
        select(ActiveReleaseRecord.id).where(ActiveReleaseRecord.index_version == version)
    ):
        values |= {"state": "failed"}
    session.execute(
        update(ExemplarIndexRecord)
        .where(ExemplarIndexRecord.id == version, ExemplarIndexRecord.state != "dropped")
        .values(values)
    )


def drop(session: Session, version: int) -> None:
    """Drop the vectors of a version that nobody needs; its row stays, because readings name it.

    Raises:
        IndexVersionNotUsable: If it is active, or was a moment ago, a rollback would need it, a job builds
            it, or an unfinished reading pins it; nothing is dropped.
    """
    record = session.get(ExemplarIndexRecord, version, with_for_update=True, populate_existing=True)
    if record is None:
        find(session, version)
        raise AssertionError
    if record.state == "dropped":
        return
    needs = (
        (
            "it is active",
            select(ActiveReleaseRecord.id).where(ActiveReleaseRecord.index_version == version).exists(),
        ),
        (
            f"it was active less than {_LATELY_S} s ago",
            text(
                "EXISTS (SELECT FROM release_switch WHERE previous_index_version = :version "
                f"AND switched_at > now() - interval '{_LATELY_S} seconds')"
            ).bindparams(version=version),
        ),
        (
            "unfinished readings were made under it; wait for them with `nightread drain`",
            text("EXISTS (SELECT FROM reading WHERE index_version = :version AND state = 'open')").bindparams(
                version=version
            ),
        ),
        (
            "a rollback would need it",
            text(
                """EXISTS (SELECT FROM (SELECT * FROM release_switch WHERE undone_at IS NULL
                                        ORDER BY id DESC LIMIT 1) AS last
                           WHERE last.previous_index_version = :version)"""
            ).bindparams(version=version),
        ),
        (
            "a job is building it",
            text(
                """EXISTS (SELECT FROM job WHERE state IN ('waiting', 'running')
                           AND checkpoint ->> 'version' = CAST(:version AS text))"""
            ).bindparams(version=version),
        ),
    )
    for sentence, condition in needs:
        if session.scalar(select(condition)):
            raise IndexVersionNotUsable(f"Index version {version} is kept: {sentence}.")
    session.execute(text("SELECT drop_exemplar_vectors(:version)"), {"version": version})
    record.state = "dropped"
    session.flush()


def _table(version: int) -> str:
    """Name of a version's vector table; only a number can get into it."""
    return f"exemplar_vector_{int(version)}"
