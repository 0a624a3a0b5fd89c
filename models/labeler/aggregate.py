"""One label for each pathology of a whole report (CheXpert labeler, stage 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from models.labeler.assertions import Assertion, assertions
from models.labeler.labels import Label
from models.labeler.sentences import split_sentences
from models.pathologies import PATHOLOGIES, Pathology


def label(findings_impression_text: str) -> Mapping[Pathology, Label]:
    """Label a report by the rules of the CheXpert labeler (Irvin et al. 2019), rewritten here.

    Args:
        findings_impression_text: Findings and impression as written. Do not pass indication or
            history: a suspicion that was asked about would count as a mention.

    Returns:
        All 14 pathologies in canonical order. *No Finding* is positive or absent, never negative.
    """
    said: list[Assertion] = []
    for sentence in split_sentences(findings_impression_text):
        said.extend(assertions(sentence))
    return aggregate(said)


def aggregate(said: Iterable[Assertion]) -> Mapping[Pathology, Label]:
    """Join mentions: doubt beats denial, assertion beats doubt or denial alone, not both together.

    The order is the CheXpert labeler's: one kind stands for itself; denied and doubted is uncertain even
    where the finding is asserted too; denied and asserted, or doubted and asserted, is positive. Heart
    failure that is asserted or doubted adds a doubt to Cardiomegaly. No Finding is positive when no
    abnormality is asserted or doubted, devices aside.
    """
    kinds: dict[Pathology, set[Label]] = {pathology: set() for pathology in PATHOLOGIES}
    abnormal = False
    for assertion in said:
        present = assertion.label in (Label.POSITIVE, Label.UNCERTAIN)
        if assertion.pathology is None:
            abnormal = abnormal or present
            continue
        kinds[assertion.pathology].add(assertion.label)
        if present and assertion.pathology is not Pathology.SUPPORT_DEVICES:
            abnormal = True
        if present and assertion.phrase.endswith(("chf", "failure")):
            kinds[Pathology.CARDIOMEGALY].add(Label.UNCERTAIN)
    labels = {pathology: _join(kinds[pathology]) for pathology in PATHOLOGIES}
    labels[Pathology.NO_FINDING] = Label.ABSENT if abnormal else Label.POSITIVE
    return labels


def _join(kinds: set[Label]) -> Label:
    if not kinds:
        return Label.ABSENT
    if Label.NEGATIVE in kinds and Label.UNCERTAIN in kinds:
        return Label.UNCERTAIN
    if Label.POSITIVE in kinds:
        return Label.POSITIVE
    return next(iter(kinds))
