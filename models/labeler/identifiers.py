"""Takes identifying words out of a report, and disarms text that would steer a language model.

Best effort by rules, a second line behind a de-identified source. Known limits stand in docs/labeler.md:
a bare surname without a title or a cue ("seen by Kowalski") is kept, as is an unusual identifier.
"""

from __future__ import annotations

import re

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|"
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_NAME = r"[A-Z][a-zA-Z'\-]+"
_REMOVED = "[removed]"
_RULES: tuple[re.Pattern[str], ...] = (
    re.compile(r"https?://\S+|\b[\w.+-]+@[\w-]+\.[\w.-]+\b"),
    re.compile(
        r"\b(?:mrn|medical record(?: number)?|acc(?:ession)?(?: (?:number|no|#))?|patient id|pid|ssn|"
        r"social security(?: number)?|"
        r"account(?: number)?|order(?: number)?|visit(?: number)?|dob|date of birth|case(?: number|"
        r" id))\s*[#:.=]*\s*(?:is )?[A-Z0-9][A-Z0-9/.-]*\d[A-Z0-9/.-]*",
        re.I,
    ),
    re.compile(r"\b\d{3}-\d{2}-\d{4}\b"),
    re.compile(r"(?<![\d.])(?:\+?\d{1,2}[ .-]?)?(?:\(\d{3}\)\s?|\d{3}[ .-])\d{3}[ .-]\d{4}(?!\d)"),
    re.compile(r"\b(?:phone|tel(?:ephone)?|pager|beeper|fax|ext(?:ension)?|"
    r"extension)\.?\s*[#:]?\s*\+?\d[\d ()./-]{2,}\d", re.I),
    re.compile(r"\b(?:19|20)\d\d[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12]\d|3[01])\b|\b(?:0?[1-9]|[12]\d|"
    r"3[01])[-/](?:0?[1-9]|[12]\d|3[01])[-/](?:\d{4}|\d{2})\b"),
    re.compile(rf"\b(?:\d{{1,2}}(?:st|nd|rd|th)?(?: of)? )?{_MONTH}\.? (?:\d{{1,2}}(?:st|nd|rd|"
    rf"th)?,? )?(?:19|20)\d\d\b|\b{_MONTH}\.? \d{{1,2}}(?:st|nd|rd|th)?(?:, (?:19|20)\d\d)?\b", re.I),
    re.compile(r"\b(?:at |on )?\d{1,2}:\d{2}(?::\d{2})?\s*(?:a\.?m\.?|p\.?m\.?|hours|hrs|h)?\b", re.I),
    re.compile(rf"\b(?:Drs?|Mr|Mrs|Ms|Miss|Prof|Doctor|Professor|Nurse|Sister)\b\.?\s+(?:{_NAME}|"
    rf"[A-Z]\.)(?:\s+(?:[A-Z]\.\s*)?{_NAME})?"),
    re.compile(rf"\b{_NAME}(?:\s+[A-Z]\.)?\s+{_NAME},?\s+(?:M\.?D|D\.?O|R\.?N|N\.?P|P\.?A|Ph\.?D|MBBS|"
    rf"FRCR)\b\.?"),
    re.compile(rf"\b(?:(?i:patient(?:'s)? name|name|dictated by|signed by|electronically signed by|read by|"
    rf"reported by|interpreted by|"
               rf"radiologist|attending|resident|referring physician|ordering physician|"
               rf"technologist))\s*[:\-]\s*{_NAME}(?:,?\s+{_NAME}){{0,2}}"),
    re.compile(r"\b[A-Z]{1,3}\d{6,}\b|(?<![\d.])\d{7,}(?![\d.])"),
    re.compile(r"\b[12](?:\.\d+){5,}\b"),
)  # fmt: skip
_SENTENCE = re.compile(r"[^.?!\n]*(?:[.?!]|\n|$)")
_CALL = re.compile(
    r"\b(?:(?:were|was|been|be) (?:discussed|communicated|conveyed|called|relayed|paged|telephoned|notified)|"
    r"critical result|(?:discussed|communicated|conveyed|relayed|telephoned) (?:with|to|by)|"
    r"notified (?:of|by|at)|dictated by|signed by)\b",
    re.I,
)
_MASK = re.compile(r"\bX{3,}\b|\[\*\*[^\]]*\*\*\]|_{3,}")
_AGE = re.compile(
    r"\b(?:a |an )?\d{1,3}[- ]?(?:year|yr|y/?o|month|week|day)s?[- ]?(?:old)?[- ](?:old )?(?:(?:white|"
    r"black|asian|hispanic|caucasian) )?"
    r"(?:man|woman|male|female|boy|girl|patient|gentleman|lady|infant|child)?\b(?= |,|\.|$)",
    re.I,
)
# Little words that lead to nothing once a name or date is gone.
_ORPHAN = re.compile(
    r"(?:(?:\b(?:by|with|to|at|on|of|from|dated|per|for|the|a|an|and|in|is|are|was|were|seen|call)\s+){1,4}"
    r"(?:\[removed\][\s,;]*){1,4}){1,9}(?=[.,;)\n]|$)|(?:\[removed\][\s,;:]*)+",
    re.I,
)
_CONTROL = re.compile(
    r"<\|[^|<>]{0,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:pad|unk|bos|eos|mask|image|img|/img)>|<(?:img|"
    r"image)\w*>|</?(?:system|user|assistant)>|"
    r"^[ \t]*(?:system|user|assistant|human)\s*:",
    re.I | re.M,
)
_INSTRUCTION = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b.{0,40}\b(?:previous|prior|above|all|any|your|these|"
    r"the)\b.{0,30}\b(?:instruction|prompt|rule|message|"
    r"context|guideline|image|text)s?\b|\byou are (?:now )?(?:an? )?(?:\w+ ){0,2}(?:assistant|model|ai|"
    r"radiologist|"
    r"chatbot|bot)\b|\b(?:system|developer) prompt\b|"
    r"\bas an? (?:ai|language model)\b|\b(?:please |you must |always |only )(?:write|respond|answer|report|"
    r"output|say|reply|print|state)\b|"
    r"\bdo not (?:mention|report|describe|write|follow|tell|reveal)\b|\b(?:reveal|repeat|print) (?:the|"
    r"your) (?:prompt|instructions)\b|"
    r"\bnew instructions?\b|\bpretend\b|\bjailbreak\b",
    re.I | re.S,
)


