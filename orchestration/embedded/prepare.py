"""What must be there before work starts: roles and tables, buckets and the subscription to their events.

The supervisor runs this as a short program of its own, ``python -m orchestration.embedded.prepare
database|objects [SERVICE [doorbell]]``, and again until it succeeds. With a service's name the service is
embedded and ours to set up; without, only what the site's own rights allow is done; ``doorbell`` where MinIO
has that second target. Everything may be done twice.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from orchestration.embedded import object_store, postgres
from orchestration.embedded.home import Home
from orchestration.settings import Settings, SettingsError, load

EVENTS = (
    # Not `s3:ObjectCreated:*`: that one also tells of tags, retention and legal hold.
    "s3:ObjectCreated:Put",
    "s3:ObjectCreated:Post",
    "s3:ObjectCreated:Copy",
    "s3:ObjectCreated:CompleteMultipartUpload",
)


def prepare_database(settings: Settings, embedded: bool) -> None:
    """Make roles, database and extension where they are ours to make, then migrate as the owner."""
    if embedded:
        make_roles_and_database(Home(path=settings.home), settings)
    from orchestration.migrate import upgrade

    url = settings.database.migration_url
    if url is None:
        raise ValueError("no database URL")
    upgrade(url.get_secret_value())


# Everybody may call these in a fresh Postgres: with large objects an analyst could fill the disk, with
# advisory locks hold up the sweep and the imports. deploy/postgres/roles.sql has the same text.
NOT_FOR_EVERYBODY = """
DO $$
DECLARE one record;
BEGIN
    FOR one IN SELECT oid::regprocedure AS name, proname FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace
          AND (proname ~ '^(lo_|pg_advisory_|pg_try_advisory_)' OR proname IN ('loread', 'lowrite'))
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', one.name);
        IF one.proname LIKE '%advisory%' THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO nightread_owner, nightread_worker', one.name);
        END IF;
    END LOOP;
END $$;
"""


def make_roles_and_database(home: Home, settings: Settings) -> None:
    """The four roles of an embedded Postgres, its database and the extension ``vector``."""
    import psycopg2
    from psycopg2 import sql
    from sqlalchemy import make_url

    if settings.database.url is None:
        raise ValueError("no database URL")
    place = make_url(settings.database.url.get_secret_value())
    login: dict[str, Any] = {
        "host": place.host,
        "port": place.port,
        "user": postgres.ADMIN,
        "password": home.secret("postgres_admin"),
    }
    passwords = {role: home.secret(role) for role in (postgres.OWNER, postgres.WORKER, postgres.ANALYST)}
    database = sql.Identifier(postgres.DATABASE)
    connection = psycopg2.connect(dbname="postgres", **login)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for role, password in passwords.items():
                cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
                verb = "ALTER" if cursor.fetchone() else "CREATE"
                cursor.execute(
                    sql.SQL(verb + " ROLE {} LOGIN PASSWORD {}").format(
                        sql.Identifier(role), sql.Literal(password)
                    )
                )
            # Defaults that a connection can change for itself; the analyst's barrier is its privileges.
            analyst = sql.Identifier(postgres.ANALYST)
            cursor.execute(sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(analyst))
            cursor.execute(sql.SQL("ALTER ROLE {} SET statement_timeout = '60s'").format(analyst))
            # A bound and no default: only a superuser may change it.
            cursor.execute(sql.SQL("ALTER ROLE {} SET temp_file_limit = '8GB'").format(analyst))
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (postgres.DATABASE,))
            if cursor.fetchone() is None:
                owner = sql.Identifier(postgres.OWNER)
                cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, owner))
            cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
            for role in passwords:
                cursor.execute(
                    sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, sql.Identifier(role))
                )
    finally:
        connection.close()
    connection = psycopg2.connect(dbname=postgres.DATABASE, **login)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
            cursor.execute(NOT_FOR_EVERYBODY)
    finally:
        connection.close()


def prepare_objects(settings: Settings, embedded: str | None, doorbell: bool) -> None:
    """Make the buckets, and subscribe the receiver where the store is ours and tells of events."""
    from minio import Minio
    from minio.commonconfig import ENABLED
    from minio.error import S3Error
    from minio.notificationconfig import NotificationConfig, QueueConfig
    from minio.versioningconfig import VersioningConfig

    store = settings.objects
    if store.endpoint is None or store.access_key is None or store.secret_key is None:
        raise ValueError("no object store")
    client = Minio(
        store.endpoint,
        access_key=store.access_key.get_secret_value(),
        secret_key=store.secret_key.get_secret_value(),
        secure=store.secure,
        region=store.region,
    )
    for bucket in (store.studies_bucket, store.derived_bucket, store.releases_bucket):
        try:
            if not client.bucket_exists(bucket):
                client.make_bucket(bucket)
        except S3Error as error:
            # A site's own store may forbid both; its administrator made the buckets then.
            if embedded or error.code not in {"AccessDenied", "BucketAlreadyOwnedByYou"}:
                raise
    if embedded != "minio":
        return
    # An overwritten or deleted key loses nothing: what was announced can still be read.
    client.set_bucket_versioning(store.studies_bucket, VersioningConfig(ENABLED))
    targets = {"nightread": object_store.QUEUE_ARN}
    if doorbell:
        targets["doorbell"] = object_store.DOORBELL_ARN
    queues = [QueueConfig(list(EVENTS), config_id=name, queue=arn) for name, arn in targets.items()]
    client.set_bucket_notification(
        store.studies_bucket,
        NotificationConfig(queue_config_list=queues if settings.intake.events else []),
    )


def main(arguments: list[str]) -> int:
    """Prepare what the arguments name."""
    service = arguments[1] if len(arguments) > 1 else None
    try:
        settings = load()
        if arguments[0] == "database":
            prepare_database(settings, service is not None)
        else:
            prepare_objects(settings, service, "doorbell" in arguments[2:])
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 1
    except Exception as error:
        from orchestration.logging import places

        # The message may quote a statement or an address with a password: type and place say enough.
        print(f"{type(error).__module__}.{type(error).__qualname__}", file=sys.stderr)
        print("  " + "\n  ".join(places(error.__traceback__)), file=sys.stderr)
        if os.environ.get("NIGHTREAD_DEBUG"):
            raise
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
