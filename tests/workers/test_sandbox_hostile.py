"""Bombs and lies: each ends with a code, memory stays bounded, and the next good file is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.radiograph.reasons import REASONS, Refused
from tests.dicom_cases.hostile import HOSTILE, HostileFile
from tests.dicom_cases.radiographs import Storage, drawn_chest, store
from workers.sandbox import Sandbox

BOUND = 1536 << 20


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as shared:
        yield shared


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.dcm"
    path.write_bytes(store(drawn_chest(0), Storage()))
    return path


def read_whole(sandbox: Sandbox, path: Path) -> None:
    """What the pipeline does with an object: first the header, later the picture."""
    sandbox.read_header(path)
    sandbox.render(path)


@pytest.mark.parametrize("case", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_ends_with_its_code_and_hurts_nobody(
    case: HostileFile, sandbox: Sandbox, good: Path, tmp_path: Path
) -> None:
    path = tmp_path / "hostile.dcm"
    path.write_bytes(case.make())
    with pytest.raises(Refused) as refusal:
        read_whole(sandbox, path)
    assert refusal.value.code in case.codes
    assert refusal.value.code in REASONS
    assert sandbox.peak_bytes < BOUND
    assert sandbox.render(good).source_rows == 260
