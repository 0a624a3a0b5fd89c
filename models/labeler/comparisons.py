"""Takes out of a report what compares it with an earlier image of its own patient.

An exemplar belongs to another patient, so "unchanged since the prior study" would be false for the
study being drafted, and language models copy it (CXR-ReDonE, Ramesh et al. 2022). The finding stays where a
rule can keep it: "Stable cardiomegaly" becomes "Cardiomegaly". What still compares after all rules is dropped
whole: losing a sentence costs less than keeping a false history.
"""

from __future__ import annotations

import re

from models.labeler.assertions import assertions
from models.labeler.comparison_words import (
    ADV,
    CHANGE,
    DIMENSION,
    HISTORY,
    NOT_RESIDUAL,
    PRIOR,
    RESIDUAL,
    SIGNAL,
    STUDY,
    TAIL,
    VERB,
)
from models.labeler.labels import Label
from models.labeler.sections import split_parts
from models.labeler.sentences import split_sentences

_START_COMPARISON = re.compile(
    rf"^(?:(?:as|when) )?(?:compared|in comparison|comparing|comparison (?:is|was) made|relative|in contrast)"
    rf" (?:to|with) {PRIOR}{TAIL}(?:, | and (?=there)|(?= there | the ))",
    re.I,
)
_START_SINCE = re.compile(
    rf"^(?:since|in the interval|in the interim|interval|from|as on|as noted on|as before|again|once again|"
    rf"as previously (?:seen|noted|described))(?: (?:since )?{PRIOR}{TAIL})?,? (?=there|the|a |an |no )|"
    rf"^interval:? ",
    re.I,
)
_PHRASES = re.compile(
    rf",? ?\(?\b(?:which (?:is|was|were) )?not (?:\w+ly )?(?:seen|visuali[sz]ed|present|noted|identified|"
    rf"evident) (?:(?:on|in) {PRIOR}{TAIL}|previously|before|earlier)"
    r"|,? ?\(?(?:previously|formerly|versus|vs\.?|was|compared (?:to|with)|before) \d+(?:\.\d+)? ?(?:cm|mm)"
    r"(?: (?:previously|before|earlier))?"
    rf"|,? ?\(?\b(?:without|with no|with little) (?:\w+ )*?(?:change|comparison studies|comparisons?|"
    rf"prior studies)\b"
    rf"|,? ?\(?\b(?:(?:as|when) )?(?:(?:compared|in comparison|relative|in contrast)(?: (?:to|with|"
    rf"from))? {PRIOR}{TAIL}"
    rf"|(?:since|from|than|than on|than in|on|to|with|as on|as in|as seen on|as noted on|seen on|noted on|"
    rf"present on|over) {PRIOR}{TAIL}"
    rf"|(?:over|during|in) the (?:short |long )?(?:interval|interim)|over (?:the )?(?:(?:last|"
    rf"past|course of) )?(?:the )?(?:\w+ )?(?:hours?|days?|weeks?|months?|years?)"
    rf"|which (?:is|are|was|were|has|have)(?: been)? (?:not )?{ADV}{CHANGE}{DIMENSION}(?=$|,|;)"
    rf"|(?:was|were) (?:also |already )?(?:present|seen|noted|visible) (?:on|in) {PRIOR}{TAIL}(?: and)?"
    rf"|and (?:is|are|has been|have been) {ADV}{CHANGE}{DIMENSION}(?=$|,|;)"
    rf"|(?:with|and) (?:\w+ )?(?:interval )?(?:progression|worsening|improvement|growth|enlargement|increase|"
    rf"decrease)(?: in size)?(?=$|,|;)"
    rf"|(?:previously|formerly) [a-z ]{{1,30}}(?=,)"
    rf"|(?:following|after|status post) (?:interval )?removal of [^,;]+"
    rf"|as (?:before|seen previously|noted previously|previously (?:seen|noted|described|demonstrated)|"
    rf"previously)|than before|from before|"
    rf"compared to before|in comparison|for comparison|previously(?: (?:seen|noted|described|"
    rf"demonstrated))?)\b\)?",
    re.I,
)
_PREVIOUSLY = re.compile(
    r"(?<!is )(?<!are )\b(?:again |previously |formerly |newly )(?:seen|noted|described|identified|"
    r"demonstrated|"
    r"visuali[sz]ed|mentioned|reported|"
    r"known|present|questioned)\b (?=[a-z0-9])",
    re.I,
)
_AGAIN_SEEN = re.compile(
    r"^(?:again|once again|still|re-?)(?: is| are)? ?(?:seen|noted|demonstrated|identified|"
    r"visuali[sz]ed)(?: again)?(?: (?P<be>is|are))?,? (?=\w)"
    r"|^(?:there (?:is|are) )?re-?demonstrat(?:ion of|ed(?: (?:is|are))?) (?=\w)",
    re.I,
)
_DROP = re.compile(
    rf"^(?:comparison\b|compared (?:to|with) {PRIOR}|(?:there (?:is|are|has been|"
    rf"have been) )?no (?:\w+ )*?(?:change|changes|difference)s?\b"
    rf"(?! (?:in|of|to) )|there (?:is|are|has been|have been) no (?:\w+ )*?change\b(?! in)|no prior|"
    rf"no previous|there (?:is|are) no (?:prior|previous|comparison)|"
    rf"(?:un)?changed$|{ADV}(?:stable|unchanged|similar)(?: \w+)? (?:chest|exam\w*|stud\w+|appearance|"
    rf"radiograph\w*|x-?ray|findings?|examination)\b(?=$|,| without| compared| since| from| with no|"
    rf" of the chest| for|:).*$|"
    rf"(?:stable|unchanged|improved|worsened|new)$|(?:follow-?up|interval follow-?up)$|interval change\b|"
    rf"prior (?:exam|stud|film|radiograph|chest)\w*)"
    rf"|\b(?:resolved|resolution|cleared|no longer|has been removed|have been removed|was removed|"
    rf"were removed|been extubated|extubation|"
    rf"interval removal|interval clearing|near[- ]complete clearing)\b|"
    rf"^(?:there (?:is|has been) )?removal of|\b(?:is|was|are) compared (?:to|with)\b|"
    rf"\bprior (?:\w+ )?{STUDY} (?:is|are|was|were) (?:not )?available",
    re.I,
)
_NO_CHANGE_IN = re.compile(
    r"^(?:there (?:is|are|has been|have been) )?(?:no|without|little|minimal)(?: \w+)*? (?:changes?|"
    r"increase|decrease|difference|"
    r"improvement|worsening|progression) (?:(?:in|of|to) )?(?:(?:the )?(?:size|appearance|extent|degree|"
    r"position|severity)"
    r"(?: and \w+)? of )?(?:the )?(?P<what>.+)$",
    re.I,
)
_INTERVAL_CHANGE = re.compile(
    rf"^(?P<there>there (?:is|are|has been|have been) )?(?:an? |the )?{ADV}(?:interval |slight |mild |"
    rf"minimal |marked |significant |moderate |some |further |apparent )*"
    rf"(?P<kind>increase|decrease|worsening|improvement|enlargement|progression|change|placement|insertion|"
    rf"development|appearance|"
    rf"advancement|reduction|repositioning|growth|exchange)s? (?:in|of)(?: (?:the )?(?:size|appearance|"
    rf"extent|degree|position|"
    rf"severity|volume|number)(?: and \w+)? of)? (?P<what>.+)$",
    re.I,
)
_PREDICATE = re.compile(
    rf"^(?P<what>.+?) (?:(?:is|are|was|were|remains?|appears?|looks?|seems?|has been|have been|has become|"
    rf"have become|has|"
    rf"have)(?: not)? )"
    rf"{ADV}{CHANGE}(?: (?:to|or) {ADV}{CHANGE})?{DIMENSION}(?: {ADV}(?:in the interval|bilaterally|"
    rf"today))?(?P<rest>(?:,| and| with| or|"
    rf" given| for|;).*)?$",
    re.I,
)
_HAS_CHANGED = re.compile(
    rf"^(?P<what>.+?) (?:has|have)(?: \w+ly)? (?:{ADV})(?:increased|decreased|improved|worsened|"
    rf"progressed|enlarged|diminished|grown|re-?accumulated|re-?curred|re-?appeared|returned|shrunk|"
    rf"doubled|tripled|halved|"
    rf"developed|appeared|changed|not (?:significantly )?changed|decreased|regressed|"
    rf"evolved)(?: \w+ly)?{DIMENSION}(?: \w+ly)?(?: to (?:involve|include|occupy|fill)\b.*)?"
    r"(?P<rest>(?:,| and| with| in| at| within|;).*)?$",
    re.I,
)
_PERSISTS = re.compile(
    r"^(?P<what>.+?) (?:persists?|continues?|remains?)"
    r"(?P<rest>(?:,| and| with| at| in| within| along)\b.*)?$",
    re.I,
)
_TRAILING = re.compile(
    rf",? ?[(]?(?<=[ ,(])\b{ADV}(?<!be )(?<!no ){CHANGE}(?: appearance| position|{DIMENSION})[)]?(?=$|,|"
    rf";|\)| and (?:no|the|there)\b)",
    re.I,
)
_REMAINS = re.compile(
    r"\b(?P<verb>remains?|continues? to be|has remained|have remained)(?: again)? (?=\w)", re.I
)
_CONTINUES = re.compile(r"\bcontinues? to (?=[a-z])", re.I)
_STILL = re.compile(
    r"\b(?:still|again|once again|now|newly|persistently|progressively|interval|"
    r"re-?demonstrated) (?=[a-z])|,? (?:once )?again\b",
    re.I,
)
_PRENOUN = re.compile(
    rf"(?:\bbut )?\b{ADV}(?:(?:stable|unchanged|similar)(?:[- ]appearing)?|persistent|persisting|new|"
    rf"interval|increasing|decreasing|improved|improving|worsened|worsening|"
    rf"enlarging|continued|continuing|resolving|developing|evolving|residual|progressive|progressing|"
    rf"recurrent|unaltered|comparable|static|growing|increasingly|"
    rf"previous|more prominent|less prominent|larger|smaller)(?:,| and| or)? (?!(?:on|than|at|"
    rf"in)\b)(?=[a-z0-9])",
    re.I,
)
_PRENOUN_SIZE = re.compile(
    rf"\b{ADV}(?:increased|decreased|diminished|reduced) (?=(?:(?:the|a|an|in|size|of|left|right|"
    rf"bilateral|small|large|moderate|mild|pleural|lower|"
    rf"upper|middle|lobe|basilar|bibasilar|pulmonary|interstitial|apical|hilar|perihilar) )*(?:effusions?|"
    rf"atelecta|consolid|edema|pneumothora|nodul|mass|"
    rf"cardiomegal|pneumonia|infiltrat|airspace))",
    re.I,
)
_ABOUT_PRIOR = re.compile(
    rf"^(?:on|in|at the time of) (?!comparison){PRIOR}{TAIL}(?: \([^)]*\))?,? (?!there (?:is|are))", re.I
)
_GONE_WITH = re.compile(
    r"^(?:there has been )?(?:interval )?(?:removal|resolution|clearing) of [^,]*?(?:,(?: with| and)?|"
    r" with) (?P<rest>.+)$",
    re.I,
)
_REDEMONSTRATED = re.compile(r"(?<=is )re-?demonstrated\b|(?<=are )re-?demonstrated\b", re.I)
_MOVED = re.compile(
    r"\b(?:has|have) (?:since |now )?been (?:advanced|pulled back|withdrawn|repositioned|retracted|exchanged)"
    r"(?: slightly)?(?:(?P<into> (?:in)?to )|(?:,| and)?(?P<verb> is| are|)(?: now)? (?=\w))",
    re.I,
)
_IN_POSITION = re.compile(
    rf"\bin (?:an? |the )?{ADV}(?:stable|unchanged|similar|same),? (?:\w+ )?(?:position|location|place)\b",
    re.I,
)
_APPEARANCE_OF = re.compile(
    rf"\b(?:an? |the )?{ADV}(?:stable|unchanged|similar) (?:position|positioning|appearance|configuration|"
    rf"size|extent|location)s? of (?:the )?(?=[a-z])",
    re.I,
)
_NORMAL_AND_STABLE = re.compile(
    r"\b(normal|unremarkable|clear|enlarged|small|large) (?:and|but) (?:stable|unchanged)\b", re.I
)
_BARE_ORGAN = re.compile(
    r"^(?:there (?:is|are) |(?:frontal|lateral|pa|two|the) .*(?:show|demonstrate)s? )?(?:an? |the )?(?:and|"
    r"size|of the|cardiac|cardio-?mediastin\w+|mediastin\w+|"
    r"heart|hilar|silhouettes?|contours?|lungs?|volumes?|appearance|examination|chest|study|position|"
    r"configuration|superior|"
    r"pulmonary|vascularity|vasculature|structures?|bony|osseous|thorax|x{3,}|[ ,])+$",
    re.I,
)
_CLAUSE = re.compile(r"(;\s*|,? but |,? however,? |,? although |,? while |,? whereas )", re.I)
_AND = re.compile(r",? and (?=[a-z])", re.I)
_EMPTY = re.compile(
    r"^(?:the|a|an|there (?:is|are)|is|are|and|with|in|of|at|no|this|it|these|findings?|otherwise|overall|"
    r"essentially|,|\W)*$",
    re.I,
)


