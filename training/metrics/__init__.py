"""How good labels, probabilities, drafts, retrieval and attention are, each by the field's own measure."""

from __future__ import annotations

from training.metrics.classification import (
    ClassificationReport,
    auprc,
    auroc,
    best_threshold,
    classification_report,
    expected_calibration_error,
    f1_score,
)
from training.metrics.efficacy import (
    CONVENTIONS,
    PAPER_CONVENTION,
    Efficacy,
    clinical_efficacy,
    efficacy_gain,
)
from training.metrics.intervals import Interval, bootstrap
from training.metrics.label_quality import LabelEvaluation, evaluate_labels
from training.metrics.language import LanguageScores, language_scores
from training.metrics.legacy import Vocabulary, clean_report, truncate_reference
from training.metrics.pointing import PointingGame, pointing_game
from training.metrics.retrieval import RetrievalAgreement, retrieval_agreement

__all__ = [
    "CONVENTIONS",
    "PAPER_CONVENTION",
    "ClassificationReport",
    "Efficacy",
    "Interval",
    "LabelEvaluation",
    "LanguageScores",
    "PointingGame",
    "RetrievalAgreement",
    "Vocabulary",
    "auprc",
    "auroc",
    "best_threshold",
    "bootstrap",
    "classification_report",
    "clean_report",
    "clinical_efficacy",
    "efficacy_gain",
    "evaluate_labels",
    "expected_calibration_error",
    "f1_score",
    "language_scores",
    "pointing_game",
    "retrieval_agreement",
    "truncate_reference",
]
