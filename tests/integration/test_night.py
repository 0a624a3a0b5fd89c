"""The night end to end with real services and processes: what comes in, and what the morning sees."""

from __future__ import annotations

import time
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def test_phantom_studies_are_drafted_and_odd_objects_have_the_outcome_they_must_have(
    hospital: Any, tmp_path: Any
) -> None:
    from training.datasets.phantom import write_folder
    from training.datasets.phantom.odd import odd_objects

    studies = list(write_folder(tmp_path, 61, 5, 256))
    files = sorted((tmp_path / "dicom").glob("*/*.dcm"))
    for file in files:
        hospital.put(f"night/{file.parent.name}/{file.name}", file.read_bytes())
    # One after the other: what repeats a film must come after it.
    hospital.until(
        lambda: (
            hospital.rows(
                "SELECT count(*) AS n FROM object WHERE key LIKE 'night/%%' AND state = 'instance'"
            )[0]["n"]
            == len(files)
        ),
        "all films are filed",
    )
    odd = odd_objects(61, files)
    for one in odd:
        hospital.put(f"night/{one.key}", one.content)
    hospital.until(
        lambda: (
            hospital.rows("SELECT count(*) AS n FROM object WHERE key LIKE 'night/odd/%%'")[0]["n"]
            == len(odd)
        ),
        "all odd objects are announced",
    )
    hospital.drain()
    for study in studies:
        row = hospital.study(study.study_instance_uid)
        assert row is not None
        assert row["state"] == "drafted"
        assert 0 <= row["no_finding"] <= 1
        assert row["findings"] or row["impression"]
        assert row["retrieval_reason"] == "no_exemplars", "an empty exemplar table is said, and no error"
        assert row["release_trained"] is False
    listed = {one["key"]: one for one in hospital.night.json("object", "list")}
    worklist = {one["study_instance_uid"]: one for one in hospital.night.json("worklist")}
    for one in odd:
        found = listed[f"night/{one.key}"]
        if one.expected_state == "ineligible":
            assert found["state"] == "instance", one.why
            study = worklist[found["study_instance_uid"]]
            assert (study["state"], study["reason"]["code"]) in {
                ("ineligible", reason) for reason in one.expected_reasons
            }, one.why
        else:
            assert found["state"] == one.expected_state, one.why
            if one.expected_reasons:
                assert found["reason"] in one.expected_reasons, one.why
    for study in worklist.values():
        if study["state"] in ("ineligible", "quarantined"):
            # Never a silent negative: no probability, no draft, and a sentence that says why.
            assert study["probabilities"] is None
            assert study["draft"] is None
            assert study["acuity"] is None
            assert study["reason"]["sentence"]


def test_a_manifest_settles_a_study_at_once_and_without_it_the_quiet_period_is_kept(
    hospital: Any, films: Any
) -> None:
    hospital.put("manifest/with/1.dcm", films.film("manifest-with"))
    hospital.put("manifest/without/1.dcm", films.film("manifest-without"))
    hospital.put("manifest/with/_complete.json", films.manifest("manifest-with"))
    with_s = hospital.until(lambda: hospital.readings(films.uid("manifest-with")), "it settles", 7)
    assert hospital.readings(films.uid("manifest-without")) == []
    without_s = with_s + hospital.until(
        lambda: hospital.readings(films.uid("manifest-without")), "its quiet period ends", 20
    )
    assert without_s > 7 > with_s
    assert [o["state"] for o in hospital.objects("manifest/with/_complete.json")] == ["ignored"]


