"""Takes out of a report what compares it with an earlier image of its own patient.

An exemplar belongs to another patient, so "unchanged since the prior study" would be false for the
study being drafted, and language models copy it (CXR-ReDonE, Ramesh et al. 2022). The finding stays where a
rule can keep it: "Stable cardiomegaly" becomes "Cardiomegaly". What still compares after all rules is dropped
whole: losing a sentence costs less than keeping a false history.
"""

from __future__ import annotations

import re

from models.labeler.assertions import assertions
from models.labeler.comparison_patterns import (
    ABOUT_PRIOR,
    ACUTE_OR,
    AERATION_WITH,
    AGAIN_SEEN,
    AND,
    APPEARANCE_OF,
    ASIDE,
    BARE_ORGAN,
    CLAUSE,
    CONTINUES,
    DEVELOPMENT,
    DROP,
    EMPTY,
    FROM_TO,
    GOES_ON,
    GONE_IN_PART,
    GONE_WITH,
    HAS_BEEN,
    HAS_CHANGED,
    HEART,
    IN_PLACE,
    IN_POSITION,
    INTERVAL_CHANGE,
    MARKINGS,
    MEASURE_OF,
    MEASURES,
    MIGRATED,
    MOVED,
    MOVED_TIP,
    NEW_IS,
    NO_CHANGE_BUT,
    NO_CHANGE_IN,
    NORMAL_AND_STABLE,
    NORMAL_AS_BEFORE,
    OBSERVED,
    PATIENT_HAS,
    PERSISTS,
    PERSISTS_THERE,
    PHRASES,
    PLACED,
    PREDICATE,
    PRENOUN,
    PRENOUN_SIZE,
    PREVIOUSLY,
    PROMINENT,
    PRONOUN,
    REDEMONSTRATED,
    REMAINS,
    REPLACED,
    SAYS_NOTHING,
    SHOWS_CHANGE,
    SIZE,
    SIZED,
    STABLE_AND,
    START_COMPARISON,
    START_SINCE,
    STILL,
    TRAILING,
    WITH_CHANGE,
)
from models.labeler.comparison_words import ADV, HISTORY, NOT_RESIDUAL, RESIDUAL, SIGNAL, VERB
from models.labeler.labels import Label
from models.labeler.sections import split_parts
from models.labeler.sentences import split_sentences


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
        text = _after_comparison(part.text) if part.kind == "comparison" else _clean_text(part.text)
        if text:
            lead = ("\n" if part.breaks_line else " ") if cleaned else ""
            with_heading = part.heading and part.kind != "comparison"
            cleaned += lead + (f"{part.heading}: " if with_heading else "") + text
    return cleaned


def _after_comparison(text: str) -> str:
    """What a comparison section goes on to say on the same line: "Comparison: none. The lungs are clear."."""
    said = [
        sentence
        for sentence in split_sentences(text)[1:]
        if assertions(sentence) or re.search(rf"\b{VERB}\b", sentence, re.I)
    ]
    return _clean_text(" ".join(f"{sentence}." for sentence in said))


def _clean_text(text: str) -> str:
    kept = []
    for sentence in split_sentences(text):
        cleaned = _clean_sentence(sentence)
        if cleaned:
            kept.append(cleaned[0].upper() + cleaned[1:] + ("" if cleaned[-1] in "?!" else "."))
    return " ".join(kept)


def _clean_sentence(sentence: str) -> str:
    if not SIGNAL.search(NOT_RESIDUAL.sub("", sentence)):
        return sentence
    sentence = MOVED_TIP.sub(lambda match: f"with {match['tip']} ", sentence)
    replaced = REPLACED.match(sentence)
    if replaced:
        sentence = replaced["rest"]
    pieces = CLAUSE.split(sentence)
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
    for match in AND.finditer(clause):
        left, right = clause[: match.start()], clause[match.end() :]
        has_verb = re.search(rf"\b{VERB}\b", left, re.I)
        if has_verb and re.search(rf"\b{VERB}\b", right, re.I) and not re.match(rf"{VERB}\b", right, re.I):
            return [left, *_coordinate(right)]
    return [clause]


