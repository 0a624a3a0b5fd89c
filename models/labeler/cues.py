"""Words that deny, doubt, or end the reach of a denial, found once for each sentence.

The scheme is NegEx's (Chapman et al. 2001): a cue reaches over mentions to its right or left until
a terminator. Double negations ("cannot exclude") are doubt and are tried before plain denial, as in
the CheXpert labeler (pre-negation uncertainty, then negation, then post-negation uncertainty).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


class Cue(Enum):
    """What a cue does to the mentions in its reach."""

    PSEUDO = "pseudo"
    """Looks like a denial and is none: "no change in", "not only"."""
    DOUBT_BEFORE = "doubt_before"
    """Doubts what follows and ends an earlier denial: "possible", "cannot exclude"."""
    EXPLAIN_BEFORE = "explain_before"
    """Offers what follows as one reading of something else: "may represent", "question"."""
    SOFT_BEFORE = "soft_before"
    """Doubts what follows unless itself denied: "suggestive of", "suspicious for"."""
    DOUBT_AFTER = "doubt_after"
    """Doubts what precedes: "cannot be excluded", "is suspected"."""
    DENY_BEFORE = "deny_before"
    """Denies what follows: "no", "without", "resolution of"."""
    DENY_AFTER = "deny_after"
    """Denies what precedes: "is not seen", "has resolved"."""
    HISTORY = "history"
    """What follows is history or a reason, not seen now: "history of", "to evaluate for"."""
    STOP = "stop"
    """Ends the reach of every cue: "but", "there is", a semicolon."""


_SEEN = (
    r"(?:seen|identified|present|visuali[sz]ed|appreciated|evident|noted|demonstrated|observed|apparent|"
    r"detected|found|shown|visible|definitely seen|clearly seen|enlarged|recogni[sz]ed|suspected|discernible)"
)
_BE = r"(?:is|are|was|were|be|been)"
_ADV = r"(?:\w+ly |now |longer |also |yet )?"

_EXPRESSIONS: tuple[tuple[Cue, str], ...] = (
    (
        Cue.PSEUDO,
        r"(?:no|without|not)(?: (?:significant|appreciable|substantial|definite|convincing|obvious|marked|"
        r"real|"
        r"much|evidence of|interval|major|large|gross|xxxx|acute|any|suspicious))* "
        r"(?:changed?|increased?|decreased?|worsening|improvement|improved|progression|difference|worse)\b"
        r"(?: (?:in|of|from|to|since)\b)?"
        r"|(?:is|are|has|have)(?: been)? not (?:\w+ly )?(?:changed|increased|decreased|improved|worsened|"
        r"progressed|resolved|"
        r"cleared|enlarged since)|not only|not necessarily|not (?:well|optimally|adequately|completely|"
        r"entirely|fully) "
        r"(?:seen|visuali[sz]ed|evaluated|assessed|included|demonstrated|imaged)|no prior|no previous|"
        r"no comparison|"
        r"without comparison|not included",
    ),
    (
        Cue.DOUBT_AFTER,
        rf"(?:cannot|can not|can't|could not|may not|not)(?: \w+ly)? (?:{_BE} )?(?:\w+ly )?(?:excluded|"
        rf"ruled out)"
        rf"|(?:is|are) (?:difficult|hard|impossible) to (?:exclude|rule out|assess)"
        rf"|(?:is|are|was|were) (?:also )?(?:\w+ly )?(?:possible|suspected|questioned|questionable|likely|"
        rf"probable|"
        rf"considered|suggested|favou?red|a possibility|a concern|in the differential|not certain|equivocal)"
        rf"|(?:may|might|could|would) (?:also |well )?be (?:present|considered|possible|there|obscured|"
        rf"missed)"
        rf"|(?:should|must) be (?:considered|excluded|suspected)|remains? (?:possible|a possibility|"
        rf"a consideration)"
        rf"|(?:is|are|was|were) not (?:\w+ly |yet )?(?:excluded|ruled out)|not excluded|"
        rf"(?<=[a-z] )(?:suspected|questioned|difficult to (?:\w+ly )?exclude)(?=$|,)",
    ),
    (
        Cue.DOUBT_BEFORE,
        r"(?:cannot|can not|can't|could not|not|difficult to|hard to|unable to|impossible to|does not)"
        r"(?: \w+ly)? (?:exclude|rule out|excluding|ruling out)(?: (?:the )?(?:presence|possibility) of)?"
        r"|possib(?:le|ility)(?: of)?|probabl[ey]|presum\w+|perhaps|equivocal|indeterminate for|"
        r"questionabl[ey]|suspected|suspects?|borderline|likely|concern(?:ing)? for|"
        r"raise\w* (?:the )?(?:question|concern|possibility)(?: of)?|felt to|thought to",
    ),
    (
        Cue.EXPLAIN_BEFORE,
        r"(?:may|might|could|can)(?: (?:also|well|possibly|just|simply|partially|in part|still))* "
        r"(?:be|represent|reflect|indicate|relate|suggest|correspond|have|signify|mean|mimic|simulate)\w*"
        r"(?: (?:due|secondary|related|attributable|caused by)(?: to)?)?"
        r"|maybe(?: due to)?|possibly(?: due to| secondary to)?|potential\w*|question(?: of)?|consider\b|"
        r"either\b|favou?r\w*"
        r"|vs\b\.?|versus",
    ),
    (
        Cue.SOFT_BEFORE,
        r"suggest\w*(?: of| the)?|suspicio\w+(?: for| of)?|concern\w*|worrisome for|indicat\w+",
    ),
    (
        Cue.HISTORY,
        r"(?:known |prior |past |previous |medical |clinical )*(?:history|hx)(?: of)?|h/o|evaluat\w+ for|"
        r"assess\w* for|"
        r"(?:to|and) (?:exclude|rule out|evaluate|assess|document|ensure|confirm)|rule out|r/o|status post|"
        r"s/p|"
        r"symptoms of|differential\w*|if\b|on (?:a |the )?(?:prior|previous)",
    ),
    (
        Cue.DENY_AFTER,
        rf"(?:{_BE}|has|have|had|can|could)(?: been)? (?:no longer|not|never)(?: {_BE})? {_ADV}{_SEEN}?"
        rf"|not (?:\w+ly )?(?:{_BE} )?{_SEEN}|no longer \w+"
        rf"|(?:{_BE}|has|have|had)(?: been)? (?:since |now |nearly |almost |completely |essentially |"
        rf"largely |interval )*"
        rf"(?:absent|resolved|cleared|removed|excluded|ruled out|negative|withdrawn|disappeared|extracted|"
        rf"evacuated|drained)\b"
        rf"|(?<=[a-z] )(?:resolved|disappeared|absent)\b(?! [a-z])|(?:is|are) (?:unremarkable|unlikely)|"
        rf"(?:is|are|was|were) (?:felt|thought|considered|deemed) (?:to be )?(?:highly |very )?unlikely|"
        rf": (?:none|"
        rf"absent|negative|no)\b",
    ),
    (
        Cue.DENY_BEFORE,
        r"no\b|not\b|without\b|negative (?:for|chest)|(?:free|clear|cleared|devoid) (?:of|from)|absen(?:ce|"
        r"t)(?: of)?|"
        r"lack of|neither|nor\b|never|den(?:y|ies|ied)|resolution of|resolved|resolving of|removal of|"
        r"clearing of|"
        r"clearance of|rather than|instead of|fails? to|(?<!no )doubt\b(?! that)|unremarkable for|"
        r"exclud(?:es|ed|ing)|rules out|non\b",
    ),
    (
        Cue.STOP,
        r";|\bbut\b|however|although|(?<=[, ])though\b|except(?: for)?|aside from|apart from|other than|"
        r"which|despite|"
        r"there (?:is|are|has|have|was|were|may|remains?)|while|whereas|secondary to|due to|because|"
        r"otherwise|yet\b|"
        r"with (?=(?:a |an |the )?(?:mild|small|minimal|moderate|large|stable|unchanged|left|right|bilateral|"
        r"associated|adjacent|tip|persistent))|in (?:a patient|the setting)|"
        r"(?<=, )(?:with |and )?(?:(?:a|an|the|some|mild(?:ly)?|minimal(?:ly)?|small|trace|tiny|"
        r"slight(?:ly)?|moderate(?:ly)?|"
        r"stable|unchanged|improved|persistent|worsening|increased|low|possible|probable|left|right|"
        r"bilateral|scattered|chronic|old|healed) )|"
        r"\band (?=(?:mild(?:ly)?|minimal(?:ly)?|small|trace|tiny|slight(?:ly)?|moderate(?:ly)?|stable|"
        r"unchanged|"
        r"persistent|possible|probable|the|a|an|improved|worsening) )|status post",
    ),
)

_CUE = re.compile(
    r"(?:(?<![a-z0-9])|(?=[;:]))(?:"
    + "|".join(rf"(?P<{cue.value}>{words})" for cue, words in _EXPRESSIONS)
    + ")"
)


@dataclass(frozen=True, slots=True)
class FoundCue:
    """A cue at ``[start, end)`` of a normalised sentence."""

    cue: Cue
    start: int
    end: int


def find_cues(sentence: str) -> list[FoundCue]:
    """Every cue of a normalised sentence from left to right; none overlaps another."""
    return [
        FoundCue(Cue(match.lastgroup), match.start(), match.end())
        for match in _CUE.finditer(sentence)
        if match.lastgroup is not None
    ]