def strip_comparisons(report: str) -> str:
    """Remove comparisons with prior images from findings or impression, keeping the findings.

    Whole sentences that only compare are dropped, and so are findings that are gone ("has resolved"). A
    comparing word beside a finding is cut out or rewritten ("the effusion is unchanged" → "the effusion
    is present"). "No new X" becomes "No X". History that is not an image ("prior sternotomy") stays, and
    so do numbers. List numbers are dropped. Headings stay before what is left of their section; a comparison
    section goes whole.

    Returns:
        Sentences joined by one space, each with a full stop; empty when nothing is left.
    """
    cleaned = ""
    for part in split_parts(report):
        text = "" if part.kind == "comparison" else _clean_text(part.text)
        if text:
            lead = ("\n" if part.breaks_line else " ") if cleaned else ""
            cleaned += lead + (f"{part.heading}: " if part.heading else "") + text
    return cleaned


def _clean_text(text: str) -> str:
    kept = []
    for sentence in split_sentences(text):
        cleaned = _clean_sentence(sentence)
        if cleaned:
            kept.append(cleaned[0].upper() + cleaned[1:] + ("" if cleaned[-1] in "?!" else "."))
    return " ".join(kept)


def _clean_sentence(sentence: str) -> str:
    if not SIGNAL.search(sentence):
        return sentence
    pieces = _CLAUSE.split(sentence)
    kept: list[tuple[str, str]] = []
    joiner = ""
    for index, piece in enumerate(pieces):
        if index % 2:
            joiner = piece
            continue
        for part, clause in enumerate(_coordinate(piece)):
            cleaned = _clean_clause(clause)
            if cleaned:
                kept.append((" and " if part else joiner, cleaned))
    if not kept:
        return ""
    return kept[0][1] + "".join(join + _lower_first(text) for join, text in kept[1:])