def _clean_clause(clause: str) -> str:
    if not SIGNAL.search(NOT_RESIDUAL.sub("", HISTORY.sub("", clause))):
        return clause
    if ABOUT_PRIOR.match(clause):
        return ""
    text = START_COMPARISON.sub("", clause).strip()
    as_before = NORMAL_AS_BEFORE.match(text)
    if as_before:
        text = f"No {as_before['what']}" if as_before["no"] else as_before["rest"]
    text = NEW_IS.sub(lambda match: f"There {match['be']} ", text)
    text = START_SINCE.sub("", text).strip()
    text = GONE_IN_PART.sub(lambda match: f"{match['has']} improved" if match["has"] else "", text)
    gone = GONE_WITH.match(text)
    if gone:
        text = gone["rest"] or gone["left"]
    text = PERSISTS_THERE.sub("present ", NO_CHANGE_BUT.sub("", ASIDE.sub("", text)))
    text = FROM_TO.sub(
        lambda m: f" {MEASURES.get(m.group().split()[0].lower(), ', measuring')} {m['now']}", text
    )
    if not NO_CHANGE_IN.match(text) and DROP.search(text):
        return ""
    seen = AGAIN_SEEN.match(text)
    if seen:
        text = f"There {seen['be'] or _be(text[seen.end() :])} {text[seen.end() :]}"
    text = PREVIOUSLY.sub("", text)
    text = SHOWS_CHANGE.sub("is present", STABLE_AND.sub(" ", text))
    for _ in range(2):  # what one phrase hid may be another
        text = PHRASES.sub("", text).strip(" ,;")
    text = DEVELOPMENT.sub(_none_developed, text)
    text = ACUTE_OR.sub(r"\1 ", text)
    text = PLACED.sub(lambda match: ("is" if match["has"].lower() == "has" else "are") + " in place", text)
    text = WITH_CHANGE.sub(" with ", text)
    text = PATIENT_HAS.sub("There is ", text)
    text = HAS_BEEN.sub(lambda match: "is " if match["has"].lower() == "has" else "are ", text)
    text = _rewrite_change(text)
    if not text:
        return ""
    text = MIGRATED.sub("", text)
    text = MOVED.sub(lambda match: "is in " if match["into"] else match["verb"].lstrip() + " ", text)
    text = REDEMONSTRATED.sub("seen", text)
    text = IN_POSITION.sub("in place", text)
    text = APPEARANCE_OF.sub("", text)
    text = NORMAL_AND_STABLE.sub(r"\1", text)
    text = REMAINS.sub(
        lambda m: "are " if m["verb"].lower() in ("remain", "continue to be", "have remained") else "is ",
        text,
    )
    text = CONTINUES.sub("", text)
    text = re.sub(
        r"\bno (?:significant )?(?:new|newly|interval)(?:,? or [a-z]+ing)?"
        r"(?: (?:appeared|appearing|developed))?"
        r"(?: development of)? (?=[a-z])",
        "no ",
        text,
        flags=re.I,
    )
    text = TRAILING.sub("", text)
    text = PRENOUN_SIZE.sub("", text)
    for _ in range(2):
        text = PRENOUN.sub("", text)
    text = STILL.sub("", text)
    text = _tidy(text)
    if EMPTY.match(text) or re.fullmatch(ADV, f"{text} ", re.I) or BARE_ORGAN.match(text) or _compares(text):
        return ""
    if SAYS_NOTHING.fullmatch(text):
        return ""
    return text


def _none_developed(match: re.Match[str]) -> str:
    if not match["none"]:
        return ""
    return "no " if match["none"].lower().startswith("no") else "is no "


def _compares(text: str) -> bool:
    return bool(RESIDUAL.search(NOT_RESIDUAL.sub("", HISTORY.sub("", text))))


def _rewrite_change(text: str) -> str:
    """Turn a statement of change into one of presence; empty when nothing was present."""
    for expression in (NO_CHANGE_IN, INTERVAL_CHANGE):
        match = expression.match(text)
        if match:
            what = AERATION_WITH.sub("", match["what"])
            if match.re is INTERVAL_CHANGE and match["kind"].lower() == "enlargement" and HEART.match(what):
                return f"Enlargement of {what}"
            if not _is_finding(what):
                return ""
            bare = re.sub(r"^(?:the|an?) ", "", what, flags=re.I)
            if match.re is INTERVAL_CHANGE and match["there"]:
                return f"There {_be(what)} {what.removeprefix('the ')}"
            return bare
    for expression in (HAS_CHANGED, PREDICATE, PERSISTS):
        match = expression.match(text)
        if match:
            what, rest = MEASURE_OF.sub("", match["what"]), match["rest"] or ""
            if PRONOUN.fullmatch(what):
                rest = re.sub(r"^(?:,|;)? ?(?:and |with )?", "", rest)
                return rest if rest and _is_finding(rest) else ""
            if what.lower().startswith(("there is ", "there are ")) and _is_finding(what):
                return what + rest
            joined = re.match(
                r"(?:,| and) (?:also |now |still |remains? |is |are )?(?P<state>(?:mildly |moderately |"
                r"markedly |"
                r"severely )?(?:enlarged|prominent|normal|tortuous|"
                r"calcified|small|large|moderate|mild|widened|"
                r"within normal limits|(?:at )?(?:the )?upper limits of normal|low|unremarkable)\b.*)",
                rest,
                re.I,
            )
            if joined:
                if SIZED.match(joined["state"]):
                    what = re.sub(rf"\b(?:{SIZE})(?:-sized)? ", "", what, count=1, flags=re.I)
                return f"{what} {_be(what)} {joined['state']}"
            if match.re is PERSISTS and IN_PLACE.match(rest):
                return f"{what} {_be(what)}{rest}"
            prominent = match.re is PREDICATE and PROMINENT.match(match["change"])
            if prominent and (not _is_finding(what) or MARKINGS.search(what)):
                return f"{what} {_be(what)} prominent{rest}"
            if _is_finding(what):
                return f"{what} {_be(what)} present{rest}"
            rest = re.sub(r"^(?:,|;)? ?(?:and |with )?", "", rest)
            if GOES_ON.match(rest):
                return f"{what} {_be(what)} present{match['rest']}"
            return rest if rest and _is_finding(rest) else ""
    return text


def _is_finding(what: str) -> bool:
    return bool(OBSERVED.search(what)) or any(
        assertion.label is not Label.NEGATIVE for assertion in assertions(what)
    )


def _be(what: str) -> str:
    whole = re.split(r" (?:in|of|at|within|along|involving|over|on|with|projecting|seen) ", what.lower())[0]
    head = whole.split(", ")[0]
    last = re.sub(r"[^a-z ]", "", head).split()[-1:] or [""]
    plural = re.search(r"(?<![su])s$|opacities|pneumothoraces|masses", last[0]) and last[0] not in (
        "atelectasis", "fibrosis", "scoliosis", "mass", "kyphosis", "pneumothoraxs",
    )  # fmt: skip
    return "are" if plural or " and " in whole else "is"


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
    if text.count(",") == 1:  # what stood between two commas is gone
        text = re.sub(r", (?=(?:is|are|has|have)\b)", " ", text)
    return text.strip(" ,;")
