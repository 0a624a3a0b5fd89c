"""Exemplars: imported once, their vectors in one narrow table an index version, searched exactly.

The vector of an exemplar is ``[unit(v) ; unit(z)]`` (visual mean and logits) as ``halfvec``; a query is
``[alpha * unit(v) ; (1 - alpha) * unit(z)]``, so that one inner product *is* Eq. 8 for any alpha, and both
similarities can be read back by zeroing the other half of the query.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from db.tables import ExemplarIndexRecord, ExemplarRecord


@dataclass(frozen=True, kw_only=True)
class Exemplar:
    """A reported case, ready to be stored."""

    content_sha256: bytes
    patient_hash: bytes | None
    study_hash: bytes
    findings: str
    impression: str
    labels: list[str] | None
    rendering: str
    image_key: str
    source: str
    image_size: int = 224
    """Side of the image in pixels."""
    origin_sha256: bytes | None = None
    """Digest of what was imported, before anything was rendered."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """One search: a vector and whom it must not find."""

    vector: Sequence[float]
    """``[alpha * unit(v) ; (1 - alpha) * unit(z)]``."""
    visual: Sequence[float]
    """``unit(v)``."""
    disease: Sequence[float]
    """``unit(z)``."""
    patient_hash: bytes | None
    study_hash: bytes


@dataclass(frozen=True, kw_only=True)
class Match:
    """The most similar exemplar, with the similarities of Eq. 8."""

    exemplar_id: int
    similarity: float
    visual_similarity: float
    disease_similarity: float


def add(session: Session, exemplars: Sequence[Exemplar]) -> dict[bytes, int]:
    """Store exemplars; returns the id of each content, new or known."""
    if exemplars:
        # In the order of the contents, so that two imports of the same cases never wait for each other. The
        # same content twice in a batch would be an error of the statement.
        distinct = {one.content_sha256: vars(one) for one in exemplars}
        added = insert(ExemplarRecord).values([distinct[content] for content in sorted(distinct)])
        session.execute(
            added.on_conflict_do_update(
                index_elements=["content_sha256"],
                set_={"origin_sha256": added.excluded.origin_sha256},
                where=added.excluded.origin_sha256.is_not(None),
            )
        )
    return numbers(session, [one.content_sha256 for one in exemplars])


def numbers(session: Session, contents: Sequence[bytes]) -> dict[bytes, int]:
    """The numbers of those of these contents that are known."""
    rows = session.execute(
        select(ExemplarRecord.content_sha256, ExemplarRecord.id).where(
            ExemplarRecord.content_sha256.in_(list(contents))
        )
    )
    return {bytes(content): exemplar_id for content, exemplar_id in rows}


_IMPORT_LOCK = "hashtextextended('exemplar.import', 0)"


def share_imports(session: Session) -> None:
    """Hold back a switch of index versions until this transaction, which adds exemplars, is over."""
    session.execute(text(f"SELECT pg_advisory_xact_lock_shared({_IMPORT_LOCK})"))


def stop_imports(session: Session) -> None:
    """Let no exemplar be added until this transaction is over, which looks for missing ones and switches."""
    session.execute(text(f"SELECT pg_advisory_xact_lock({_IMPORT_LOCK})"))


def known_origins(session: Session, origins: Sequence[bytes]) -> set[bytes]:
    """Those of these origins that were imported already."""
    found = session.scalars(
        select(ExemplarRecord.origin_sha256).where(ExemplarRecord.origin_sha256.in_(list(origins)))
    )
    return {bytes(origin) for origin in found if origin is not None}


def count(session: Session) -> int:
    """How many exemplars there are."""
    return session.scalar(select(func.count()).select_from(ExemplarRecord)) or 0


def create_index(session: Session, *, release_id: int, encoder_digest: str, dimensions: int) -> int:
    """Begin an index version with an empty vector table; returns its number."""
    version = session.scalar(
        insert(ExemplarIndexRecord)
        .values(release_id=release_id, encoder_digest=encoder_digest, dimensions=dimensions)
        .returning(ExemplarIndexRecord.id)
    )
    assert isinstance(version, int)
    session.execute(
        text("SELECT create_exemplar_vectors(:version, :dimensions)"),
        {"version": version, "dimensions": dimensions},
    )
    return version


def finish_index(session: Session, version: int) -> None:
    """Say that an index version is whole and may be searched."""
    session.execute(
        update(ExemplarIndexRecord)
        .where(ExemplarIndexRecord.id == version)
        .values(state="ready", ready_at=func.now())
    )


def indexed_ids(session: Session, version: int) -> set[int]:
    """Exemplars that an index version holds."""
    return set(session.scalars(text(f"SELECT exemplar_id FROM {_table(version)}")))  # noqa: S608


def has_vectors(session: Session, version: int) -> bool:
    """Whether an index version holds anything at all."""
    return bool(session.scalar(text(f"SELECT EXISTS (SELECT FROM {_table(version)})")))  # noqa: S608


def add_vectors(session: Session, version: int, vectors: Iterable[tuple[int, Sequence[float]]]) -> None:
    """Load vectors by binary COPY into a staging table, then insert what the version lacks.

    Args:
        vectors: Exemplar id and ``[unit(v) ; unit(z)]`` each.
    """
    connection: Any = session.connection().connection  # psycopg2's own, for COPY
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE incoming (exemplar_id bigint, embedding halfvec) ON COMMIT DROP")
        cursor.copy_expert("COPY incoming FROM STDIN WITH (FORMAT binary)", BytesIO(_binary_rows(vectors)))
        cursor.execute(
            f"INSERT INTO {_table(version)} (exemplar_id, patient_hash, study_hash, embedding) "  # noqa: S608
            "SELECT exemplar.id, exemplar.patient_hash, exemplar.study_hash, incoming.embedding "
            "FROM incoming JOIN exemplar ON exemplar.id = incoming.exemplar_id ON CONFLICT DO NOTHING"
        )
        cursor.execute("DROP TABLE incoming")


def _binary_rows(vectors: Iterable[tuple[int, Sequence[float]]]) -> bytes:
    """Rows of exemplar id and vector in PostgreSQL's binary COPY format."""
    listed = list(vectors)
    ids = np.array([exemplar_id for exemplar_id, _ in listed], np.int64)
    matrix = np.asarray([vector for _, vector in listed], np.float16)
    return binary_copy([packed(ids, matrix)] if len(ids) else [])


