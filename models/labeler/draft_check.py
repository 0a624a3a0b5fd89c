"""Where a draft says the opposite of the 14 predictions."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from models.labeler.aggregate import aggregate
from models.labeler.assertions import Assertion, assertions
from models.labeler.labels import Label
from models.labeler.sentences import normalise, split_sentences
from models.pathologies import PATHOLOGIES, Pathology

_P = Pathology
DEFAULT_MARGIN = 0.1
"""Share of the way from the threshold to 0 or to 1 that a probability must have gone to count."""

_LUNGS = (_P.LUNG_OPACITY, _P.CONSOLIDATION, _P.PNEUMONIA, _P.EDEMA, _P.ATELECTASIS, _P.LUNG_LESION)
_ACUTE = (_P.CONSOLIDATION, _P.PNEUMONIA, _P.EDEMA, _P.PNEUMOTHORAX, _P.PLEURAL_EFFUSION)
_ALL_ABNORMAL = tuple(p for p in PATHOLOGIES if p not in (_P.NO_FINDING, _P.SUPPORT_DEVICES))
_VERB = r"(?: (?:is|are|appear|appears|remain|remains))?"
_MILD = (
    r"(?: (?:both|bilaterally|grossly|well|normally|fully|expanded|inflated|aerated|and|symmetrically|"
    r"hyper\w+|but|otherwise))*"
)

# A sentence of normality denies pathologies that it does not name.
_IMPLIED: tuple[tuple[re.Pattern[str], tuple[Pathology, ...]], ...] = (
    (re.compile(rf"\b(?:lungs?|lung (?:fields|zones)|parenchyma)\b{_VERB}{_MILD} (?:clear|normal|"
    rf"unremarkable)\b"
                r"(?! (?:of|from|except|apart))|\bclear lungs?\b"), _LUNGS),
    (re.compile(r"\bno (?:\w+ ){0,3}(?:acute|active) (?:or \w+ )?(?:radiographic )?"
                r"(?:cardio-?pulmonary|cardiac|pulmonary|intrathoracic|thoracic|chest|disease|process|"
                r"abnormalit\w+|"
                r"finding\w*)"), _ACUTE),
    (re.compile(r"\b(?:normal|unremarkable|negative) (?:frontal |pa |ap |portable )?(?:chest|radiograph|"
    r"x-?ray|"
                r"examination|exam|study)\b|\bchest (?:radiograph |x-?ray |film |examination )?(?:is |"
                r"appears )?"
                r"(?:normal|unremarkable|negative)\b|^no (?:\w+ )?(?:abnormalit\w+|abnormal findings?|"
                r"findings?)"
                r"(?: (?:is|are|seen|identified|detected).*)?$|\bno (?:radiographic |"
                r"thoracic )?abnormalit\w+ "
                r"(?:is |are )?(?:seen|identified|detected)"), (_P.NO_FINDING, *_ALL_ABNORMAL)),
    (re.compile(r"\bpleural (?:spaces?|surfaces?) (?:is |are )?(?:clear|normal|unremarkable)|\bno pleural "
                r"(?:abnormalit|disease|process)"), (_P.PLEURAL_EFFUSION, _P.PNEUMOTHORAX, _P.PLEURAL_OTHER)),
    (re.compile(r"\b(?:costophrenic|sulci|sulcus|angles?)\b.{0,24}\b(?:sharp|clear|normal|preserved|"
    r"unremarkable)\b"),
     (_P.PLEURAL_EFFUSION,)),
    (re.compile(r"\b(?:bon(?:es|y)|osseous|ribs?|skelet\w+|thoracic cage)\b.{0,40}\b(?:intact|normal|"
    r"unremarkable)\b|"
                r"\bno (?:\w+ )?(?:bony|osseous|skeletal|rib) (?:abnormalit|lesion|injur|finding)"),
     (_P.FRACTURE,)),
)  # fmt: skip
# "No large effusion" leaves room for a small one.
_PARTIAL = re.compile(
    r"\b(?:large|sizeable|sizable|significant|massive|tension|displaced|overt|frank|new|gross|substantial|"
    r"acute (?=fracture|rib|displaced)|other|additional|further)\b"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """One pathology on which the draft and the prediction disagree."""

    pathology: Pathology
    said: Label
    """What the draft says: positive or negative, never uncertain."""
    predicted: Label
    """The opposite, by the release's threshold."""
    probability: float
    threshold: float
    sentence: int
    """Index of the sentence in :func:`split_sentences` of the draft."""
    text: str
    """That sentence."""

    def to_json(self) -> dict[str, str | float | int]:
        """A flat object of JSON types."""
        return {
            "pathology": self.pathology.value,
            "said": self.said.value,
            "predicted": self.predicted.value,
            "probability": round(self.probability, 6),
            "threshold": round(self.threshold, 6),
            "sentence": self.sentence,
            "text": self.text,
        }


