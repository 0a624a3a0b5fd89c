"""The gate: a release becomes active only if it reads no worse than the active one.

Both read the same held-out studies, once each: what a release said of a set is kept under its digest. The
difference of each figure is resampled study by study, and a release is refused that is worse

* for certain: the whole 95 % interval of the difference lies beyond the tolerance, or
* by much: the difference itself lies beyond the limit, whatever its interval.

Tolerances and limits stand in ``training.comparison``. A release that nobody trained is refused over a
trained one without a figure being asked. Of a data set that sites change (``reported``), both releases read
what there is now.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from db.tables import ReleaseRecord
from workers.context import Context, GateRules
from workers.reported import resolve

if TYPE_CHECKING:
    from training.comparison import Compared, Outcomes, Truth
    from training.datasets.common import Item
    from training.metrics import Interval

log = structlog.get_logger()

_KEPT_FORMAT = 1
"""Counts up when what is kept of a reading changes its meaning."""

Progress = Callable[[int, int], None]
"""Called with how many studies are read or drafted and how many there are; it may wait."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table of why."""

    measure: str
    candidate: str
    active: str
    difference: str
    verdict: str
    """``worse``, ``better``, ``no worse``, or why there is none."""
    refuses: bool = False
    figures: dict[str, Any] | None = None
    """The intervals as numbers; None where there are none."""


HEADINGS = ("measure", "candidate", "active", "candidate - active", "verdict")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a release may become active, and why."""

    passed: bool
    rows: tuple[Row, ...]
    sentence: str

    def table(self) -> str:
        """The rows as plain text, columns aligned."""
        lines = [HEADINGS, *((r.measure, r.candidate, r.active, r.difference, r.verdict) for r in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    def to_json(self) -> dict[str, Any]:
        """For a job's result."""
        return {
            "passed": self.passed,
            "sentence": self.sentence,
            "rows": [vars(row) for row in self.rows],
            "table": self.table(),
        }


def compare(
    context: Context, candidate: ReleaseRecord, active: ReleaseRecord | None, progress: Progress
) -> Verdict:
    """Hold a release against the active one.

    Args:
        context: Its ``rules.gate`` names the studies.
        candidate: The release that is to become active.
        active: The one that is; ``None`` lets anything pass, with its figures.
        progress: Called as studies are read and drafted.

    Raises:
        DatasetError: If the set of the gate cannot be read, or has no held-out study.
        StoreError: If the object store or the database go away.
    """
    from training.comparison import compare_outcomes

    if active is not None and active.id == candidate.id:
        return Verdict(passed=True, rows=(), sentence="It is the active release already.")
    studies = _studies(context)
    measured = compare_outcomes(
        studies.truth,
        _outcomes(context, candidate, studies, progress),
        None if active is None else _outcomes(context, active, studies, progress),
    )
    rows = [_row_of(one) for one in measured]
    if active is not None and active.trained != candidate.trained:
        rows.insert(0, _trained_row(candidate, active))
    verdict = _verdict(candidate, active, tuple(rows), studies)
    log.info(
        "gate_passed" if verdict.passed else "gate_refused",
        release_id=candidate.id,
        active_release_id=None if active is None else active.id,
        refused_by=[row.measure for row in rows if row.refuses],
    )
    return verdict


def measure(context: Context, record: ReleaseRecord, progress: Progress) -> Verdict:
    """The figures of one release on the gate's studies, compared with nothing.

    Raises:
        DatasetError, StoreError: As ``compare``.
    """
    from training.comparison import compare_outcomes

    studies = _studies(context)
    rows = compare_outcomes(studies.truth, _outcomes(context, record, studies, progress), None)
    sentence = f"Measured on {_counted(studies)}."
    return Verdict(passed=True, rows=tuple(_row_of(one) for one in rows), sentence=sentence)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Studies:
    """The set of the gate."""

    items: Sequence[Item]
    exemplars: Sequence[Item]
    drafts: int
    truth: Truth
    key: str


