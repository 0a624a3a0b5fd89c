"""Migrations, comments, rights: what an administrator and an analyst may count on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from db import exemplars, testing
from db.analytics.worklist import worklist
from db.engine import transaction
from db.tables import PredictionRecord
from db.tables.states import PATHOLOGY_COLUMNS
from models.pathologies import PATHOLOGIES
from orchestration import migrate


def test_the_columns_are_the_fourteen_pathologies_in_their_order() -> None:
    names = tuple(p.value for p in PATHOLOGIES)
    assert names == PATHOLOGY_COLUMNS
    assert set(names) <= set(PredictionRecord.__table__.columns.keys())


@pytest.fixture
def other_database(owner_url: str, services: object) -> Iterator[str]:
    """An empty database of its own with the extension, as an administrator would make it."""
    place = make_url(owner_url)
    secret = services.home / "run" / "secrets.json"  # type: ignore[attr-defined]
    import json

    admin = place.set(
        username="admin", password=json.loads(secret.read_text())["postgres_admin"], database="postgres"
    )
    name = "migration_trial"
    server = create_engine(admin, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(text(f"CREATE DATABASE {name} OWNER {place.username}"))
    inside = create_engine(admin.set(database=name), isolation_level="AUTOCOMMIT")
    with inside.connect() as connection:
        connection.execute(text("CREATE EXTENSION vector"))
    inside.dispose()
    yield place.set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


_LEFT = """
SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('public', 'analytics') AND c.relname NOT LIKE 'alembic_version%'
UNION ALL
SELECT 'function ' || p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname IN ('public', 'analytics')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname = 'analytics'
"""


def test_migrations_go_up_match_the_mappings_come_back_to_nothing_and_go_up_again(
    other_database: str,
) -> None:
    migrate.upgrade(other_database)
    migrate.check(other_database)
    engine = create_engine(other_database)
    with transaction(engine) as session:
        release_id = testing.make_release(session)
        exemplars.create_index(session, release_id=release_id, encoder_digest="e", dimensions=62)
    migrate.check(other_database)  # tables of index versions are made at run time and are no difference
    migrate.downgrade(other_database)
    with engine.connect() as connection:
        assert connection.execute(text(_LEFT)).scalars().all() == []
    migrate.upgrade(other_database)
    migrate.check(other_database)
    engine.dispose()


def test_every_table_and_view_and_every_column_has_words(owner: Engine) -> None:
    with transaction(owner) as session:
        release_id = testing.make_release(session)
        exemplars.create_index(session, release_id=release_id, encoder_digest="e", dimensions=62)
    with owner.connect() as connection:
        speechless = (
            connection.execute(
                text(
                    """SELECT c.relname || coalesce('.' || a.attname, '')
                       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                       LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                       WHERE n.nspname IN ('public', 'analytics') AND c.relkind IN ('r', 'v')
                         AND c.relname <> 'alembic_version'
                         AND (coalesce(col_description(c.oid, a.attnum), '') = ''
                              OR coalesce(obj_description(c.oid, 'pg_class'), '') = '')"""
                )
            )
            .scalars()
            .all()
        )
    assert speechless == []


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM study",
        "DROP TABLE study",
        "TRUNCATE step",
        "CREATE TABLE mine (a int)",
        "ALTER TABLE study ADD COLUMN a int",
    ],
)
def test_a_worker_removes_and_changes_no_table(engine: Engine, statement: str) -> None:
    with (
        pytest.raises(ProgrammingError, match=r"permission denied|must be owner"),
        engine.begin() as connection,
    ):
        connection.execute(text(statement))


def test_a_worker_makes_and_drops_vector_tables_by_number_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("SELECT create_exemplar_vectors(4711, 62)"))
        connection.execute(text("SELECT drop_exemplar_vectors(4711)"))
        connection.execute(text("SELECT drop_exemplar_vectors(4711)"))
    with pytest.raises(DBAPIError, match="15 to 4000 dimensions"), engine.begin() as connection:
        connection.execute(text("SELECT create_exemplar_vectors(4712, 4001)"))


def test_the_worklist_of_an_empty_database_is_empty(engine: Engine) -> None:
    with transaction(engine) as session:
        assert list(worklist(session)) == []


def test_an_error_of_the_driver_shows_no_value_of_a_row(engine: Engine) -> None:
    with transaction(engine) as session:
        testing.announce(session, ["DOE^JANE"])
    with pytest.raises(DBAPIError) as caught, engine.begin() as connection:
        connection.execute(
            text("INSERT INTO study (study_instance_uid, lane) VALUES (:name, 100000)"), {"name": "DOE^JANE"}
        )
    assert "DOE" not in str(caught.value)
