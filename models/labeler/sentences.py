"""Where a sentence of a report begins and ends, and how its words are normalised for the rules."""

from __future__ import annotations

import re
import textwrap

MAX_SENTENCE = 600
"""Characters; the longest sentence of the Open-i reports has 262."""

# A number that opens a list item: "1. Cardiomegaly", "(2) Clear lungs", "3) No effusion". It needs white
# space behind it, so "1.5 cm" is safe, and must open the text, a line, or follow the end of a sentence.
_LIST_NUMBER = re.compile(
    r"(?:(?<=^)|(?<=[.:;?!\n])|(?<=[.:;?!\n]\s)|(?<=\s\s))(?:\(\d{1,2}\)|\d{1,2}[.)])(?=\s)", re.M
)
# A full stop ends a sentence unless it stands inside a number ("1.5") or closes a title or an initial.
_END = re.compile(
    r"(?<!\bdr)(?<!\bmr)(?<!\bms)(?<!\bmrs)(?<!\bapprox)(?<!\bvs)(?<!\be\.g)(?<!\bi\.e)(?<!\be)(?<!\bi)"
    r"(?:[.?!]+(?=\s|$|\"|\))|(?<=[a-z)%])\.+(?=[A-Za-z<])|(?<=\d)\.(?=[A-Z][a-z]))"
    r"|\n[ \t]*\n|\n(?=[ \t]*[-*\u2022]\s)|<br\s*/?>\s*<br\s*/?>",
    re.I,
)
# The name of a section in front of its first sentence; "Findings: No effusion" is no list "effusion: none".
_SECTION = re.compile(
    r"(?:findings?|impressions?|conclusions?|opinion|summary|results?|interpretation|comments?"
    r"|(?:final )?report)"
    r"(?: and impressions?)?\s*:\s*",
    re.I,
)
_TAG = re.compile(r"<br\s*/?>", re.I)
_SPACE = re.compile(r"\s+")
_AND_OR = re.compile(r"\band\s*/\s*or\b")
_SLASH = re.compile(r"(?<=[a-z])\s*/\s*(?=[a-z])")


def split_sentences(text: str) -> list[str]:
    """Cut a report into sentences, case and wording kept.

    Numbers of lists and names of sections are dropped; decimals are not cut.

    Returns:
        Sentences without their final stop or surrounding white space, in order, none of them empty.
    """
    text = _TAG.sub("\n", _LIST_NUMBER.sub(" \n\n ", text))
    pieces = (_SPACE.sub(" ", piece).strip(" .;,-*\u2022\n\t") for piece in _END.split(text))
    bare = (_SECTION.sub("", piece, count=1) if _SECTION.match(piece) else piece for piece in pieces)
    return [part for piece in bare if piece for part in _parts(piece)]


def _parts(sentence: str) -> list[str]:
    """A sentence, cut where no person would have written one so long: rules slow down with its square."""
    if len(sentence) <= MAX_SENTENCE:
        return [sentence]
    return textwrap.wrap(sentence, MAX_SENTENCE, break_on_hyphens=False)


def normalise(sentence: str) -> str:
    """Lower case, one space between words, ``a/b`` as ``a or b``, no typographic quotes or dashes."""
    sentence = sentence.lower().replace("\u2019", "'").replace("\u2013", "-").replace("\u2014", " - ")
    sentence = _SLASH.sub(" or ", _AND_OR.sub("or", sentence))
    return _SPACE.sub(" ", sentence).strip()