def _studies(context: Context) -> _Studies:
    from training.comparison import truth_about
    from training.datasets.common import DatasetError
    from training.datasets.opening import open_dataset, with_splits

    rules: GateRules = context.rules.gate
    dataset = with_splits(open_dataset(resolve(context, rules.dataset)))
    items, exemplars = (_some(dataset.split(split), rules.studies) for split in ("test", "train"))
    if not items or not exemplars:
        raise DatasetError(
            f"the gate's data set {rules.dataset} has {len(items)} held-out studies and {len(exemplars)} "
            "reported cases for training; both are needed: set NIGHTREAD_GATE__DATASET to another"
        )
    drafts = min(rules.drafts, len(items))
    named = json.dumps(
        [_KEPT_FORMAT, dataset.name, drafts, [[one.id for one in some] for some in (items, exemplars)]]
    )
    return _Studies(
        items=items,
        exemplars=exemplars,
        drafts=drafts,
        truth=truth_about(items, drafts),
        key=hashlib.sha256(named.encode()).hexdigest()[:16],
    )


def _some(items: Sequence[Item], most: int) -> list[Item]:
    """The same few of a data set each time, in no order that the data set knows."""
    return sorted(items, key=lambda item: hashlib.sha256(item.id.encode()).hexdigest())[:most]


def _outcomes(context: Context, record: ReleaseRecord, studies: _Studies, progress: Progress) -> Outcomes:
    from training.comparison import Outcomes, findings_in
    from training.evaluate import read_studies

    kept = context.home / "cache" / "gate" / f"{record.digest[:32]}-{studies.key}.npz"
    if kept.is_file():
        with np.load(kept, allow_pickle=False) as file:
            return Outcomes(probabilities=file["probabilities"], said=file["said"])
    reading = read_studies(
        context.release(record.id),
        studies.items,
        studies.exemplars,
        cache=context.home / "cache" / "gate" / "images",
        reader=context.reader(record.id),
        writer=context.writer(record.id),
        drafts=studies.drafts,
        tell=lambda done, total, _: progress(done, total),
    )
    found = Outcomes(probabilities=reading.probabilities, said=findings_in(reading.drafts))
    _keep(kept, found)
    return found


def _keep(path: Path, outcomes: Outcomes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        np.savez(making, probabilities=outcomes.probabilities, said=outcomes.said)
        making.replace(path)
    finally:
        making.unlink(missing_ok=True)


def _row_of(compared: Compared) -> Row:
    def text(interval: Interval | None) -> str:
        return "-" if interval is None else str(interval)

    intervals = {
        "candidate": compared.candidate,
        "active": compared.active,
        "difference": compared.difference,
    }
    return Row(
        measure=compared.measure.name,
        candidate=text(compared.candidate),
        active=text(compared.active),
        difference=text(compared.difference),
        verdict=_word(compared),
        refuses=compared.is_worse,
        figures={name: one.to_json() for name, one in intervals.items() if one is not None},
    )


def _word(compared: Compared) -> str:
    difference = compared.difference
    if difference is None:
        return "nothing to compare with"
    if math.isnan(difference.value):
        return "cannot be told on these studies"
    if compared.is_worse:
        return "worse"
    low, high = difference.low, difference.high
    return "better" if (high < 0 if compared.measure.lower_is_better else low > 0) else "no worse"


def _trained_row(candidate: ReleaseRecord, active: ReleaseRecord) -> Row:
    def word(record: ReleaseRecord) -> str:
        return "yes" if record.trained else "no: random weights"

    return Row(
        measure="trained",
        candidate=word(candidate),
        active=word(active),
        difference="-",
        verdict="better" if candidate.trained else "worse",
        refuses=not candidate.trained,
    )


def _verdict(
    candidate: ReleaseRecord, active: ReleaseRecord | None, rows: tuple[Row, ...], studies: _Studies
) -> Verdict:
    refused = [row.measure for row in rows if row.refuses]
    short = candidate.digest[:12]
    if active is None:
        sentence = f"Release {short} passes: no release is active. Measured on {_counted(studies)}."
    elif refused:
        sentence = (
            f"Release {short} is refused: it is worse than the active {active.digest[:12]} in "
            f"{', '.join(refused)}, on {_counted(studies)}."
        )
    else:
        sentence = (
            f"Release {short} passes: it is no worse than the active {active.digest[:12]} on "
            f"{_counted(studies)}."
        )
    return Verdict(passed=not refused, rows=rows, sentence=sentence)


def _counted(studies: _Studies) -> str:
    return f"{len(studies.items)} held-out studies, {studies.drafts} of them drafted"