def _coordinate(clause: str) -> list[str]:
    """Cut "A is b and C is d" in two; "A and B are c" stays whole."""
    for match in _AND.finditer(clause):
        left, right = clause[: match.start()], clause[match.end() :]
        has_verb = re.search(rf"\b{VERB}\b", left, re.I)
        if has_verb and re.search(rf"\b{VERB}\b", right, re.I) and not re.match(rf"{VERB}\b", right, re.I):
            return [left, *_coordinate(right)]
    return [clause]


def _clean_clause(clause: str) -> str:
    if not SIGNAL.search(NOT_RESIDUAL.sub("", HISTORY.sub("", clause))):
        return clause
    if _ABOUT_PRIOR.match(clause):
        return ""
    text = _START_COMPARISON.sub("", clause).strip()
    text = _START_SINCE.sub("", text).strip()
    gone = _GONE_WITH.match(text)
    if gone:
        text = gone["rest"]
    if not _NO_CHANGE_IN.match(text) and _DROP.search(text):
        return ""
    seen = _AGAIN_SEEN.match(text)
    if seen:
        text = f"There {seen['be'] or _be(text[seen.end() :])} {text[seen.end() :]}"
    text = _PREVIOUSLY.sub("", text)
    text = _PHRASES.sub("", text).strip(" ,;")
    text = _rewrite_change(text)
    if not text:
        return ""
    text = _MOVED.sub(lambda match: "is in " if match["into"] else match["verb"].lstrip() + " ", text)
    text = _REDEMONSTRATED.sub("seen", text)
    text = _IN_POSITION.sub("in place", text)
    text = _APPEARANCE_OF.sub("", text)
    text = _NORMAL_AND_STABLE.sub(r"\1", text)
    text = _REMAINS.sub(
        lambda m: "are " if m["verb"].lower() in ("remain", "continue to be", "have remained") else "is ",
        text,
    )
    text = _CONTINUES.sub("", text)
    text = re.sub(
        r"\bno (?:significant )?(?:new|interval)(?:,? or [a-z]+ing)?(?: development of)? (?=[a-z])",
        "no ",
        text,
        flags=re.I,
    )
    text = _TRAILING.sub("", text)
    text = _PRENOUN_SIZE.sub("", text)
    for _ in range(2):
        text = _PRENOUN.sub("", text)
    text = _STILL.sub("", text)
    text = _tidy(text)
    if _EMPTY.match(text) or _BARE_ORGAN.match(text) or _compares(text):
        return ""
    return text


