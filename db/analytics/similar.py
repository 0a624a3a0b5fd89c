"""Similar cases of a study, through the one function that analysts may call."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from db.errors import StoreError


class NotSearchable(StoreError):
    """This study and index version cannot be searched together; the message says why and what to do."""


def similar_exemplars(
    session: Session, study: str, *, k: int = 10, index_version: int | None = None
) -> list[dict[str, Any]]:
    """The ``k`` exemplars most similar to a study, best first, as documents.

    Keys: ``rank, exemplar_id, similarity, visual_similarity, disease_similarity, labels, searched_version,
    release``; the similarities are those of Eq. 8.

    Raises:
        NotSearchable: If there is no such study or version, if no release with the version's encoder has
            read the study, or if k is not 1 to 100.
    """
    try:
        rows = session.execute(
            text(
                "SELECT * FROM analytics.similar_exemplars(:study, :k, CAST(:version AS bigint)) "
                "ORDER BY rank"
            ),
            {"study": study, "k": k, "version": index_version},
        ).mappings()
        return [dict(row) for row in rows]
    except DBAPIError as error:
        diagnostics = getattr(error.orig, "diag", None)
        # Messages of the function itself come from RAISE, and hold numbers of ours and nothing of a row.
        if diagnostics is None or diagnostics.source_function != "exec_stmt_raise":
            raise
        said = str(diagnostics.message_primary)
        raise NotSearchable(f"{said[:1].upper()}{said[1:]}.") from error
