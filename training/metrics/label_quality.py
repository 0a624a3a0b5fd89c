"""How well the labeler agrees with labels made by hand, for any file of reports.

A line of the file is a JSON object with ``findings`` and ``impression``, or ``report``; hand labels stand
in ``negbio_gold14`` (the 14 NIH names, 1 or 0) or in ``labels`` (our 14 names, 1, 0, -1 or null), or nowhere.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.labeler import Label, label, section
from models.pathologies import PATHOLOGIES, Pathology

SHARED: Mapping[str, Pathology] = {
    "Atelectasis": Pathology.ATELECTASIS,
    "Cardiomegaly": Pathology.CARDIOMEGALY,
    "Consolidation": Pathology.CONSOLIDATION,
    "Edema": Pathology.EDEMA,
    "Effusion": Pathology.PLEURAL_EFFUSION,
    "Pneumonia": Pathology.PNEUMONIA,
    "Pneumothorax": Pathology.PNEUMOTHORAX,
}
"""The seven categories that the NIH and the CheXpert lists share, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Hits and misses of the positive class."""

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            true_positive=self.true_positive + other.true_positive,
            false_positive=self.false_positive + other.false_positive,
            false_negative=self.false_negative + other.false_negative,
        )

    @property
    def precision(self) -> float:
        """0 where nothing was called."""
        called = self.true_positive + self.false_positive
        return self.true_positive / called if called else 0.0

    @property
    def recall(self) -> float:
        """0 where nothing was there."""
        present = self.true_positive + self.false_negative
        return self.true_positive / present if present else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both; 0 where neither called nor there."""
        total = 2 * self.true_positive + self.false_positive + self.false_negative
        return 2 * self.true_positive / total if total else 0.0

    def to_json(self) -> dict[str, int | float]:
        """Counts and figures."""
        return {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "true_positive": self.true_positive,
            "false_positive": self.false_positive,
            "false_negative": self.false_negative,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelEvaluation:
    """Labels of a file's reports, and their agreement with hand labels where it has some."""

    reports: int
    with_gold: int
    reports_per_s: float
    """Reports labelled in one second of one core's time."""
    uncertain_positive: Mapping[Pathology, Counts]
    uncertain_negative: Mapping[Pathology, Counts]
    labels: tuple[tuple[str, Mapping[Pathology, Label]], ...]
    """Identifier of the line and labels, for every report."""

    def to_json(self, *, with_labels: bool | None = None) -> dict[str, Any]:
        """Figures in both conventions; each report's labels where asked for or where no gold is."""
        result: dict[str, Any] = {
            "reports": self.reports,
            "with_gold": self.with_gold,
            "reports_per_s": round(self.reports_per_s, 1),
        }
        if self.with_gold:
            for name in ("uncertain_positive", "uncertain_negative"):
                counts: Mapping[Pathology, Counts] = getattr(self, name)
                result[name] = {
                    "micro": _pooled(counts).to_json(),
                    "categories": {pathology.value: count.to_json() for pathology, count in counts.items()},
                }
            result["micro_f1"] = _pooled(self.uncertain_positive).f1
        if with_labels or (with_labels is None and not self.with_gold):
            result["labels"] = [
                {"id": identifier, "labels": {p.value: value.number for p, value in labels.items()}}
                for identifier, labels in self.labels
            ]
        return result


def evaluate_labels(reports: Iterable[Mapping[str, Any]]) -> LabelEvaluation:
    """Label every report and compare with the hand labels of those that have some.

    Only pathologies that some hand label names are counted: the seven shared ones for NIH labels. No
    Finding is not compared with NIH's "normal", which means something else.

    Raises:
        ValueError: If a line has no text field, or a hand label is none of 1, 0, -1 and null.
    """
    positive: dict[Pathology, Counts] = {}
    negative: dict[Pathology, Counts] = {}
    labelled: list[tuple[str, Mapping[Pathology, Label]]] = []
    with_gold = 0
    spent_s = 0.0
    for number, report in enumerate(reports, 1):
        text = _text(report, number)
        started = time.process_time()
        labels = label(text)
        spent_s += time.process_time() - started
        labelled.append((str(report.get("id", number)), labels))
        gold = _gold(report, number)
        with_gold += gold is not None
        for pathology, truth in (gold or {}).items():
            for counts, uncertain in ((positive, True), (negative, False)):
                called = labels[pathology] is Label.POSITIVE or (
                    uncertain and labels[pathology] is Label.UNCERTAIN
                )
                present = truth is Label.POSITIVE or (uncertain and truth is Label.UNCERTAIN)
                counts[pathology] = counts.get(pathology, Counts()) + Counts(
                    true_positive=int(called and present),
                    false_positive=int(called and not present),
                    false_negative=int(present and not called),
                )
    return LabelEvaluation(
        reports=len(labelled),
        with_gold=with_gold,
        reports_per_s=len(labelled) / spent_s if spent_s else 0.0,
        uncertain_positive=_ordered(positive),
        uncertain_negative=_ordered(negative),
        labels=tuple(labelled),
    )


def read_reports(path: Path) -> Iterator[Mapping[str, Any]]:
    """Lines of a JSONL file, one at a time.

    Raises:
        ValueError: If a line is no JSON object; the message names the line.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                report = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path.name}, line {number} is not JSON: {error.msg}") from error
            if not isinstance(report, dict):
                raise ValueError(f"{path.name}, line {number} is a {type(report).__name__}, not an object")
            yield report


def _text(report: Mapping[str, Any], number: int) -> str:
    if "findings" in report or "impression" in report:
        return "\n\n".join(str(report[key]) for key in ("findings", "impression") if report.get(key))
    for key in ("report", "text"):
        if key in report:
            return section(str(report[key] or "")).body
    raise ValueError(f"report {number} has neither findings nor impression nor report")


def _gold(report: Mapping[str, Any], number: int) -> dict[Pathology, Label] | None:
    nih = report.get("negbio_gold14")
    if nih:
        return {pathology: _read(nih.get(name), name, number) for name, pathology in SHARED.items()}
    own = report.get("labels")
    if isinstance(own, dict) and own:
        names = {p.value: p for p in PATHOLOGIES} | {p.label: p for p in PATHOLOGIES}
        unknown = [name for name in own if name not in names]
        if unknown:
            raise ValueError(f"report {number} has a label for {unknown[0]!r}, which is no pathology")
        return {names[name]: _read(value, name, number) for name, value in own.items()}
    return None


def _read(value: Any, name: str, number: int) -> Label:
    try:
        return Label.from_number(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"report {number}, {name}: {error}") from error


def _ordered(counts: Mapping[Pathology, Counts]) -> dict[Pathology, Counts]:
    return {pathology: counts[pathology] for pathology in PATHOLOGIES if pathology in counts}


def _pooled(counts: Mapping[Pathology, Counts]) -> Counts:
    return sum(counts.values(), Counts())