def _compares(text: str) -> bool:
    return bool(RESIDUAL.search(NOT_RESIDUAL.sub("", HISTORY.sub("", text))))


def _rewrite_change(text: str) -> str:
    """Turn a statement of change into one of presence; empty when nothing was present."""
    for expression in (_NO_CHANGE_IN, _INTERVAL_CHANGE):
        match = expression.match(text)
        if match:
            what = match["what"]
            if not _is_finding(what):
                return ""
            bare = re.sub(r"^(?:the|an?) ", "", what, flags=re.I)
            if match.re is _INTERVAL_CHANGE and match["there"]:
                return f"There {_be(what)} {what.removeprefix('the ')}"
            return bare
    for expression in (_HAS_CHANGED, _PREDICATE, _PERSISTS):
        match = expression.match(text)
        if match:
            what, rest = match["what"], match["rest"] or ""
            if what.lower().startswith(("there is ", "there are ")) and _is_finding(what):
                return what + rest
            joined = re.match(
                r"(?:,| and) (?:also |now |still |remains? |is |are )?(?P<state>(?:mildly |moderately |"
                r"markedly |"
                r"severely )?(?:enlarged|prominent|normal|tortuous|"
                r"calcified|small|large|moderate|mild|widened|within normal limits|low|unremarkable)\b.*)",
                rest,
                re.I,
            )
            if joined:
                return f"{what} {_be(what)} {joined['state']}"
            if _is_finding(what):
                return f"{what} {_be(what)} present{rest}"
            rest = re.sub(r"^(?:,|;)? ?(?:and |with )?", "", rest)
            return rest if rest and _is_finding(rest) else ""
    return text


