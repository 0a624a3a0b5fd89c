"""Measure a release on studies that it never saw: predictions, retrieval, attention and drafts.

Beside the drafts stand two baselines and a control: the most frequent training report, the retrieved
exemplar's report copied, and the drafts of other studies' images.
"""

# Shapes: M studies, N = h w patches, K = 14 pathologies.

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.generator import ReportRequest, ReportWriter
from models.labeler import Label, label
from models.manifest import Manifest
from models.pathologies import PATHOLOGIES, K, Pathology
from models.reader import StudyReader
from models.release import Release
from training.attention import FOCAL
from training.datasets.common import DrawnImage, Item, LabelPolicy, targets_of, without_headings
from training.datasets.images import Images, load_images
from training.features import Features, nearest_exemplars
from training.loop import Tell
from training.metrics import (
    ClassificationReport,
    Efficacy,
    Interval,
    LanguageScores,
    PointingGame,
    RetrievalAgreement,
    classification_report,
    clinical_efficacy,
    efficacy_gain,
    language_scores,
    pointing_game,
    retrieval_agreement,
)
from training.stage2 import clean_exemplar

DRAFTS, FREQUENT, COPIED, SHUFFLED = (
    "drafts",
    "most frequent report",
    "exemplar copied",
    "drafts of other images",
)
_BATCH = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What a release says about studies."""

    features: Features
    probabilities: NDArray[np.float32]
    """Calibrated, ``(M, K)``."""
    exemplars: tuple[str | None, ...]
    exemplar_rows: tuple[int | None, ...]
    drafts: tuple[str, ...]
    """Of the first studies; of all where nobody asked for fewer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """All figures."""

    studies: int
    classification: ClassificationReport
    efficacy: Mapping[str, Mapping[str, Efficacy]]
    """By what was scored, then by convention."""
    gain: Mapping[str, Interval]
    """Macro F1 of the drafts less that of each other text, paired by study."""
    language: Mapping[str, tuple[LanguageScores, ...]]
    """Strict and legacy, by what was scored."""
    retrieval: RetrievalAgreement | None
    pointing: PointingGame | None
    distinct_drafts: float
    """Share of different texts among the drafts."""

    def to_json(self) -> dict[str, Any]:
        """Figures by name."""
        return {
            "studies": self.studies,
            "classification": self.classification.to_json(),
            "efficacy": {
                what: {name: one.to_json() for name, one in figures.items()}
                for what, figures in self.efficacy.items()
            },
            "drafts_exceed": {what: one.to_json() for what, one in self.gain.items()},
            "language": {what: [one.to_json() for one in both] for what, both in self.language.items()},
            "retrieval": None if self.retrieval is None else self.retrieval.to_json(),
            "pointing": None if self.pointing is None else self.pointing.to_json(),
            "distinct_drafts": self.distinct_drafts,
        }

    def summary(self) -> dict[str, Any]:
        """The few figures that a release's manifest keeps."""
        return {
            "studies": self.studies,
            "macro_auroc": self.classification.macro_auroc.to_json(),
            "macro_calibration_error": self.classification.macro_calibration_error.to_json(),
            "clinical_efficacy_macro_f1": {
                what: figures["macro_14"].f1.to_json() for what, figures in self.efficacy.items()
            },
            "drafts_exceed": {what: one.to_json() for what, one in self.gain.items()},
            "distinct_drafts": self.distinct_drafts,
            "pointing": None if self.pointing is None else self.pointing.to_json(),
        }


def read_studies(
    release: Release,
    items: Sequence[Item],
    exemplars: Sequence[Item],
    *,
    cache: Path,
    device: str = "cpu",
    processes: int = 1,
    reader: StudyReader | None = None,
    writer: ReportWriter | None = None,
    drafts: int | None = None,
    tell: Tell | None = None,
) -> Reading:
    """Let a release read studies as the pipeline would, exemplars from the given reported cases.

    Args:
        release: Opened.
        items: The studies; their reports and labels are not looked at.
        exemplars: Reported cases, usually the training split.
        cache: Where images are kept.
        device: Where to compute.
        processes: How many read or draw images.
        reader: The release's own reader, where it is loaded already.
        writer: Its writer, likewise.
        drafts: How many of the studies, from the first, get a draft; all by default.
        tell: Progress over drafts; called between batches of images too, with no draft done.
    """
    manifest = release.manifest
    reader = reader or release.load_reader(device)
    wanted = len(items) if drafts is None else min(drafts, len(items))
    waiting = None if tell is None else functools.partial(tell, 0, wanted, {})
    own, probabilities = _encode(reader, items, _images(items, manifest, cache, processes), waiting)
    known, _ = _encode(reader, exemplars, _images(exemplars, manifest, cache, processes), waiting)
    rows = nearest_exemplars(own, known, manifest.alpha)
    texts = [None if row is None else clean_exemplar(known.items[row].report) for row in rows]
    writing = writer or release.load_writer(device)
    written: list[str] = []
    for start in range(0, wanted, _BATCH):
        requests = [
            ReportRequest(
                patch_tokens=own.patch_tokens[place],
                disease_tokens=own.disease_tokens[place],
                exemplar_report=texts[place],
            )
            for place in range(start, min(start + _BATCH, wanted))
        ]
        written += [draft.text for draft in writing.write(requests)]
        if tell is not None:
            tell(len(written), wanted, {})
    return Reading(
        features=own,
        probabilities=probabilities,
        exemplars=tuple(texts),
        exemplar_rows=tuple(rows),
        drafts=tuple(written),
    )


