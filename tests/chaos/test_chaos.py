"""Whatever is killed at whatever moment: nothing is lost, nothing is done twice.

The judge is the uploader's own list. A failing case names its seed and what was struck when; run it again
with ``NIGHTREAD_CHAOS_CASES=SEED, pytest -m chaos`` (a list, hence the comma).
"""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

pytestmark = pytest.mark.chaos


def judge(victim: Any, ledger: Any, sent: list[Any], run: str) -> list[str]:
    """Everything that is wrong with what became of the objects of the ledger; empty when nothing is."""
    lines = ledger.lines()
    announced = {line["key"]: line["sha256"] for line in lines if line["event"] == "sent"}
    acknowledged = {line["key"] for line in lines if line["event"] == "acknowledged"}
    pattern = f"%{run}/%"
    objects: dict[str, list[Any]] = {}
    for row in victim.rows(
        "SELECT key, state, encode(sha256, 'hex'), reason FROM object WHERE key LIKE %s", pattern
    ):
        objects.setdefault(row[0], []).append(row)
    wrong = [f"lost: {key}" for key in acknowledged if key not in objects]
    wrong += [f"phantom: {key}" for key in objects if key not in announced]
    wrong += [f"twice: {key}: {rows}" for key, rows in objects.items() if len(rows) != 1]
    by_key = {one.key: one for one in sent}
    for key, rows in objects.items():
        _, state, sha256, reason = rows[0]
        if state not in by_key[key].states:
            wrong.append(f"{key} is {state} ({reason}), not {by_key[key].states}")
        if sha256 != announced[key]:
            wrong.append(f"{key}: the SHA-256 is not the uploader's")
    uids = {one.study: one for one in sent if one.study is not None}
    worklist = dict(
        victim.rows(
            "SELECT study_instance_uid, state FROM analytics.worklist WHERE study_instance_uid = ANY(%s)",
            list(uids),
        )
    )
    for uid, one in uids.items():
        if one.study_states and worklist.get(uid) not in one.study_states:
            wrong.append(f"the study of {one.key} is {worklist.get(uid)}, not {one.study_states}")
    for uid, readings, drafted, current, reports, predictions, retrievals in victim.rows(
        """SELECT study_instance_uid, count(reading.id), count(*) FILTER (WHERE reading.state = 'drafted'),
               count(*) FILTER (WHERE reading.id = study.current_reading_id),
               count(report.reading_id), count(prediction.reading_id), count(retrieval.reading_id)
           FROM study LEFT JOIN reading ON reading.study_id = study.id
           LEFT JOIN report ON report.reading_id = reading.id
           LEFT JOIN prediction ON prediction.reading_id = reading.id
           LEFT JOIN retrieval ON retrieval.reading_id = reading.id
           WHERE study_instance_uid = ANY(%s) GROUP BY study_instance_uid""",
        list(uids),
    ):
        expected = (1, 1, 1, 1, 1, 1) if uids[uid].study_states == ("drafted",) else (1, 0, 1, 0, 0, 0)
        counts = (readings, drafted, current, reports, predictions, retrievals)
        if counts != expected:
            wrong.append(f"the study of {uids[uid].key} has {counts} instead of {expected}")
    wrong += [
        f"a step of {stage} is {state} ({reason})"
        for stage, state, reason in victim.rows(
            "SELECT stage, state, reason FROM step WHERE state NOT IN ('done', 'cancelled')"
        )
    ]
    return wrong


def _drain(victim: Any) -> None:
    victim.night.run("drain", "--timeout", "180", "--quiet", timeout_s=240)


@pytest.mark.timeout(400)
def test_a_night_of_kills_loses_nothing_and_does_nothing_twice(
    victim: Any,
    chaos: Any,
    chaos_films: Any,
    uploader: Any,
    ledger: Any,
    run_name: str,
    chaos_seed: int,
    record_property: Any,
) -> None:
    rng = random.Random(chaos_seed)
    sent = chaos_films.night(run_name, rng)
    blows = chaos.schedule(chaos_seed, length_s=7.0)
    with chaos.Storm(victim, blows, chaos_seed) as storm:
        for one in sent[:-2]:
            uploader.put(one)
            time.sleep(rng.uniform(0, 0.3))
        # What repeats a film is sent when the film itself is known: the first to be filed counts.
        _until_filed(victim, run_name)
        for one in sent[-2:]:
            uploader.put(one)
    _drain(victim)
    recovered_s = round(time.monotonic() - storm.last, 1)
    record_property("struck", storm.struck)
    record_property("recovered_s", recovered_s)
    print(f"case {chaos_seed}: {storm.struck}, drained {recovered_s} s after the last blow")
    wrong = judge(victim, ledger, sent, run_name)
    assert wrong == [], f"case {chaos_seed}, struck {storm.struck}\n" + "\n".join(wrong)


def _until_filed(victim: Any, run: str, limit_s: float = 120) -> None:
    import psycopg2

    limit = time.monotonic() + limit_s
    while True:
        try:
            filed = victim.rows(
                "SELECT count(*) FROM object WHERE state = 'instance' AND (key LIKE %s OR key LIKE %s)",
                f"{run}/1 %",
                f"{run}/2 %",
            )[0][0]
            if filed == 2:
                return
        except psycopg2.OperationalError:
            pass
        assert time.monotonic() < limit, f"two films were not filed\n{victim.night.logs()}"
        time.sleep(0.2)


def test_a_poisoned_file_among_31_good_ones_of_a_batch_harms_none_of_them(
    victim: Any, chaos: Any, chaos_films: Any, uploader: Any, ledger: Any, run_name: str
) -> None:
    """The worker is stopped until all 32 wait for it, so that they are one batch."""
    import os
    import signal

    good = [one for one in chaos_films.night(run_name, random.Random(1), good=31) if one.study_states]
    good = [one for one in good if one.study_states == ("drafted",)]
    poison = chaos.Sent(
        key=f"{run_name}/poison.dcm",
        content=chaos_films.film(f"{run_name}/poison", Rows=65535, Columns=65535),
        study=None,
        states=("quarantined",),
        study_states=(),
    )
    sent = [*good[:15], poison, *good[15:]]
    assert len(sent) == 32
    pids = [victim.pid("worker-receive"), *victim.children("worker-receive")]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        for one in sent:
            uploader.put(one)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    _drain(victim)
    assert judge(victim, ledger, sent, run_name) == []
