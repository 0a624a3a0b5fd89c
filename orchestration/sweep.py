"""The sweep: list the bucket again and announce what has no row. Enough by itself for correctness."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from sqlalchemy import Engine

from db import intake
from db.engine import transaction
from db.objects import ObjectStore, StoredObject

_PAGE = 1000


def sweep(engine: Engine, store: ObjectStore, *, stage: str, stat_prefixes: list[str]) -> int:
    """Announce every object of the bucket ``studies`` that is not known; returns how many were new.

    Each page is its own short transaction, so that a sweep of a million objects holds nothing up.

    Raises:
        ObjectStoreUnavailable: If the store stops answering; what was announced stays.
        DatabaseUnavailable: Likewise.
    """
    new = 0
    for page in pages(store.list_studies()):
        with transaction(engine) as session:
            missing = intake.unknown(session, page)
            new += intake.announce(session, missing, stage=stage, source="sweep", stat_prefixes=stat_prefixes)
    return new


def pages(listing: Iterator[StoredObject]) -> Iterator[list[StoredObject]]:
    """A listing in pages of 1,000."""
    while page := list(islice(listing, _PAGE)):
        yield page