def contradictions(
    text: str,
    predictions: Mapping[Pathology, float] | Collection[Pathology],
    thresholds: Mapping[Pathology, float] | float = 0.5,
    *,
    margin: float = DEFAULT_MARGIN,
) -> list[Contradiction]:
    """Compare a draft with the 14 predictions, pathology by pathology.

    The draft *asserts* a pathology when the labeler's label is positive. It *denies* it when the
    label is negative and the denial is whole ("no large effusion" is not), or when a sentence of
    normality covers it ("the lungs are clear") and nothing asserts or doubts it. A doubted pathology and an
    unmentioned one contradict nothing. Denying opacity denies consolidation and pneumonia too. Asserting
    opacity agrees with any predicted pathology of the lung, and an enlarged cardiomediastinum with
    cardiomegaly. No Finding is asserted by a statement that the whole chest is normal and denied by any
    asserted abnormality.

    Args:
        text: The draft: findings and impression.
        predictions: Probability of each pathology, or only the positive ones.
        thresholds: The release's decision threshold, one for all or one each.
        margin: A prediction contradicts an assertion below ``threshold * (1 - margin)``, and a denial
            from ``threshold + (1 - threshold) * margin`` upwards. 0 flags every disagreement.

    Returns:
        Contradictions in canonical order of pathologies, at most one each.

    Raises:
        ValueError: If ``margin`` is not in [0, 1) or a probability is missing.
    """
    if not 0 <= margin < 1:
        raise ValueError(f"margin must lie in [0, 1), not {margin!r}")
    if not isinstance(predictions, Mapping):
        predictions = {pathology: float(pathology in predictions) for pathology in PATHOLOGIES}
    missing = [pathology.value for pathology in PATHOLOGIES if pathology not in predictions]
    if missing:
        raise ValueError(f"no prediction for {', '.join(missing)}")
    if not isinstance(thresholds, Mapping):
        thresholds = dict.fromkeys(PATHOLOGIES, thresholds)
    sentences = split_sentences(text)
    said, where = _statements(sentences)
    positive = {p: predictions[p] >= thresholds[p] for p in PATHOLOGIES}
    result = []
    for pathology in PATHOLOGIES:
        probability, threshold = float(predictions[pathology]), float(thresholds[pathology])
        if said[pathology] is Label.POSITIVE:
            if probability >= threshold * (1 - margin) or _agrees(pathology, positive):
                continue
            predicted = Label.NEGATIVE
        elif said[pathology] is Label.NEGATIVE:
            if probability < threshold + (1 - threshold) * margin:
                continue
            predicted = Label.POSITIVE
        else:
            continue
        index = where[pathology]
        result.append(
            Contradiction(
                pathology=pathology,
                said=said[pathology],
                predicted=predicted,
                probability=probability,
                threshold=threshold,
                sentence=index,
                text=sentences[index],
            )
        )
    return result


def _agrees(pathology: Pathology, positive: Mapping[Pathology, bool]) -> bool:
    """Whether a related prediction already bears the assertion out."""
    if pathology is _P.LUNG_OPACITY:
        return any(positive[p] for p in _LUNGS)
    if pathology is _P.ENLARGED_CARDIOMEDIASTINUM:
        return positive[_P.CARDIOMEGALY]
    return False


def _statements(sentences: list[str]) -> tuple[dict[Pathology, Label], dict[Pathology, int]]:
    """What the draft says of each pathology, and the sentence that says so first."""
    said: list[Assertion] = []
    first: dict[tuple[Pathology, Label], int] = {}
    whole: set[Pathology] = set()
    implied: dict[Pathology, int] = {}
    for index, sentence in enumerate(sentences):
        lower = normalise(sentence)
        mentions = assertions(sentence)
        said.extend(mentions)
        for mention in mentions:
            if mention.pathology is None:
                continue
            first.setdefault((mention.pathology, mention.label), index)
            if mention.label is Label.NEGATIVE and not _is_partial(lower, mention):
                whole.add(mention.pathology)
                for child in _denied_with(mention):
                    implied.setdefault(child, index)
        for expression, denied in _IMPLIED:
            if expression.search(lower):
                for pathology in denied:
                    implied.setdefault(pathology, index)
    labels = dict(aggregate(said))
    no_finding = labels.pop(_P.NO_FINDING)
    if any(labels[pathology] in (Label.POSITIVE, Label.UNCERTAIN) for pathology in _LUNGS):
        # "Otherwise clear" beside atelectasis: the atelectasis is itself an opacity.
        implied.pop(_P.LUNG_OPACITY, None)
    where: dict[Pathology, int] = {}
    for pathology, label in labels.items():
        if label is Label.NEGATIVE and pathology not in whole:
            labels[pathology] = label = Label.ABSENT
        if label is Label.ABSENT and pathology in implied:
            labels[pathology] = Label.NEGATIVE
            where[pathology] = implied[pathology]
        elif label in (Label.POSITIVE, Label.NEGATIVE):
            where[pathology] = first[pathology, label]
    labels[_P.NO_FINDING] = Label.ABSENT
    abnormal = [where[p] for p in _ALL_ABNORMAL if labels[p] is Label.POSITIVE]
    if abnormal:
        labels[_P.NO_FINDING], where[_P.NO_FINDING] = Label.NEGATIVE, min(abnormal)
    elif no_finding is Label.POSITIVE and _P.NO_FINDING in implied:
        labels[_P.NO_FINDING], where[_P.NO_FINDING] = Label.POSITIVE, implied[_P.NO_FINDING]
    return labels, where


def _denied_with(mention: Assertion) -> tuple[Pathology, ...]:
    if mention.pathology is _P.LUNG_OPACITY and not re.search(
        r"interstitial|reticul|scar|bronch", mention.phrase
    ):
        return (_P.CONSOLIDATION, _P.PNEUMONIA)
    if mention.pathology is _P.ENLARGED_CARDIOMEDIASTINUM and mention.phrase.startswith(("cardi", "heart")):
        return (_P.CARDIOMEGALY,)
    return ()


def _is_partial(sentence: str, mention: Assertion) -> bool:
    """Whether the denial is of a kind or size only; looks at the five words before the mention."""
    at = sentence.find(mention.phrase)
    lead = re.split(r"\b(?:no|or|and|without)\b|,", sentence[:at])[-1] + mention.phrase
    return bool(_PARTIAL.search(lead))