def evaluate(
    reading: Reading,
    exemplars: Sequence[Item],
    manifest: Manifest,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Score what a release said.

    Args:
        reading: Of ``read_studies``; labels and reports of its items are the truth.
        exemplars: The reported cases, for the most frequent report.
        manifest: Thresholds.
        resamples: Bootstrap draws.
        seed: Of the bootstrap and of the control.
    """
    items = reading.features.items
    targets = targets_of(items, LabelPolicy())
    measurable = [k for k in range(K) if {0.0, 1.0} <= set(targets[~np.isnan(targets[:, k]), k].tolist())]
    chosen = [PATHOLOGIES[k] for k in measurable]
    classification = classification_report(
        targets[:, measurable],
        reading.probabilities[:, measurable],
        [manifest.threshold(p) for p in chosen],
        pathologies=chosen,
        resamples=resamples,
        seed=seed,
        groups=np.array([item.patient_id for item in items]),
    )
    said = {
        DRAFTS: list(reading.drafts),
        FREQUENT: [most_frequent_report(exemplars)] * len(items),
        COPIED: [text or "" for text in reading.exemplars],
        SHUFFLED: shuffled(reading.drafts, seed),
    }
    truth = [truth_of(item) for item in items]
    references = [item.report for item in items]
    scored = [place for place, text in enumerate(references) if text]
    labelled = {what: [label(without_headings(text)) for text in texts] for what, texts in said.items()}
    return Evaluation(
        studies=len(items),
        classification=classification,
        efficacy={
            what: clinical_efficacy(truth, labels, resamples=resamples, seed=seed)
            for what, labels in labelled.items()
        },
        gain={
            what: efficacy_gain(truth, labelled[DRAFTS], labels, resamples=resamples, seed=seed)
            for what, labels in labelled.items()
            if what != DRAFTS
        },
        language={
            what: (
                language_scores([references[i] for i in scored], [texts[i] for i in scored], "strict"),
                language_scores([references[i] for i in scored], [texts[i] for i in scored], "legacy"),
            )
            for what, texts in said.items()
        }
        if scored
        else {},
        retrieval=_retrieval(reading, targets, exemplars),
        pointing=_pointing(reading.features, manifest.image_size, resamples, seed),
        distinct_drafts=len(set(reading.drafts)) / max(1, len(reading.drafts)),
    )


def truth_of(item: Item) -> Mapping[Pathology, Label]:
    """What is true of a study: its labels where it has all 14, else what its report says."""
    if item.labels is not None and set(item.labels) == set(PATHOLOGIES):
        return {p: Label.from_number(value) for p, value in item.labels.items()}
    return label(without_headings(item.report))


def most_frequent_report(items: Sequence[Item]) -> str:
    """The commonest text among the reports with the commonest findings; the first of equals."""
    reports = [item for item in items if item.report]
    if not reports:
        return ""
    findings = [tuple(p for p, said in truth_of(item).items() if said is Label.POSITIVE) for item in reports]
    commonest = Counter(findings).most_common(1)[0][0]
    texts = Counter(item.report for item, found in zip(reports, findings, strict=True) if found == commonest)
    return texts.most_common(1)[0][0]


def shuffled(drafts: Sequence[str], seed: int) -> list[str]:
    """Each draft given to another study: a seeded cycle through all, so that none keeps its own."""
    order = np.random.default_rng(seed).permutation(len(drafts))
    mixed = [""] * len(drafts)
    for place, following in zip(order, np.roll(order, -1), strict=True):
        mixed[place] = drafts[following]
    return mixed


def write_evaluation(out: Path, evaluation: Evaluation, reading: Reading) -> None:
    """Write ``evaluation.json``, ``table.md``, ``drafts.jsonl`` and, as PNG, the figures' plots."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(json.dumps(evaluation.to_json(), indent=1) + "\n", encoding="utf-8")
    (out / "table.md").write_text(table_of(evaluation), encoding="utf-8")
    with (out / "drafts.jsonl").open("w", encoding="utf-8") as file:
        for item, draft, exemplar in zip(
            reading.features.items, reading.drafts, reading.exemplars, strict=True
        ):
            line = {"id": item.id, "reference": item.report, "draft": draft, "exemplar": exemplar}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    from training.plots import plot_evaluation

    plot_evaluation(evaluation, out)


def table_of(evaluation: Evaluation) -> str:
    """The figures as Markdown."""
    lines = ["| finding | positives | AUROC | AUPRC | F1 | calibration error |", "|---|---|---|---|---|---|"]
    report = evaluation.classification
    lines += [
        f"| {p.value} | {one.positives} | {one.auroc} | {one.auprc} | {one.f1} | {one.calibration_error} |"
        for p, one in report.pathologies.items()
    ]
    macro = (report.macro_auroc, report.macro_auprc, report.macro_f1, report.macro_calibration_error)
    lines += [f"| **macro** | | {' | '.join(str(one) for one in macro)} |", ""]
    lines += ["| text | convention | precision | recall | F1 |", "|---|---|---|---|---|"]
    lines += [
        f"| {what} | {name} | {one.precision:.3f} | {one.recall:.3f} | {one.f1} |"
        for what, figures in evaluation.efficacy.items()
        for name, one in figures.items()
    ]
    lines += ["", "| the drafts' macro_14 F1 less that of | difference, paired by study |", "|---|---|"]
    lines += [f"| {what} | {one} |" for what, one in evaluation.gain.items()]
    lines += [
        "",
        "| text | mode | BLEU-1 | BLEU-2 | BLEU-3 | BLEU-4 | ROUGE-L | CIDEr |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {what} | {one.mode} | {one.bleu_1:.3f} | {one.bleu_2:.3f} | {one.bleu_3:.3f} | {one.bleu_4:.3f} "
        f"| {one.rouge_l:.3f} | {one.cider:.3f} |"
        for what, both in evaluation.language.items()
        for one in both
    ]
    lines += ["", f"{evaluation.distinct_drafts:.0%} of {evaluation.studies} drafts are different texts."]
    if evaluation.retrieval is not None:
        found = evaluation.retrieval
        lines.append(
            f"Exemplars share findings: Jaccard {found.jaccard:.3f}, by chance {found.chance_jaccard:.3f}."
        )
    if evaluation.pointing is not None:
        game = evaluation.pointing
        lines.append(
            f"Pointing game over {game.findings} focal findings: {game.rate}, chance {game.chance:.3f}."
        )
    return "\n".join(lines) + "\n"


def _images(items: Sequence[Item], manifest: Manifest, cache: Path, processes: int) -> Images:
    return load_images(
        [item.frontal for item in items],
        manifest.image_size,
        folder=cache,
        rendering=manifest.rendering,
        processes=processes,
    )


def _encode(
    reader: StudyReader, items: Sequence[Item], images: Images, between: Callable[[], None] | None
) -> tuple[Features, NDArray[np.float32]]:
    rows = []
    for start in range(0, len(items), _BATCH):
        rows.append(reader.encode(np.array(images[start : start + _BATCH])))
        if between is not None:
            between()
    features = Features(
        items=tuple(items),
        patch_tokens=torch.cat([row.patch_tokens for row in rows]),
        disease_tokens=torch.cat([row.disease_tokens for row in rows]),
        logits=torch.cat([row.logits for row in rows]).numpy(),
        mean_tokens=torch.cat([row.mean_token for row in rows]).numpy(),
        attention=torch.cat([row.attention.flatten(2) for row in rows]).numpy(),
    )
    return features, torch.cat([row.probabilities for row in rows]).numpy()


def _retrieval(
    reading: Reading, targets: NDArray[np.float32], exemplars: Sequence[Item]
) -> RetrievalAgreement | None:
    pairs = [(place, row) for place, row in enumerate(reading.exemplar_rows) if row is not None]
    if not pairs:
        return None
    own, theirs = [place for place, _ in pairs], [exemplars[row] for _, row in pairs]
    return retrieval_agreement(np.nan_to_num(targets[own]), np.nan_to_num(targets_of(theirs, LabelPolicy())))


def _pointing(features: Features, size: int, resamples: int, seed: int) -> PointingGame | None:
    """Of drawn studies alone: only they have lesion masks."""
    from training.datasets.phantom import draw_study

    side = round(features.attention.shape[-1] ** 0.5)
    maps, masks = [], []
    for place, item in enumerate(features.items):
        source = item.frontal
        if not isinstance(source, DrawnImage):
            return None
        wanted = [p for p in FOCAL if item.labels is not None and item.labels.get(p) == 1.0]
        if not wanted:
            continue
        drawn = draw_study(source.seed, source.index, size, with_lateral=False).masks
        for pathology in wanted:
            if pathology in drawn:
                maps.append(features.attention[place, PATHOLOGIES.index(pathology)].reshape(side, side))
                masks.append(drawn[pathology])
    if not maps:
        return None
    return pointing_game(np.stack(maps), np.stack(masks), resamples=resamples, seed=seed)
