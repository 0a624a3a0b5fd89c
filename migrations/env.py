"""Alembic's entry: it is handed a connection or a URL, and never reads the environment.

``alembic`` on the command line (``alembic check``) takes the URL as ``-x url=...``.
"""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection

from db.tables import Record


def _include(name: str | None, kind: str, _parents: Any) -> bool:
    """Leave out what is made at run time: the tables of index versions."""
    return not (kind == "table" and name is not None and name.startswith("exemplar_vector_"))


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Record.metadata,
        include_name=_include,
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def _main() -> None:
    connection = context.config.attributes.get("connection")
    if connection is not None:
        _run(connection)
        return
    url = context.get_x_argument(as_dictionary=True).get("url")
    if not url:
        raise SystemExit("give the database as: alembic -x url=postgresql+psycopg2://... COMMAND")
    engine = create_engine(url)
    with engine.connect() as connection:
        _run(connection)


_main()
