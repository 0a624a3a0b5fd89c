"""With events off the sweep alone gives the same rows, for every store that speaks S3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def swept(_new_home: Callable[..., Any], hospital: Any) -> Iterator[Any]:
    """A second home beside the first, that is told of nothing."""
    settings = {
        "NIGHTREAD_INTAKE__EVENTS": "0",
        "NIGHTREAD_INTAKE__SWEEP_S": "2",
        "NIGHTREAD_INTAKE__QUIET_S": "6",
    }
    with _new_home(settings) as night:
        night.run("up", timeout_s=1500)
        night.run("release", "init", "--recipe", "phantom")
        yield type(hospital)(night)


def _picture(hospital: Any, prefix: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What became of the objects under a prefix and of their studies, without numbers and times."""
    objects = hospital.rows(
        "SELECT key, version, size_bytes, state, reason, encode(sha256, 'hex') AS sha256, lane FROM object "
        "WHERE key LIKE %s ORDER BY key, id",
        prefix + "%",
    )
    studies = hospital.rows(
        "SELECT worklist.* FROM analytics.worklist WHERE study_instance_uid IN "
        "(SELECT study_instance_uid FROM study JOIN object ON object.study_id = study.id "
        " WHERE object.key LIKE %s) ORDER BY study_instance_uid",
        prefix + "%",
    )
    for study in studies:
        for name in ("arrived_at", "drafted_at", "contradictions"):
            del study[name]
        # Other batches sum in another order, so the last digits, and a word that hangs on them, may differ.
        for name, value in study.items():
            if isinstance(value, float):
                study[name] = round(value, 2)
        study["findings"] = study["findings"] is not None
        study["impression"] = study["impression"] is not None
    return objects, studies


def test_the_sweep_alone_gives_the_rows_that_events_give(hospital: Any, swept: Any, tmp_path: Path) -> None:
    from training.datasets.phantom import write_folder
    from training.datasets.phantom.odd import odd_objects

    list(write_folder(tmp_path, 62, 3, 256))
    files = sorted((tmp_path / "dicom").glob("*/*.dcm"))
    for one in (swept, hospital):
        for file in files:
            one.put(f"both/{file.parent.name}/{file.name}", file.read_bytes())
        one.drain()
        for odd in odd_objects(62, files):
            one.put(f"both/{odd.key}", odd.content)
        one.put("stat/both a+%é.dcm", files[0].read_bytes() + b"\0" * 8)
    swept.drain()
    count = "SELECT count(*) AS n FROM object WHERE key LIKE 'both/%%' OR key LIKE 'stat/both%%'"
    hospital.until(lambda: hospital.rows(count) == swept.rows(count), "events told of as many")
    hospital.drain()
    for prefix in ("both/", "stat/both"):
        assert _picture(swept, prefix) == _picture(hospital, prefix)
    sources = "SELECT DISTINCT source FROM object WHERE key LIKE 'both/%%'"
    assert swept.rows(sources) == [{"source": "sweep"}]


def test_a_key_overwritten_between_two_sweeps_is_two_objects(swept: Any, films: Any) -> None:
    swept.put("twice.dcm", films.film("swept-twice-a"))
    swept.until(lambda: [o["state"] for o in swept.objects("twice.dcm")] == ["instance"], "the first sweep")
    swept.put("twice.dcm", films.film("swept-twice-b"))
    swept.until(
        lambda: [o["state"] for o in swept.objects("twice.dcm")] == ["instance", "instance"], "the second"
    )
    assert len({o["version"] for o in swept.objects("twice.dcm")}) == 2
