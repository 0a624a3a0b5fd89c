-- Run once, by the image of Postgres, when the data directory is made: the three roles and the database's
-- owner. What each role may do comes with the migrations. Secrets are read from files, so no password
-- stands in a command line or in this repository.
\set owner_password `cat /run/secrets/postgres_owner`
\set worker_password `cat /run/secrets/postgres_worker`
\set analyst_password `cat /run/secrets/postgres_analyst`

CREATE ROLE nightread_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE nightread_worker LOGIN PASSWORD :'worker_password';
CREATE ROLE nightread_analyst LOGIN PASSWORD :'analyst_password';

-- Defaults that a connection can change for itself; the analyst's barrier is its privileges.
ALTER ROLE nightread_analyst SET default_transaction_read_only = on;
ALTER ROLE nightread_analyst SET statement_timeout = '60s';
-- A bound and no default: only a superuser may change it.
ALTER ROLE nightread_analyst SET temp_file_limit = '8GB';

ALTER DATABASE nightread OWNER TO nightread_owner;
REVOKE ALL ON DATABASE nightread FROM PUBLIC;
GRANT CONNECT ON DATABASE nightread TO nightread_owner, nightread_worker, nightread_analyst;
CREATE EXTENSION IF NOT EXISTS vector;

-- Everybody may call these in a fresh Postgres: with large objects an analyst could fill the disk, with advisory
-- locks hold up the sweep and the imports. orchestration/embedded/prepare.py has the same text.
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
