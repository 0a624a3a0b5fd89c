"""Importing exemplars: from every data set, once each, cleaned, and going on where it was interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from db import exemplars as stored
from db import index_versions, releases
from db.engine import transaction
from db.index_versions import Images
from tests.training.datasets import test_official_layouts as layouts
from workers import exemplar_sources
from workers.context import Context
from workers.exemplar_sources import BadReports, Prepared, cases_of
from workers.exemplars import import_cases
from workers.identity import patient_hash, study_hash
from workers.releases import publish


def quiet(done: int, total: int) -> None:
    pass


@pytest.fixture
def context(real_context: Callable[[], Context], tiny_folders: list[Path]) -> Context:
    made = real_context()
    publish(made, tiny_folders[0])
    return made


def _rows(context: Context, query: str) -> list[Any]:
    with transaction(context.engine) as session:
        return list(session.execute(text(query)).all())


@dataclass(frozen=True)
class Noise:
    """A case with an image of its own and a report of ours."""

    number: int
    findings: str = "The lungs are clear."
    patient: str | None = None
    rendered: list[int] | None = None

    def origin(self, context: Context, images: Images) -> bytes:
        return study_hash(context.rules.patient_key, f"origin/{self.number}/{self.findings}/{images}")

    def prepare(self, context: Context, images: Images) -> Prepared | str:
        if self.rendered is not None:
            self.rendered.append(self.number)
        key = context.rules.patient_key
        random = np.random.default_rng(self.number)
        return Prepared(
            image=random.integers(0, 256, (images.size, images.size), dtype=np.uint8),
            study=f"noise/{self.number}",
            study_hash=study_hash(key, f"noise/{self.number}"),
            patient_hash=patient_hash(key, None, self.patient or f"P-{self.number}"),
            findings=self.findings,
            impression="",
            labels=None,
        )


@pytest.mark.parametrize(
    ("tree", "wanted"),
    # Of the official splits the training one; a lateral view alone is no exemplar, nor is a study
    # without a report.
    [("r2gen", 1), ("open-i", 2), ("chexpert-plus", 1), ("mimic-cxr", 1), ("phantom", 3)],
)
def test_every_data_set_can_be_imported_and_importing_again_adds_nothing(
    context: Context, tmp_path: Path, tree: str, wanted: int
) -> None:
    if tree == "phantom":
        spec = "phantom:5:3"
    else:
        kind, make = layouts.TREES[tree]
        spec = f"{kind}:{make(tmp_path / 'set')}"
    name, cases = cases_of(context, spec)
    result = import_cases(context, cases, source=name, progress=quiet)
    assert result.added == wanted, result
    version = result.index_version
    assert version is not None
    with transaction(context.engine) as session:
        assert releases.active(session).index_version == version
        assert index_versions.rows(session, version) == wanted
    (row, *_) = _rows(context, "SELECT * FROM exemplar ORDER BY id")
    assert row.findings
    assert row.source == name
    assert (row.rendering, row.image_size) == ("voi-v1", 64)
    assert row.labels is not None, "named by the data set, or else by the labeler"
    assert len(row.patient_hash) == len(row.study_hash) == 32

    again = import_cases(context, cases_of(context, spec)[1], source=name, progress=quiet)
    assert (again.added, again.known) == (0, wanted)
    assert again.refused == result.refused


def test_labels_come_from_the_source_and_else_from_the_report(context: Context) -> None:
    import_cases(
        context, [Noise(1, findings="Cardiomegaly. No pleural effusion.")], source="t", progress=quiet
    )
    assert _rows(context, "SELECT labels FROM exemplar")[0].labels == ["cardiomegaly"]


def test_comparisons_to_priors_and_identifiers_are_gone_before_anything_is_stored(context: Context) -> None:
    report = (
        "Heart size is enlarged. Compared to the prior study of 03/12/2019 the effusion has increased. "
        "Discussed with Dr. Jane Miller at 14:30. MRN 4432871."
    )
    import_cases(context, [Noise(1, findings=report, patient="JANE-4432871")], source="t", progress=quiet)
    (row,) = _rows(context, "SELECT exemplar::text AS whole, findings FROM exemplar")
    assert "Heart size is enlarged." in row.findings
    for word in ("prior", "2019", "Miller", "4432871", "increased"):
        assert word not in row.whole


def test_the_patient_is_kept_as_a_keyed_hash_that_is_the_nights(context: Context) -> None:
    import_cases(context, [Noise(1, patient="P-7"), Noise(2, patient="P-7")], source="t", progress=quiet)
    hashes = {bytes(row.patient_hash) for row in _rows(context, "SELECT patient_hash FROM exemplar")}
    assert hashes == {patient_hash(context.rules.patient_key, None, "P-7")}


def test_the_same_content_is_one_exemplar_whatever_it_is_called(context: Context) -> None:
    @dataclass(frozen=True)
    class Renamed(Noise):
        def origin(self, context: Context, images: Images) -> bytes:
            return study_hash(context.rules.patient_key, f"another place/{self.number}")

    first = import_cases(context, [Noise(1), Noise(1), Noise(2)], source="a", progress=quiet)
    again = import_cases(context, [Renamed(1)], source="b", progress=quiet)
    assert (first.added, again.added, again.known) == (2, 0, 1)
    assert [row.source for row in _rows(context, "SELECT source FROM exemplar")] == ["a", "a"]


def test_an_import_that_was_interrupted_renders_the_rest_alone_and_makes_the_vectors_it_owed(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers import exemplars

    monkeypatch.setattr(exemplars, "_BATCH", 4)
    rendered: list[int] = []
    cases = [Noise(n, rendered=rendered) for n in range(10)]

    class Killed(BaseException):
        pass

    def killed(_: Context, added: Any) -> int | None:
        raise Killed  # the rows are committed and their vectors are not

    add_to_active = exemplars.add_to_active
    monkeypatch.setattr(exemplars, "add_to_active", lambda c, ids: killed(c, ids) if 5 in ids else 1)
    with pytest.raises(Killed):
        import_cases(context, cases, source="t", progress=quiet)
    monkeypatch.setattr(exemplars, "add_to_active", add_to_active)
    assert rendered == list(range(8))
    told: list[tuple[int, int]] = []
    result = import_cases(context, cases, source="t", progress=lambda *at: told.append(at))
    assert rendered == list(range(10)), "what was imported is not rendered again"
    assert (result.added, result.known) == (2, 8)
    assert told == [(4, 10), (8, 10), (10, 10)]
    assert result.index_version is not None
    with transaction(context.engine) as session:
        assert index_versions.rows(session, result.index_version) == stored.count(session) == 10


def test_cases_for_a_release_that_is_not_active_wait_without_vectors(
    context: Context, tiny_folders: list[Path]
) -> None:
    record, active = publish(context, tiny_folders[1])
    assert not active
    # The same rendering and size: the active version takes them at once, whomever they were meant for.
    result = import_cases(context, [Noise(1)], source="t", progress=quiet, release=record.digest)
    assert (result.added, result.index_version) == (1, 1)


def test_what_is_no_source_is_said(context: Context, tmp_path: Path) -> None:
    with pytest.raises(BadReports, match="neither a folder nor a data set"):
        cases_of(context, "archive")
    with pytest.raises(BadReports, match=r"reports\.jsonl is missing"):
        cases_of(context, str(tmp_path))
    file = tmp_path / "signed.jsonl"
    for content, sentence in (
        ("{", "line 1: not JSON"),
        ("[]", "line 1: not a JSON object"),
        ('{"report": "Clear."}', "line 1: study_instance_uid is missing"),
        ('{"study_instance_uid": "1.2"}', "line 1: report is missing"),
        ('{"study_instance_uid": "1.2", "report": "x", "labels": {"flu": 1}}', "line 1: flu is no pathology"),
    ):
        file.write_text(content)
        with pytest.raises(BadReports, match=sentence):
            exemplar_sources.read_reported(file)


def test_a_free_report_is_sectioned(tmp_path: Path) -> None:
    file = tmp_path / "signed.jsonl"
    report = "INDICATION: Cough.\nFINDINGS: Large heart.\nClear lungs.\nIMPRESSION: Cardiomegaly."
    file.write_text(json.dumps({"study_instance_uid": "1.2", "report": report}) + "\n\n")
    (study,) = exemplar_sources.read_reported(file)
    assert (study.findings, study.impression) == ("Large heart. Clear lungs.", "Cardiomegaly.")


def test_a_reported_study_that_was_never_received_is_left_out(context: Context, tmp_path: Path) -> None:
    file = tmp_path / "signed.jsonl"
    file.write_text(json.dumps({"study_instance_uid": "1.2.3", "report": "Clear."}))
    cases = exemplar_sources.read_reported(file)
    result = import_cases(context, cases, source="signed", progress=quiet)
    assert (result.added, result.refused) == (0, {"study_unknown": 1})