def test_stat_studies_are_read_before_the_routine_ones_that_came_earlier(hospital: Any, films: Any) -> None:
    with hospital.stopped("worker-encode"):
        for n in range(25):
            hospital.put(f"lanes/{n}/1.dcm", films.film(f"lane-{n}"))
            hospital.put(f"lanes/{n}/_complete.json", films.manifest(f"lane-{n}"))
        hospital.until(
            lambda: all(hospital.readings(films.uid(f"lane-{n}")) for n in range(25)), "routine ones settle"
        )
        hospital.put("stat/lanes/1.dcm", films.film("lane-stat"))
        # Long before a routine quiet period is over, and without a manifest.
        hospital.until(lambda: hospital.readings(films.uid("lane-stat")), "the stat one settles", 7)
        hospital.until(
            lambda: (
                hospital.rows("SELECT count(*) AS n FROM step WHERE stage = 'encode' AND state = 'ready'")[0][
                    "n"
                ]
                >= 26
            ),
            "all wait for encode",
        )
    urgent = hospital.until_state(films.uid("lane-stat"), "drafted")
    others = [hospital.until_state(films.uid(f"lane-{n}"), "drafted") for n in range(25)]
    assert urgent["lane"] == "stat"
    # They share the first batch at encode. At report, eight at a time, it goes with the first, unless that
    # was taken from the lane of the oldest step, as one claim in eight is; three such in a row are left out.
    earlier = [other for other in others if other["drafted_at"] < urgent["drafted_at"]]
    assert len(earlier) <= 16


def test_readings_pile_up_at_a_stopped_stage_and_nowhere_else(hospital: Any, films: Any) -> None:
    hospital.drain()
    uids = [films.uid(f"pile-{n}") for n in range(6)]
    with hospital.stopped("worker-report"):
        for n in range(6):
            hospital.put(f"pile/{n}/1.dcm", films.film(f"pile-{n}"))
            hospital.put(f"pile/{n}/_complete.json", films.manifest(f"pile-{n}"))

        def piled() -> bool:
            return hospital.rows(
                "SELECT stage, count(*) AS n FROM step WHERE state IN ('ready', 'leased') GROUP BY stage"
            ) == [{"stage": "report", "n": 6}]

        hospital.until(piled, "six wait at report alone")
        time.sleep(3)
        assert piled(), "they stay there"
        assert {hospital.study(uid)["state"] for uid in uids} == {"reading"}
        assert hospital.night.status()["worker-report"]["state"] == "stopped"
    for uid in uids:
        hospital.until_state(uid, "drafted")
    hospital.drain()


def test_a_worker_stopped_for_longer_than_its_lease_loses_its_steps_and_repeats_nothing(
    hospital: Any, films: Any
) -> None:
    """The lease is shortened from outside, so that the test need not wait for it."""
    uids = [films.uid(f"lease-{n}") for n in range(16)]
    report = hospital.pids("worker-report")
    leased = "SELECT FROM step WHERE stage = 'report' AND state = 'leased'"
    with hospital.stopped("worker-retrieve"):
        for n in range(len(uids)):
            hospital.put(f"lease/{n}/1.dcm", films.film(f"lease-{n}"))
            hospital.put(f"lease/{n}/_complete.json", films.manifest(f"lease-{n}"))
        waiting = "SELECT count(*) AS n FROM step WHERE stage = 'retrieve' AND state = 'ready'"
        hospital.until(lambda: hospital.rows(waiting)[0]["n"] == len(uids), "all wait at retrieve")
    # The report worker is stopped as soon as it holds some.
    hospital.until(lambda: hospital.rows(leased), "the report worker has begun")
    with hospital.held(report), hospital.night.database() as connection:
        cursor = connection.cursor()
        cursor.execute(
            "UPDATE step SET lease_expires_at = now() - interval '1 second' "
            "WHERE stage = 'report' AND state = 'leased' RETURNING id"
        )
        held = [row[0] for row in cursor.fetchall()]
        assert held, "it was stopped with steps in its hands"
        hospital.until(lambda: not hospital.rows(leased), "the reaper has taken them back", 20)
    for uid in uids:
        hospital.until_state(uid, "drafted")
        assert [r["state"] for r in hospital.readings(uid)] == ["drafted"]
    hospital.drain()
    steps = hospital.rows("SELECT fence, state FROM step WHERE id = ANY(%s)", held)
    assert all(step["fence"] >= 2 and step["state"] == "done" for step in steps)
    log = (hospital.night.home / "logs" / "worker-report.log").read_text()
    assert "fence_refused" in log, "what it wrote late was refused"


