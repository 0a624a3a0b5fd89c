"""Which pathologies one sentence mentions, and whether it asserts, denies or doubts each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from models.labeler.cues import Cue, FoundCue, find_cues
from models.labeler.labels import Label
from models.labeler.lexicon import FINDING, NOT_MENTION, ORGAN, OTHER_ABNORMALITY, categories_of
from models.labeler.sentences import normalise
from models.pathologies import Pathology

_STATE = re.compile(
    r"(?P<normal>(?<![a-z])normal\w*|unremarkable|within (?:the )?(?:\w+ )?limits|within range|"
    r"not (?:\w+ )?(?:enlarged|widened|dilated|increased)|without (?:\w+ )?enlargement|"
    r"not (?:appear )?enlarged|"
    r"no (?:\w+ )?(?:enlargement|widening|abnormalit\w+|cardiac enlargement)|negative|intact)"
    r"|(?P<large>(?<![a-z])enlarge\w*|prominen\w+|widen\w*|wide\b|dilat\w+|increased|large\b|larger|big\b|"
    r"abnormal\w*|"
    r"generous|globular|cardiomegaly)"
    r"|(?P<doubt>borderline|mildly accentuated|accentuat\w+|magnif\w+|exaggerat\w+)"
)
_OR_LARGE = re.compile(r"(?: in size)? (?:or|to|versus) (?:\w+ )?(?:enlarged|borderline|prominent)")
_OTHER_SUBJECT = re.compile(
    r"(?:,? and [a-z]+)?(?: (?:calcified|thoracic|tortuous|central|interstitial)){0,2} "
    r"(?:aort|hil[aiu]|pulmonary|vascul|vessel|lung|interstit)"
)
_CLAUSE_END = re.compile(r";| but | however|although|, (?:and )?(?:there|the|a|no) |\bthere (?:is|are)\b")
_OR = re.compile(r"\bor\b|\bversus\b|\bvs\b\.?|\balternatively\b")
_JOINED_AFTER = re.compile(r",? (?:or|versus|vs\.?) (?:[a-z-]+ ){0,4}")


@dataclass(frozen=True, slots=True)
class Assertion:
    """One mention in one sentence.

    ``pathology`` is ``None`` for an abnormality outside the 14 categories, which only forbids No
    Finding. ``phrase`` is the text that mentions it, lower case.
    """

    pathology: Pathology | None
    label: Label
    phrase: str


@lru_cache(maxsize=8192)
def assertions(sentence: str) -> tuple[Assertion, ...]:
    """What one sentence says, mention by mention, from left to right."""
    text = normalise(sentence)
    found = find_mentions(text)
    organs = list(ORGAN.finditer(text))
    if not found and not organs:
        return ()
    cues = find_cues(text)
    hidden = [match.span() for match in NOT_MENTION.finditer(text)]
    result: list[tuple[int, Assertion]] = []
    for start, end, pathologies in found:
        if any(start < stop and begin < end for begin, stop in hidden):
            continue
        label = _classify(text, start, end, cues)
        if label is Label.ABSENT:
            continue
        phrase = text[start:end]
        result.extend((start, Assertion(pathology, label, phrase)) for pathology in pathologies)
    for match in organs:
        start, end = match.span()
        if any(start < stop and begin < end for begin, stop in hidden):
            continue
        label = _organ_state(text, start, end)
        if label is not Label.ABSENT:
            pathology = (
                Pathology.CARDIOMEGALY if match.lastgroup == "heart" else Pathology.ENLARGED_CARDIOMEDIASTINUM
            )
            result.append((start, Assertion(pathology, label, match.group())))
    result.sort(key=lambda pair: pair[0])
    return tuple(assertion for _, assertion in result)


def find_mentions(text: str) -> list[tuple[int, int, tuple[Pathology | None, ...]]]:
    """Spans of a normalised sentence that mention a finding, with the pathologies of each."""
    spans: list[tuple[int, int, tuple[Pathology | None, ...]]] = [
        (match.start(), match.end(), categories_of(match.group())) for match in FINDING.finditer(text)
    ]
    for match in OTHER_ABNORMALITY.finditer(text):
        if not any(start < match.end() and match.start() < end for start, end, _ in spans):
            spans.append((match.start(), match.end(), (None,)))
    spans.sort(key=lambda span: span[0])
    return spans


def _classify(text: str, start: int, end: int, cues: list[FoundCue]) -> Label:
    """Positive, unless a cue in reach says otherwise; ``ABSENT`` when it is history only."""
    soft = False
    for cue in reversed([cue for cue in cues if cue.end <= start]):
        if cue.cue is Cue.STOP:
            break
        if cue.cue is Cue.PSEUDO:
            break
        if cue.cue is Cue.HISTORY:
            return Label.ABSENT
        if cue.cue is Cue.SOFT_BEFORE:
            soft = True
        elif cue.cue is Cue.DOUBT_BEFORE:
            return Label.UNCERTAIN
        elif cue.cue is Cue.EXPLAIN_BEFORE:
            return Label.ABSENT if _is_open(text, cue.end, cues) else Label.UNCERTAIN
        elif cue.cue is Cue.DENY_BEFORE:
            return Label.NEGATIVE
        elif cue.cue in (Cue.DENY_AFTER, Cue.DOUBT_AFTER):
            break
    for cue in cues:
        if cue.start < end:
            continue
        if cue.cue in (Cue.STOP, Cue.DENY_BEFORE, Cue.PSEUDO):
            break
        if cue.cue is Cue.DENY_AFTER:
            return Label.NEGATIVE
        if cue.cue is Cue.DOUBT_AFTER:
            return Label.UNCERTAIN
    return Label.UNCERTAIN if soft or _has_alternative(text, start, end) else Label.POSITIVE


def _has_alternative(text: str, start: int, end: int) -> bool:
    """Whether "or" or "versus" joins the mention to another one: then the report chooses neither."""
    if not _OR.search(text):
        return False
    return any(
        (end <= other and _JOINED_AFTER.fullmatch(text, end, other))
        or (stop <= start and _JOINED_AFTER.fullmatch(text, stop, start))
        for other, stop, _ in find_mentions(text)
    )


def _is_open(text: str, begin: int, cues: list[FoundCue]) -> bool:
    """Whether an explanation ("may represent A or B") also allows something that is no named finding.

    "Atelectasis or consolidation" leaves both in doubt. "Atelectasis or infiltrate" and "effusion or
    old scar" do not even say that a named finding is there, so they count as no mention.
    """
    stop = min((cue.start for cue in cues if cue.start >= begin and cue.cue is Cue.STOP), default=len(text))
    parts = _OR.split(text[begin:stop])
    if len(parts) < 2:
        return False
    alternatives = [piece for part in parts[:-1] for piece in part.split(",")] + [parts[-1].split(",")[0]]
    return any(piece.strip() and not _names_finding(piece) for piece in alternatives)


def _names_finding(piece: str) -> bool:
    return any(
        pathology not in (None, Pathology.LUNG_OPACITY, Pathology.PLEURAL_OTHER)
        for _, _, pathologies in find_mentions(piece)
        for pathology in pathologies
    )


def _organ_state(text: str, start: int, end: int) -> Label:
    """Whether the heart or mediastinum is said to be large; ``ABSENT`` when its size is not told."""
    left_edge = max((match.end() for match in _CLAUSE_END.finditer(text, 0, start)), default=0)
    stop = _CLAUSE_END.search(text, end)
    right_edge = stop.start() if stop else len(text)
    before = list(_STATE.finditer(text, left_edge, start))
    if (
        before
        and len(text[before[-1].end() : start].split()) <= 3
        and "," not in text[before[-1].end() : start]
    ):
        return _state_label(text, before[-1])
    after = _STATE.search(text, end, right_edge)
    if after:
        return _state_label(text, after)
    return _state_label(text, before[-1]) if before else Label.ABSENT


def _state_label(text: str, state: re.Match[str]) -> Label:
    if state.lastgroup != "normal" and _OTHER_SUBJECT.match(text, state.end()):
        return Label.ABSENT
    if state.lastgroup == "doubt":
        return Label.UNCERTAIN
    if state.lastgroup == "normal":
        return Label.UNCERTAIN if _OR_LARGE.match(text, state.end()) else Label.NEGATIVE
    lead = text[max(0, state.start() - 24) : state.start()]
    if re.search(r"\b(?:no|not|without|nor)\b[^,;]*$", lead):
        return Label.NEGATIVE
    if re.search(
        r"\b(?:may|might|could|possibl[ey]|probabl[ey]|borderline|questionabl[ey]|likely)\b[^,;]*$", lead
    ):
        return Label.UNCERTAIN
    return Label.POSITIVE
