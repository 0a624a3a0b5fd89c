"""``nightread sql``: the documented views, asked as the role that may read nothing else."""

from __future__ import annotations

import csv as csv_format
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Annotated, Any

import typer

from orchestration.cli._common import JsonOption, fail, print_table, running_settings

app = typer.Typer()

SEARCH_PATH = "analytics, public"
"""``worklist`` alone means ``analytics.worklist``; the base tables are in reach of no privilege."""


@app.command()
def sql(
    query: Annotated[
        str | None, typer.Argument(help="One query; `-` reads it from stdin; none: psql.")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a head line.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask the documented views in SQL, as the role that may read nothing else.

    docs/sql-guide.md has questions to begin with. CSV and JSON are printed as the rows come, so a long
    answer needs no memory; in JSON times are text and intervals seconds. Exit code 1: the database refused,
    or ended a statement that took longer than the role's 60 seconds.

    Example: nightread sql "select state, count(*) from worklist group by state" --csv
    """
    if csv and as_json:
        fail("Choose one of --csv and --json.")
    site = running_settings()
    if site.database.analyst_url is None:
        fail("There is no analyst: set NIGHTREAD_DATABASE__ANALYST_URL.")
    url = site.database.analyst_url.get_secret_value()
    if query is None:
        _open_psql(url)
        return
    _ask(url, sys.stdin.read() if query == "-" else query, "csv" if csv else "json" if as_json else "table")


def _ask(url: str, query: str, form: str) -> None:
    import psycopg2

    # The driver itself: what the person wrote goes to the server as it is, colons and per cents too.
    try:
        connection = psycopg2.connect(
            url.replace("+psycopg2", ""), application_name="nightread-sql", connect_timeout=5
        )
    except psycopg2.OperationalError:
        # The driver's own message names address and account.
        fail(
            "Postgres did not let the analyst in: see `nightread status` and NIGHTREAD_DATABASE__ANALYST_URL."
        )
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET search_path = {SEARCH_PATH}")
        streams = query.split(None, 1)[:1] and query.split(None, 1)[0].lower() in {"select", "with", "table"}
        with connection.cursor("answer" if streams else None) as cursor:
            cursor.itersize = 5_000
            cursor.execute(query)
            rows = iter(cursor)
            # A cursor of the server knows its columns after the first rows.
            first = next(rows, None) if streams or cursor.description else None
            if cursor.description is not None:
                _print(form, [column.name for column in cursor.description], _all(first, rows))
    except psycopg2.Error as error:
        fail(_refusal(error))
    finally:
        connection.close()


def _all(first: Sequence[Any] | None, rest: Iterable[Sequence[Any]]) -> Iterable[Sequence[Any]]:
    if first is not None:
        yield first
        yield from rest


def _refusal(error: Any) -> str:
    """What the server said, in one line, with its hint."""
    said = (getattr(error.diag, "message_primary", None) or str(error)).strip().split("\n")[0]
    hint = getattr(error.diag, "message_hint", None)
    return f"{said} ({hint})" if hint else said


def _print(form: str, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    if form == "table":
        print_table(names, ([_for_people(cell) for cell in row] for row in rows))
    elif form == "csv":
        writer = csv_format.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)
    else:
        sys.stdout.write("[")
        for number, row in enumerate(rows):
            one = json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, default=_for_json)
            sys.stdout.write(("," if number else "") + "\n  " + one)
        sys.stdout.write("\n]\n")


def _for_people(cell: Any) -> object:
    if isinstance(cell, float):
        return f"{cell:.6g}"
    if isinstance(cell, list):
        return ", ".join(str(one) for one in cell)
    return cell


def _for_json(value: Any) -> object:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, date):  # a datetime is one too
        return value.isoformat()
    return value.hex() if isinstance(value, memoryview) else str(value)


def _open_psql(url: str) -> None:
    import os
    import shutil

    from sqlalchemy import make_url

    from orchestration.embedded.home import EmbeddedError
    from orchestration.embedded.postgres import binaries

    try:
        program = str(binaries() / "psql")
    except EmbeddedError:
        program = ""
    if not os.path.exists(program):
        program = shutil.which("psql") or ""
    if not program:
        fail("psql is not installed; give a query as an argument instead.")
    place = make_url(url)
    environment = dict(os.environ) | {
        "PGHOST": place.host or "",
        "PGPORT": str(place.port or 5432),
        "PGUSER": place.username or "",
        "PGPASSWORD": place.password or "",
        "PGDATABASE": place.database or "",
        "PGAPPNAME": "nightread-sql",
        "PGOPTIONS": f"-c search_path={SEARCH_PATH.replace(' ', '')}",
    }
    os.execve(program, [program], environment)  # noqa: S606