def binary_copy(blocks: Iterable[NDArray[np.void]]) -> bytes:
    """PostgreSQL's binary COPY format: signature, rows, trailer."""
    rows = b"".join(block.tobytes() for block in blocks)
    return b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0) + rows + struct.pack("!h", -1)


def packed(
    ids: NDArray[np.int64], matrix: NDArray[np.float16], hashes: Sequence[Sequence[bytes | None]] = ()
) -> NDArray[np.void]:
    """Rows of length-prefixed fields: id, columns of hashes, halfvec. All of a column null, or none.

    Made by numpy for all rows at once: row by row in Python it took eight times as long as the COPY itself.

    Args:
        ids: ``(M,)``.
        matrix: ``(M, D + K)``.
        hashes: Columns of M hashes of 32 bytes, or of nulls.
    """
    rows, dimensions = matrix.shape
    fields: list[Any] = [("fields", ">i2"), ("id_bytes", ">i4"), ("id", ">i8")]
    for number, column in enumerate(hashes):
        fields.append((f"hash_bytes_{number}", ">i4"))
        if column[0] is not None:
            fields.append((f"hash_{number}", "u1", (32,)))
    fields += [("bytes", ">i4"), ("dimensions", ">i2"), ("unused", ">i2"), ("vector", ">f2", (dimensions,))]
    table = np.zeros(rows, np.dtype(fields))
    table["fields"], table["id_bytes"], table["id"] = 2 + len(hashes), 8, ids
    for number, column in enumerate(hashes):
        table[f"hash_bytes_{number}"] = -1
        if column[0] is not None:
            table[f"hash_bytes_{number}"] = 32
            joined = b"".join(one for one in column if one is not None)
            table[f"hash_{number}"] = np.frombuffer(joined, np.uint8).reshape(rows, 32)
    table["bytes"], table["dimensions"], table["vector"] = 4 + 2 * dimensions, dimensions, matrix
    return table


def nearest(session: Session, version: int, query: Query) -> Match | None:
    """The most similar exemplar of another patient and study (Eq. 8), exactly; ``None`` if there is none."""
    row = session.execute(
        text(
            # The best row first, its two halves afterwards: in one SELECT all three products would be
            # computed for every row, before the sort.
            f"""SELECT exemplar_id,
                    -(embedding <#> CAST(:vector AS halfvec)) AS similarity,
                    -(embedding <#> CAST(:visual AS halfvec)) AS visual_similarity,
                    -(embedding <#> CAST(:disease AS halfvec)) AS disease_similarity
                FROM (SELECT exemplar_id, embedding FROM {_table(version)}
                      WHERE study_hash <> :study_hash
                        AND (CAST(:patient_hash AS bytea) IS NULL
                             OR patient_hash IS DISTINCT FROM CAST(:patient_hash AS bytea))
                      ORDER BY embedding <#> CAST(:vector AS halfvec), exemplar_id LIMIT 1) AS best"""  # noqa: S608
        ),
        {
            "vector": _literal(query.vector),
            "visual": _literal([*query.visual, *([0.0] * len(query.disease))]),
            "disease": _literal([*([0.0] * len(query.visual)), *query.disease]),
            "patient_hash": query.patient_hash,
            "study_hash": query.study_hash,
        },
    ).one_or_none()
    if row is None:
        return None
    return Match(
        exemplar_id=row.exemplar_id,
        similarity=row.similarity,
        visual_similarity=row.visual_similarity,
        disease_similarity=row.disease_similarity,
    )


def _literal(values: Sequence[float]) -> str:
    return "[" + ",".join(f"{float(value):.7g}" for value in values) + "]"


def _table(version: int) -> str:
    """Name of a version's vector table; only a number can get into it."""
    return f"exemplar_vector_{int(version)}"
