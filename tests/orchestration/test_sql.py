"""``nightread sql`` and ``study similar``: answers for people and programs, refusals in a sentence."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from orchestration.cli import main
from orchestration.embedded import postgres
from orchestration.embedded.home import EmbeddedError
from orchestration.filling import filled_uid
from tests.filled import Filled

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def _at_the_filled(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in filled.environment.items():
        if name.startswith("NIGHTREAD_"):
            monkeypatch.setenv(name, value)


pytestmark = pytest.mark.usefixtures("_at_the_filled")


def test_csv_has_a_head_line_and_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    # More rows than are fetched at once; the schema need not be named.
    query = "select study_instance_uid, pathology, probability from findings order by 1, 2"
    assert main(["sql", query, "--csv"]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["study_instance_uid", "pathology", "probability"]
    assert len(rows) > 20_000
    assert all(0 <= float(row[2]) <= 1 for row in rows[1:])


def test_json_keeps_types_and_writes_moments_as_iso(capsys: pytest.CaptureFixture[str]) -> None:
    query = (
        "select study_instance_uid, acuity, positives, contradictions, arrived_at, release_trained, "
        "arrived_at - arrived_at + interval '90 s' as wait, 0.5 as half, 3::numeric as three, null as none "
        "from worklist where acuity is not null order by arrived_at limit 2"
    )
    assert main(["sql", query, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["study_instance_uid"].startswith("2.25.")
    assert isinstance(first["acuity"], float)
    assert isinstance(first["positives"], list)
    assert first["arrived_at"] < second["arrived_at"]
    assert first["arrived_at"][10] == "T"
    assert first["release_trained"] is False
    assert (first["wait"], first["half"], first["three"], first["none"]) == (90.0, 0.5, 3, None)


def test_an_empty_answer_has_columns_and_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    query = "select week, view from prevalence where week > 'infinity'::date"
    assert main(["sql", query, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["sql", query, "--csv"]) == 0
    assert capsys.readouterr().out == "week,view\n"
    assert main(["sql", query]) == 0
    assert capsys.readouterr().out == "week  view\n"


def test_what_a_person_writes_goes_to_the_server_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    question = "-- colons, per cents\nselect '100 %s :name'::text as \"a b\";"
    monkeypatch.setattr(sys, "stdin", io.StringIO(question))
    assert main(["sql", "-", "--csv"]) == 0
    assert capsys.readouterr().out == "a b\n100 %s :name\n"
    assert main(["sql", "explain table prevalence"]) == 0
    assert "Aggregate" in capsys.readouterr().out
    assert main(["sql", "set work_mem = '32MB'"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("select * from study", "permission denied for table study"),
        ("delete from report", "cannot execute DELETE in a read-only transaction"),
        ("create table mine (a int)", "cannot execute CREATE TABLE in a read-only transaction"),
        ("select nothing from worklist", 'column "nothing" does not exist'),
        ("select 1/0 from worklist", "division by zero"),
        ("selec 1", 'syntax error at or near "selec"'),
        ("  ", "can't execute an empty query"),
    ],
)
def test_a_refusal_is_one_sentence_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], query: str, sentence: str
) -> None:
    assert main(["sql", query, "--csv"]) == 1
    told = capsys.readouterr()
    assert told.err == f"{sentence}\n"
    assert told.out == ""


def test_a_server_that_lets_nobody_in_is_said_without_its_address(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, filled: Filled
) -> None:
    monkeypatch.setenv("NIGHTREAD_DATABASE__ANALYST_URL", filled.analyst_url.replace("/filled", "/nowhere"))
    assert main(["sql", "select 1"]) == 1
    assert capsys.readouterr().err.startswith("Postgres did not let the analyst in")


def test_csv_and_json_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", "select 1", "--csv", "--json"]) == 1
    assert capsys.readouterr().err == "Choose one of --csv and --json.\n"


def test_without_a_query_it_is_psql_as_the_analyst(filled: Filled) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.cli", "sql"],
        input="\\pset format unaligned\nselect current_user, count(*) > 0 from worklist;\n",
        env=filled.environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "nightread_analyst|t" in done.stdout


def test_without_psql_it_says_what_to_do_instead(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def none() -> Path:
        raise EmbeddedError("not installed")

    monkeypatch.setattr(postgres, "binaries", none)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["sql"]) == 1
    assert capsys.readouterr().err == ("psql is not installed; give a query as an argument instead.\n")


def test_similar_cases_of_a_study_in_a_table_and_as_json(
    filled: Filled, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = create_engine(filled.analyst_url)
    with engine.connect() as connection:
        uid = connection.scalar(
            text(
                "SELECT study_instance_uid FROM analytics.readings WHERE is_current AND state = 'drafted' "
                "AND release_name = 'filled-0-b' ORDER BY settled_at LIMIT 1"
            )
        )
        expected = connection.execute(
            text("SELECT exemplar_id FROM analytics.similar_exemplars(:uid, 3) ORDER BY rank"), {"uid": uid}
        )
        ids = expected.scalars().all()
    engine.dispose()
    assert main(["study", "similar", uid, "-k", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["exemplar_id"] for one in found] == ids
    for one in found:
        # The two releases weigh both alike.
        assert one["similarity"] == pytest.approx(
            (one["visual_similarity"] + one["disease_similarity"]) / 2, abs=1e-3
        )
    assert main(["study", "similar", uid, "-k", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["rank", "exemplar", "similarity", "visual", "disease", "labels"]
    assert [int(line.split()[1]) for line in lines[1:]] == ids


def test_a_study_that_cannot_be_searched_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "similar", "1.2.3"]) == 1
    assert capsys.readouterr().err == "No study has this Study Instance UID.\n"
    assert main(["study", "similar", filled_uid(0, 3), "--index-version", "99"]) == 1
    assert capsys.readouterr().err == (
        "Index version 99 is not to be searched: it does not exist, was dropped or is not ready.\n"
    )
    assert main(["study", "similar", filled_uid(0, 3), "-k", "0"]) == 2
    assert "-k" in capsys.readouterr().err