def _is_finding(what: str) -> bool:
    return any(assertion.label is not Label.NEGATIVE for assertion in assertions(what))


def _be(what: str) -> str:
    head = re.split(r", | (?:in|of|at|within|along|involving|over|on|with|projecting|seen) ", what.lower())[0]
    last = re.sub(r"[^a-z ]", "", head).split()[-1:] or [""]
    plural = re.search(r"(?<![su])s$|opacities|pneumothoraces|masses", last[0]) and last[0] not in (
        "atelectasis", "fibrosis", "scoliosis", "mass", "kyphosis", "pneumothoraxs",
    )  # fmt: skip
    return "are" if plural or " and " in head else "is"


def _lower_first(text: str) -> str:
    return text[0].lower() + text[1:] if len(text) > 1 and text[1:2].islower() else text


def _tidy(text: str) -> str:
    text = re.sub(r"\(\s*\)", "", text)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\s+([,;)])", r"\1", text)
    text = re.sub(r",(?:\s*,)+", ",", text)
    text = re.sub(r"(?:,? (?:and|or|but|with|is|are|which (?:is|are)))+$", "", text)
    text = re.sub(r"\b(?:and|but|or) and\b", "and", text)
    text = re.sub(
        r"\b(normal|normal in size|normal in contour) and (with|cardio|heart|mediast)",
        r"\1 \2",
        text,
        flags=re.I,
    )
    text = re.sub(r"^(?:[,;]|and |but |with (?=no ))\s*", "", text.strip())
    text = re.sub(r"\b([Aa])n (?=[bcdfgjklmnpqrstvwxyz])", r"\1 ", text)
    text = re.sub(r"\b([Aa]) (?=[aeio]|un(?!i)|8|11\b|18\b)", r"\1n ", text)
    return text.strip(" ,;")