def strip_identifiers(text: str) -> str:
    """Remove names with a title or a cue, dates, times, numbers that identify, addresses, ages and masks.

    Sentences that document a call to a person go whole. Measurements, decimals, vertebra and rib numbers and
    list numbers are left alone.

    Returns:
        The text without them; line breaks are kept.
    """
    for rule in _RULES:
        text = rule.sub(_REMOVED, text)
    text = _SENTENCE.sub(lambda match: " " if _CALL.search(match.group()) else match.group(), text)
    text = _AGE.sub(_keep_measure, text)
    text = _MASK.sub(_REMOVED, text)
    text = _ORPHAN.sub("", text)
    text = re.sub(r"[ \t]{2,}", " ", text)
    text = re.sub(r" +([.,;:)])", r"\1", text)
    text = re.sub(r"([.,;])(?:\s*\1)+", r"\1", text)
    text = re.sub(r"\(\s*\)", "", text)
    text = re.sub(r"(?m)^[ \t]*[.,;:][ \t]*", "", text)
    return text.strip()


def _keep_measure(match: re.Match[str]) -> str:
    whole = match.group()
    return _REMOVED if re.search(r"old|y/?o|man|male|boy|girl|patient|lady", whole, re.I) else whole


def strip_control_tokens(text: str) -> str:
    """Remove chat-template tokens and role prefixes, so that a report cannot open a turn of its own."""
    previous = None
    while previous != text:
        previous, text = text, _CONTROL.sub(" ", text)
    return re.sub(r"[ \t]{2,}", " ", text).strip()


def looks_like_instructions(text: str) -> bool:
    """Whether a report speaks to a language model instead of about a chest; flag such an exemplar."""
    return bool(_INSTRUCTION.search(text) or _CONTROL.search(text))
