"""A release is refused, promoted and rolled back while a night runs; reported studies become exemplars."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Hospital

pytestmark = pytest.mark.slow

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
SETTINGS = {
    "NIGHTREAD_INTAKE__QUIET_S": "1",
    "NIGHTREAD_GATE__DATASET": "phantom:2000003:100",
    "NIGHTREAD_GATE__STUDIES": "8",
    "NIGHTREAD_GATE__DRAFTS": "2",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small releases: two that nobody trained, and one that says that it was."""
    from models.release import MANIFEST_FILE, seal
    from training.initialise import initialise_release
    from training.plans import tiny

    made = {}
    for seed, name in enumerate(("untrained", "another", "trained")):
        made[name] = tmp_path_factory.mktemp("releases") / name
        initialise_release(tiny().recipe, made[name], seed=seed, texts=["No acute findings."] * 50)
    manifest = made["trained"] / MANIFEST_FILE
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"trained": True}))
    seal(made["trained"])
    return made


def _json(hospital: Hospital, *arguments: str) -> Any:
    """What a command prints with ``--json``; what loads networks may take its time on a busy machine."""
    return json.loads(hospital.night.run(*arguments, "--json", timeout_s=600).stdout)


@pytest.fixture(scope="module")
def running(_new_home: Callable[..., Any], folders: dict[str, Path]) -> Iterator[Hospital]:
    """A home in which the first of them is active and has a few exemplars."""
    with _new_home(SETTINGS) as night:
        night.run("up", timeout_s=1500)
        started = Hospital(night)
        assert _json(started, "release", "seal", str(folders["untrained"]))["active"]
        assert _json(started, "exemplar", "import", "phantom:5:12")["added"] > 0
        yield started


def _proof() -> str:
    """The query of docs/operations.md that proves that no reading mixes releases."""
    block = OPERATIONS.read_text().partition("No reading mixes releases.")[2].partition("```sql\n")[2]
    return block.partition("```")[0]


def _proven(hospital: Hospital) -> dict[str, int]:
    (row,) = hospital.rows(_proof())
    return dict(row)


def _current(hospital: Hospital) -> dict[str, str]:
    """Study to the digest of the release of its current reading."""
    return {
        row["study_instance_uid"]: row["digest"]
        for row in hospital.rows(
            "SELECT study_instance_uid, digest FROM study JOIN reading "
            "ON reading.id = study.current_reading_id AND reading.state = 'drafted' "
            "JOIN release ON release.id = reading.release_id"
        )
    }


def test_releases_change_while_a_night_runs_and_no_reading_mixes_them(
    running: Hospital, films: Any, folders: dict[str, Path]
) -> None:
    (first,) = [one for one in running.night.json("release", "list") if one["active"]]
    candidate = _json(running, "release", "seal", str(folders["another"]))
    workers = {name: row["pid"] for name, row in running.night.status().items() if row["role"] == "worker"}

    uids = [films.uid(f"promotion-{n}") for n in range(16)]
    for n in range(8):
        running.put(f"promotion/{n}.dcm", films.film(f"promotion-{n}"))
    for uid in uids[:2]:
        running.until_state(uid, "drafted", 300)
    said: list[Any] = []
    promotion = threading.Thread(
        target=lambda: said.append(
            running.night.run(
                "release", "promote", candidate["digest"], "--no-gate", "--reread-days", "1", "--json",
                timeout_s=1200, check=False,
            )
        )
    )  # fmt: skip
    promotion.start()
    for n in range(8, 16):
        running.put(f"promotion/{n}.dcm", films.film(f"promotion-{n}"))
    promotion.join(1200)
    assert said[0].returncode == 0, said[0].stderr + running.night.logs()
    promoted = json.loads(said[0].stdout)
    assert promoted["active"]
    running.until(lambda: len(_current(running)) == len(uids), "none is lost", 400)
    running.night.run("drain", "--jobs", "--timeout", "600", "--quiet", timeout_s=700)
    assert _current(running) == dict.fromkeys(uids, candidate["digest"]), "each study's new one is current"
    kept = running.rows(
        "SELECT count(*) AS n FROM reading JOIN report ON report.reading_id = reading.id "
        "JOIN release ON release.id = reading.release_id WHERE digest = %s",
        first["digest"],
    )[0]["n"]
    assert kept >= 2, "and the old readings stay with their drafts"
    assert set(_proven(running).values()) == {0}
    assert running.rows("SELECT count(*) AS n FROM reading")[0]["n"] == 16 + kept

    # Rolled back, the next study is read as before, by the same processes.
    assert running.night.json("release", "rollback")["digest"] == first["digest"]
    running.put("promotion/later.dcm", films.film("promotion-later"))
    running.until_state(films.uid("promotion-later"), "drafted", 300)
    assert _current(running)[films.uid("promotion-later")] == first["digest"]
    now = {name: row["pid"] for name, row in running.night.status().items() if row["role"] == "worker"}
    assert now == workers, "no worker was restarted"

    # And the query of the documents finds what it must: a reading that is made to name another release.
    with running.night.database() as connection, connection.cursor() as cursor:
        cursor.execute(
            "UPDATE reading SET release_id = (SELECT id FROM release WHERE digest = %s) "
            "WHERE id = (SELECT current_reading_id FROM study WHERE study_instance_uid = %s)",
            (candidate["digest"], films.uid("promotion-later")),
        )
    assert _proven(running)["index_of_another_encoder"] == 1