def test_a_late_better_frontal_is_a_new_current_reading(hospital: Any, films: Any) -> None:
    uid = films.uid("late-frontal")
    hospital.put("late/f/1.dcm", films.film("late-frontal", view="AP"))
    hospital.put("late/f/_complete.json", films.manifest("late-frontal"))
    first = hospital.until_state(uid, "drafted")
    assert first["revision"] == 1
    hospital.put("late/f/2.dcm", films.film("late-frontal", "2", view="PA"))
    hospital.until(lambda: len(hospital.readings(uid)) == 2, "revision 2 settles")
    second = hospital.until_state(uid, "drafted")
    assert second["revision"] == 2
    old, new = hospital.readings(uid)
    assert (old["is_current"], new["is_current"]) == (False, True)
    assert (new["state"], new["revision"]) == ("drafted", 2)
    assert new["instance_id"] != old["instance_id"]
    assert second["drafted_at"] > first["drafted_at"]


def test_a_late_lateral_is_a_revision_that_ends_unchanged(hospital: Any, films: Any) -> None:
    uid = films.uid("late-lateral")
    hospital.put("late/l/1.dcm", films.film("late-lateral"))
    hospital.put("late/l/_complete.json", films.manifest("late-lateral"))
    hospital.until_state(uid, "drafted")
    hospital.put("late/l/2.dcm", films.film("late-lateral", "2", view="LL"))
    hospital.until(
        lambda: [r["state"] for r in hospital.readings(uid)] == ["drafted", "unchanged"], "unchanged"
    )
    row = hospital.study(uid)
    assert row is not None
    assert (row["state"], row["revision"]) == ("drafted", 2)
    assert [r["is_current"] for r in hospital.readings(uid)] == [True, False]


def test_repeated_and_contradicting_objects_change_nothing(hospital: Any, films: Any) -> None:
    uid = films.uid("repeat")
    film = films.film("repeat")
    hospital.put("repeat/1.dcm", film)
    hospital.put("repeat/_complete.json", films.manifest("repeat"))
    before = hospital.until_state(uid, "drafted")
    hospital.put("repeat/1.dcm", film)  # identical, same key
    hospital.put("repeat/copy.dcm", film)  # the same bytes under another key
    hospital.put("repeat/other.dcm", films.film("repeat", salt=1))  # the same instance, other content
    hospital.until(
        lambda: (
            [o["state"] for o in hospital.objects("repeat/other.dcm")] == ["conflict"]
            and [o["state"] for o in hospital.objects("repeat/copy.dcm")] == ["duplicate"]
        ),
        "a conflict and a duplicate",
    )
    hospital.put("repeat/marker.dcm", films.film("repeat-marker"))
    hospital.until(lambda: hospital.objects("repeat/marker.dcm"), "a later event came")
    hospital.drain()
    assert [o["state"] for o in hospital.objects("repeat/1.dcm")] == ["instance"]
    assert hospital.study(uid) == before
    assert len(hospital.readings(uid)) == 1
    conflict = next(o for o in hospital.night.json("object", "list") if o["key"] == "repeat/other.dcm")
    assert (conflict["state"], conflict["reason"]) == ("conflict", "same_sop_instance_uid")


def test_a_key_overwritten_with_other_content_is_two_objects(hospital: Any, films: Any) -> None:
    hospital.put("over/1.dcm", films.film("over-a"))
    hospital.until(lambda: [o["state"] for o in hospital.objects("over/1.dcm")] == ["instance"], "filed")
    hospital.put("over/1.dcm", films.film("over-b"))
    hospital.until(
        lambda: [o["state"] for o in hospital.objects("over/1.dcm")] == ["instance", "instance"], "filed too"
    )
    rows = hospital.objects("over/1.dcm")
    assert rows[0]["study_id"] != rows[1]["study_id"]
    # The film that was overwritten is the study's only one; its bytes are gone, and the study says so.
    hospital.drain()
    first = hospital.study(films.uid("over-a"))
    assert first is not None
    assert first["state"] in ("drafted", "ineligible", "quarantined")
    assert (first["state"] == "drafted") == (first["no_finding"] is not None)
    assert hospital.until_state(films.uid("over-b"), "drafted")
