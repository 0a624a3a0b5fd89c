"""The gate: a worse release is refused and the table says why; a better one passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from db.tables import ReleaseRecord
from training.comparison import Outcomes
from training.datasets.common import DatasetError
from workers import gate
from workers.context import GateRules

RULES = GateRules(dataset="phantom:2000003:800", studies=64, drafts=24)


class Site:
    """A context with a home and the releases of some folders, and no database."""

    def __init__(self, home: Path, rules: GateRules = RULES) -> None:
        self.home = home
        self.rules = SimpleNamespace(gate=rules)
        self.folders: dict[int, Path] = {}
        self.read: list[int] = []

    def add(self, folder: Path) -> ReleaseRecord:
        from models.release import open_release

        manifest = open_release(folder).manifest
        self.folders[len(self.folders) + 1] = folder
        return record(len(self.folders), digest=manifest.digest, trained=manifest.trained)

    def release(self, release_id: int) -> Any:
        from models.release import open_release

        self.read.append(release_id)
        return open_release(self.folders[release_id])

    def reader(self, release_id: int) -> Any:
        return self.release(release_id).load_reader("cpu")

    def writer(self, release_id: int) -> Any:
        return self.release(release_id).load_writer("cpu")


def record(number: int, *, digest: str | None = None, trained: bool = True) -> ReleaseRecord:
    return ReleaseRecord(id=number, digest=digest or f"{number:x}" * 64, name=f"r{number}", trained=trained)


def remember(site: Site, of: ReleaseRecord, skill: float, seed: int) -> None:
    """Let the gate believe that it has let this release read: ``skill`` 0 guesses, 2 reads well."""
    studies = gate._studies(site)  # type: ignore[arg-type]
    random = np.random.default_rng(seed)
    logits = skill * (np.nan_to_num(studies.truth.targets) * 2 - 1)
    logits = logits + random.normal(size=logits.shape) - 1
    probabilities = (1 / (1 + np.exp(-logits))).astype(np.float32)
    said = (probabilities[: studies.drafts] > 0.5).astype(np.int64)
    path = site.home / "cache" / "gate" / f"{of.digest[:32]}-{studies.key}.npz"
    gate._keep(path, Outcomes(probabilities=probabilities, said=said))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def silent(done: int, total: int) -> None:
    pass


def test_one_that_guesses_is_refused_with_the_table_of_why(site: Site) -> None:
    active, candidate = record(1), record(2)
    remember(site, active, 2.0, 1)
    remember(site, candidate, 0.0, 2)
    verdict = gate.compare(site, candidate, active, silent)  # type: ignore[arg-type]
    assert not verdict.passed
    assert verdict.sentence.startswith(f"Release {'2' * 12} is refused: it is worse than the active")
    assert "macro AUROC" in verdict.sentence
    assert verdict.sentence.endswith("on 64 held-out studies, 24 of them drafted.")
    table = verdict.table().splitlines()
    assert table[0].split() == ["measure", "candidate", "active", "candidate", "-", "active", "verdict"]
    auroc = next(line for line in table if line.startswith("macro AUROC"))
    assert auroc.endswith("worse")
    assert auroc.count("[") == 3
    assert verdict.to_json()["rows"][0]["figures"]["difference"]["value"] < -0.2


def test_one_that_reads_better_passes_over_one_that_guesses(site: Site) -> None:
    active, candidate = record(1), record(2)
    remember(site, active, 0.0, 1)
    remember(site, candidate, 2.0, 2)
    verdict = gate.compare(site, candidate, active, silent)  # type: ignore[arg-type]
    assert verdict.passed, verdict.table()
    assert verdict.rows[0].verdict == "better"


def test_the_same_reader_passes_and_the_active_release_is_not_measured_against_itself(site: Site) -> None:
    active, twin = record(1), record(2)
    remember(site, active, 1.0, 1)
    remember(site, twin, 1.0, 1)
    assert gate.compare(site, twin, active, silent).passed  # type: ignore[arg-type]
    same = gate.compare(site, active, active, silent)  # type: ignore[arg-type]
    assert (same.passed, same.rows) == (True, ())


def test_a_release_that_nobody_trained_is_refused_over_a_trained_one_whatever_it_scores(site: Site) -> None:
    active, candidate = record(1), record(2, trained=False)
    remember(site, active, 1.0, 1)
    remember(site, candidate, 1.0, 1)
    verdict = gate.compare(site, candidate, active, silent)  # type: ignore[arg-type]
    assert not verdict.passed
    assert [row.measure for row in verdict.rows if row.refuses] == ["trained"]


def test_anything_passes_where_nothing_is_active_and_its_figures_are_told(site: Site) -> None:
    candidate = record(1)
    remember(site, candidate, 0.0, 1)
    verdict = gate.compare(site, candidate, None, silent)  # type: ignore[arg-type]
    assert verdict.passed
    assert {row.verdict for row in verdict.rows} == {"nothing to compare with"}


def test_a_set_without_held_out_studies_is_named(tmp_path: Path) -> None:
    site = Site(tmp_path, replace(RULES, dataset="phantom:1:8"))
    with pytest.raises(DatasetError, match="NIGHTREAD_GATE__DATASET"):
        gate.compare(site, record(1), None, silent)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A release of the miniature plan, trained for some minutes' worth of a test."""
    import torch

    from training.demo import SCALES, train_demo

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("demo")
    scale = replace(SCALES["tiny"], language_steps=20, stage1_steps=500, stage2_steps=20)
    train_demo(out, scale=scale, processes=1, resamples=10)
    yield out / "release"
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_shuffled_encoder_is_refused_and_a_trained_release_passes_over_an_untrained_one(
    demo: Path, tmp_path: Path
) -> None:
    from training.initialise import initialise_release
    from training.mutations import shuffle_part
    from training.plans import tiny

    site = Site(tmp_path)
    shuffle_part(demo, "encoder", tmp_path / "shuffled")
    initialise_release(tiny().recipe, tmp_path / "untrained", seed=0, texts=["No acute findings."] * 50)
    trained = site.add(demo)
    shuffled, untrained = site.add(tmp_path / "shuffled"), site.add(tmp_path / "untrained")
    told: list[tuple[int, int]] = []

    refused = gate.compare(site, shuffled, trained, lambda *at: told.append(at))  # type: ignore[arg-type]
    assert not refused.passed, refused.table()
    assert "macro AUROC" in refused.sentence
    assert told[-1] == (24, 24)

    passed = gate.compare(site, trained, untrained, silent)  # type: ignore[arg-type]
    assert passed.passed, passed.table()
    # The trained one had read the studies already.
    assert site.read.count(1) == 3
    assert not gate.compare(site, untrained, trained, silent).passed  # type: ignore[arg-type]