def test_the_administrators_commands_from_reported_studies_to_a_release_that_is_refused(
    running: Hospital, films: Any, folders: dict[str, Path], tmp_path: Path
) -> None:
    uid = films.uid("reported")
    running.put("reported/1.dcm", films.film("reported"))
    running.until_state(uid, "drafted", 300)

    # Reports of studies that were read here make exemplars of them.
    reports = tmp_path / "signed.jsonl"
    line = {
        "study_instance_uid": uid,
        "report": "FINDINGS: Cardiomegaly.\nIMPRESSION: Large heart.",
    }
    unknown = {"study_instance_uid": "2.25.1", "report": "Clear."}
    reports.write_text(f"{json.dumps(line)}\n{json.dumps(unknown)}\n")
    imported = _json(running, "exemplar", "import", "--reported", str(reports))
    assert (imported["added"], imported["refused"]) == (1, {"study_unknown": 1})
    assert _json(running, "exemplar", "import", "--reported", str(reports))["known"] == 1
    (row,) = running.rows("SELECT findings, labels, source FROM exemplar ORDER BY id DESC LIMIT 1")
    assert (row["findings"], row["labels"], row["source"]) == (
        "Cardiomegaly.",
        ["cardiomegaly"],
        "signed.jsonl",
    )

    # A re-index without waiting for it, and the old version again.
    (active,) = [one for one in running.night.json("exemplar", "versions") if one["active"]]
    job = running.night.json("exemplar", "reindex", "--no-wait")["job"]
    running.night.run("drain", "--jobs", "--timeout", "600", "--quiet", timeout_s=700)
    done = running.night.json("job", "show", str(job))
    assert (done["state"], done["result"]["active"]) == ("done", True)
    assert _json(running, "exemplar", "verify")["index_version"] == done["result"]["index_version"]
    running.night.run("exemplar", "activate", str(active["index_version"]))
    assert [one["index_version"] for one in running.night.json("exemplar", "versions") if one["active"]] == [
        active["index_version"]
    ]
    dropped = running.night.run("exemplar", "drop", str(active["index_version"]), "--yes", check=False)
    assert dropped.returncode == 1
    assert "is kept: it is active" in dropped.stderr

    # A worse release is refused: the table is printed, and the active row is what it was.
    trained = _json(running, "release", "seal", str(folders["trained"]))
    running.night.run("release", "promote", trained["digest"], "--no-gate", timeout_s=1200)
    (untrained,) = (
        one["digest"] for one in running.night.json("release", "list") if one["name"] == "tiny-untrained-0"
    )
    before = running.rows("SELECT * FROM active_release")
    refused = running.night.run(
        "release", "promote", untrained, "--reread-days", "1", check=False, timeout_s=1200
    )
    assert refused.returncode == 1, refused.stdout
    assert re.search(r"^trained +no: random weights +yes +- +worse$", refused.stdout, re.M), refused.stdout
    assert re.search(r"^macro AUROC ", refused.stdout, re.M), refused.stdout
    assert "is refused: it is worse than the active" in refused.stderr
    assert running.rows("SELECT * FROM active_release") == before
    (shown,) = running.night.json("job", "list", "--state", "failed")
    assert (shown["kind"], shown["reason"]["code"]) == ("promote", "gate_refused")
