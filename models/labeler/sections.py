"""The sections of a free-text report: findings, impression, indication, comparison."""

from __future__ import annotations

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


def section(report: str) -> Sections:
    """Split a report at its headings.

    A report without any heading is all findings. Text before the first heading belongs to no section
    unless no findings heading follows, in which case it is the findings. A section named twice is joined.
    """
    matches = list(_HEADING.finditer(report))
    if not matches:
        return Sections(findings=report.strip())
    parts: dict[str, list[str]] = {
        "findings": [],
        "impression": [],
        "indication": [],
        "comparison": [],
        "": [],
    }
    for match, after in zip(matches, [*matches[1:], None], strict=True):
        text = report[match.end() : after.start() if after else len(report)].strip(" \t\n:-")
        parts[_KIND[match["heading"].lower()]].append(text)
    opening = report[: matches[0].start()].strip()
    if opening and not parts["findings"]:
        parts["findings"].append(opening)
    joined = {kind: "\n\n".join(text for text in texts if text) for kind, texts in parts.items() if kind}
    return Sections(**joined)
