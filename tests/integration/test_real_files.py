"""Real DICOM files, all together and twice: the same rows, whatever the order."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def _rows(running: Any) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in running.json("object", "list")}


def _put(running: Any, prefix: str, files: dict[str, bytes], seed: int) -> None:
    names = sorted(files)
    random.Random(seed).shuffle(names)
    store = running.store()
    for name in names:
        store.put_object("studies", f"{prefix}/{name}", io.BytesIO(files[name]), len(files[name]))
    running.run("drain", "--timeout", "170")


def _outcome(row: dict[str, Any], studies: dict[str, dict[str, Any]]) -> str:
    """``eligible`` for an instance whose study was drafted, else what became of object or study."""
    if row["state"] != "instance":
        return str(row["state"])
    state = studies[row["study_instance_uid"]]["state"]
    return "eligible" if state == "drafted" else str(state)


def test_all_files_together_and_again_in_another_order_give_the_same_rows(
    night: Callable[..., Any], test_data: Path
) -> None:
    folder = test_data / "dicom"
    expected = {
        entry["file"]: entry["expected"]
        for entry in map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())
    }
    files = {name: (folder / name).read_bytes() for name in expected}
    running = night()
    running.run("release", "init", "--recipe", "phantom")

    _put(running, "first", files, seed=1)
    first, worklist = _rows(running), running.json("worklist")
    studies = {one["study_instance_uid"]: one for one in worklist}
    assert len(first) == len(files)
    outcomes = {name: _outcome(first[f"first/{name}"], studies) for name in files}
    wrong = {
        name: outcome
        for name, outcome in outcomes.items()
        if outcome not in expected[name] and outcome != "conflict"
    }
    assert not wrong

    # A conflict is the later one of two that bring one SOP Instance UID with different content.
    with running.database() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT encode(object.sha256, 'hex') FROM instance JOIN object ON object.id = instance.object_id"
        )
        instances = {row[0] for row in cursor.fetchall()}
    shared = _sharing(files)
    for group in shared:
        states = sorted(first[f"first/{name}"]["state"] for name in group)
        assert states == ["conflict"] * (len(group) - 1) + ["instance"], group
    conflicts = {name for name, outcome in outcomes.items() if outcome == "conflict"}
    assert conflicts <= {name for group in shared for name in group}

    _put(running, "second", files, seed=2)
    second = _rows(running)
    assert len(second) == 2 * len(files)
    for name, content in files.items():
        was, now = first[f"first/{name}"]["state"], second[f"second/{name}"]["state"]
        digest = hashlib.sha256(content).hexdigest()
        assert now == ("duplicate" if digest in instances else was), name
        assert second[f"first/{name}"] == first[f"first/{name}"]
    volatile = {"arrived_at", "drafted_at"}
    again = {one["study_instance_uid"]: one for one in running.json("worklist")}
    assert set(again) == set(studies)
    for uid, document in again.items():
        for name in set(document) - volatile:
            assert document[name] == studies[uid][name], (uid, name)
    assert {row["role"] for row in running.json("status") if row["state"] != "running"} == set()


def _sharing(files: dict[str, bytes]) -> list[list[str]]:
    """Readable files of different content that bring the same SOP Instance UID."""
    from models.radiograph.eligibility import EligibilityPolicy, assess
    from models.radiograph.header import read_header
    from models.radiograph.reasons import REASONS, Disposition, Refused

    groups: dict[str, list[str]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        for name, content in files.items():
            path.write_bytes(content)
            try:
                header = read_header(path)
            except Refused:
                continue
            reason = assess(header, EligibilityPolicy())
            if reason is None or REASONS[reason].disposition is not Disposition.QUARANTINED:
                groups[header.sop_instance_uid].append(name)
    return [group for group in groups.values() if len(group) > 1]
