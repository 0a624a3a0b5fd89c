"""How long each kind of kill holds up the most urgent study. Runs with ``NIGHTREAD_CHAOS_CASES=all``."""

from __future__ import annotations

import random
import time
from typing import Any

import psycopg2
import pytest

pytestmark = pytest.mark.chaos

LIMIT_S = 60.0
"""A lease of 20 seconds, a start of torch, and a machine that is busy with something else."""


def _drafted(victim: Any, uid: str) -> bool:
    try:
        rows = victim.rows("SELECT state FROM analytics.worklist WHERE study_instance_uid = %s", uid)
    except psycopg2.OperationalError:
        return False
    return bool(rows) and rows[0][0] == "drafted"


@pytest.mark.timeout(200)
def test_an_urgent_study_is_drafted_soon_after_any_kill(
    victim: Any,
    chaos: Any,
    chaos_films: Any,
    uploader: Any,
    run_name: str,
    fault: str,
    record_property: Any,
) -> None:
    rng = random.Random(fault)
    routine = [one for one in chaos_films.night(run_name, rng, good=8) if one.study_states == ("drafted",)]
    for one in routine:
        uploader.put(one)
    time.sleep(1.5)  # the night is at work when it is struck
    hit = chaos.FAULTS[fault](victim, rng)
    started = time.monotonic()
    victim.ensure_supervised()
    study = f"{run_name}/urgent"
    urgent = chaos.Sent(
        key=f"stat/{study}.dcm",
        content=chaos_films.film(study),
        study=chaos_films.uid(study),
        states=("instance",),
        study_states=("drafted",),
    )
    uploader.put(urgent)
    while not _drafted(victim, urgent.study):
        assert time.monotonic() - started < LIMIT_S, f"{fault}\n{victim.night.logs()}"
        time.sleep(0.1)
    urgent_s = time.monotonic() - started
    while not all(_drafted(victim, one.study) for one in routine):
        assert time.monotonic() - started < 2 * LIMIT_S, f"{fault}\n{victim.night.logs()}"
        time.sleep(0.1)
    all_s = time.monotonic() - started
    record_property("recovered_s", round(urgent_s, 1))
    print(f"{fault:<20} hit={hit} urgent {urgent_s:.1f} s, all {all_s:.1f} s")
