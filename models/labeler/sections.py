"""The sections of a free-text report: findings, impression, indication, comparison."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

_HEADINGS: dict[str, tuple[str, ...]] = {
    "findings": ("findings", "finding", "findings and impression", "chest", "report"),
    "impression": (
        "impression",
        "impressions",
        "conclusion",
        "conclusions",
        "opinion",
        "summary",
        "interpretation",
    ),
    "indication": (
        "indication",
        "indications",
        "history",
        "clinical history",
        "clinical indication",
        "clinical information",
        "reason for exam",
        "reason for examination",
        "reason for study",
        "patient history",
        "brief history",
    ),
    "comparison": ("comparison", "comparisons", "comparison study", "prior studies", "compared with"),
    "": (
        "technique",
        "exam",
        "examination",
        "exam type",
        "procedure",
        "study",
        "views",
        "final report",
        "notification",
        "recommendation",
        "recommendations",
        "attestation",
        "signed",
        "addendum",
        "accession",
        "patient",
        "name",
        "date",
        "ordering physician",
    ),
}
_KIND = {heading: kind for kind, headings in _HEADINGS.items() for heading in headings}
_HEADING = re.compile(
    r"(?:^|(?<=[.\n])[ \t]*)[ \t]*(?P<heading>"
    + "|".join(re.escape(heading) for heading in sorted(_KIND, key=len, reverse=True))
    + r")[ \t]*(?:\([^)\n]{0,40}\))?[ \t]*(?::|-(?=\s)|(?=\n))",
    re.I | re.M,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sections:
    """A report in its parts; a part that the report lacks is the empty string."""

    findings: str = ""
    impression: str = ""
    indication: str = ""
    comparison: str = ""

    @property
    def body(self) -> str:
        """Findings and impression, the text that the labeler reads."""
        return "\n\n".join(part for part in (self.findings, self.impression) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One headed part of a report, or what stands before the first heading."""

    kind: str
    """``findings``, ``impression``, ``indication``, ``comparison``, or empty for any other."""
    heading: str
    """As written, without colon; empty before the first heading."""
    text: str
    breaks_line: bool
    """Whether the part began on a new line."""


def split_parts(report: str) -> list[Part]:
    """Cut a report at its headings, in order; a report without any is one part."""
    matches = list(_HEADING.finditer(report))
    opening = report[: matches[0].start()] if matches else report
    parts = [Part(kind="", heading="", text=opening.strip(), breaks_line=False)] if opening.strip() else []
    for match, after in itertools.zip_longest(matches, matches[1:]):
        heading = match["heading"]
        parts.append(
            Part(
                kind=_KIND[heading.lower()],
                heading=heading,
                text=report[match.end() : after.start() if after else len(report)].strip(" \t\n:-"),
                breaks_line="\n" in report[: match.start("heading")][-2:],
            )
        )
    return parts


def section(report: str) -> Sections:
    """Split a report at its headings.

    A report without any heading is all findings. Text before the first heading belongs to no section
    unless no findings heading follows, in which case it is the findings. A section named twice is joined.
    """
    parts = split_parts(report)
    texts: dict[str, list[str]] = {"findings": [], "impression": [], "indication": [], "comparison": []}
    for part in parts:
        if part.kind and part.text:
            texts[part.kind].append(part.text)
    if parts and not parts[0].heading and not texts["findings"]:
        texts["findings"].append(parts[0].text)
    return Sections(**{kind: "\n\n".join(found) for kind, found in texts.items()})
