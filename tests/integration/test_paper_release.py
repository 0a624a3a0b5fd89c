"""A night with a release of the recipe `paper`, made of miniature files in the public layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def test_a_release_from_public_files_reads_a_night(
    night: Callable[..., Any],
    encoder_file: Path,
    text_encoder: Path,
    language_model: Path,
    tmp_path: Path,
) -> None:
    running = night()
    made = running.json(
        "release",
        "init",
        "--recipe",
        "paper",
        "--encoder",
        str(encoder_file),
        "--text-encoder",
        str(text_encoder),
        "--language-model",
        str(language_model),
    )
    assert (made["active"], made["trained"]) == (True, False)
    running.run("phantom", "generate", "--seed", "5", "--n", "8", "--size", "256", str(tmp_path / "archive"))
    running.run("exemplar", "import", str(tmp_path / "archive"))
    running.run("phantom", "generate", "--seed", "6", "--n", "3", "--size", "256", str(tmp_path / "night"))
    running.run("study", "submit", str(tmp_path / "night" / "dicom"))
    running.run("drain", "--timeout", "170")
    worklist = running.json("worklist")
    assert [one["state"] for one in worklist] == ["drafted"] * 3
    for one in worklist:
        assert one["release"] == made["digest"]
        assert one["exemplar"] is not None
        assert one["draft"]["status"] == "preliminary"
