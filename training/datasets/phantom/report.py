"""Writes the report of a case: findings and impression, from the drawn truth and nothing else.

Each drawn finding is stated in the findings and, with few exceptions, again in the impression. A finding
is denied only where it was not drawn. Every study with an implied Lung Opacity says "opacity" at least
once, so that the words support all the labels.
"""

from __future__ import annotations

import datetime
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.pathologies import Pathology
from training.datasets.phantom import phrases
from training.datasets.phantom.case import (
    IMPLIES_OPACITY,
    Case,
    Device,
    DeviceKind,
    Finding,
    Side,
    Zone,
    stream,
)
from training.datasets.phantom.sampling import sample_case

P = Pathology

_CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")
_SLOT = re.compile(r"\{(\w+)\}")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")

_LUNG = (P.LUNG_LESION, P.LUNG_OPACITY, P.EDEMA, P.CONSOLIDATION, P.PNEUMONIA, P.ATELECTASIS)
_URGENCY = (
    P.PNEUMOTHORAX,
    P.PNEUMONIA,
    P.CONSOLIDATION,
    P.EDEMA,
    P.PLEURAL_EFFUSION,
    P.LUNG_LESION,
    P.ENLARGED_CARDIOMEDIASTINUM,
    P.CARDIOMEGALY,
    P.FRACTURE,
    P.LUNG_OPACITY,
    P.ATELECTASIS,
    P.PLEURAL_OTHER,
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The text of a phantom study."""

    findings: str
    impression: str
    prior_sentences: tuple[str, ...] = ()
    """Sentences of the findings that compare with an invented earlier study; empty unless asked for."""

    @property
    def text(self) -> str:
        """Findings and impression under their headings, as the language model is trained on them."""
        return f"Findings: {self.findings} Impression: {self.impression}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _expand(rng: random.Random, options: Sequence[str], slots: dict[str, str]) -> str:
    """Pick a sentence, settle its alternatives from the inside out, fill its slots, mend grammar."""
    text = rng.choice(options)
    plural = slots.get("number") == "plural"
    text = text.replace("(is a|are)", "are" if plural else "is a")
    text = text.replace("(s)", "s" if plural else "")
    while match := _CHOICE.search(text):
        text = text[: match.start()] + rng.choice(match[1].split("|")) + text[match.end() :]

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        return _upper(slots[name.lower()]) if name[0].isupper() else slots[name]

    while _SLOT.search(text):
        text = _SLOT.sub(fill, text)
    text = re.sub(r"is_are", lambda _: "are" if _is_plural(text, plural) else "is", text)
    text = re.sub(r"\bThere (is|are) (?=(?:\w+ )?calcified pleural (thickening|plaques))", _there, text)
    text = re.sub(r" {2,}", " ", text).replace(" ,", ",").strip()
    text = re.sub(r"\b([Aa]) (?=(?:[aeiouAEIOU]|8|11|18))", r"\1n ", text)
    return _upper(text)


def _there(match: re.Match[str]) -> str:
    return f"There {'are' if match[2] == 'plaques' else 'is'} "


def _is_plural(text: str, plural: bool) -> bool:
    if "thickening is_are" in text or "bony thorax" in text:
        return False
    return plural or "plaques" in text or "structures" in text or "bones" in text


def lobe(side: Side, zone: Zone) -> str:
    """The anatomical name of a place, for example ``left lower lobe`` or ``lingula``."""
    if zone is Zone.MIDDLE:
        return "right middle lobe" if side is Side.RIGHT else "lingula"
    return f"{side.value} {zone.value} lobe"


def _grade(severity: float, words: tuple[str, str, str]) -> str:
    return words[0] if severity < 0.36 else words[1] if severity < 0.7 else words[2]


def _rib_phrase(rng: random.Random, finding: Finding) -> str:
    names = [_ORDINALS[rib - 1] for rib in finding.ribs]
    side = finding.side.value
    if len(names) == 1:
        return rng.choice((f"fracture of the {side} {names[0]} rib", f"{side} {names[0]} rib fracture"))
    listed = " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 2 else " and ".join(names)
    return rng.choice((f"fractures of the {side} {listed} ribs", f"{side} {listed} rib fractures"))


def _slots(finding: Finding) -> dict[str, str]:
    """Words for what the drawing of a finding fixes: grade, side, place, size, ribs.

    They depend on the finding alone, so findings and impression use the same ones.
    """
    rng = stream(finding.seed, 0, "words")
    both = finding.side is Side.BOTH
    severe = rng.choice(("severe", "marked"))
    if finding.pathology in (P.CONSOLIDATION, P.PNEUMONIA, P.ATELECTASIS, P.LUNG_OPACITY, P.PLEURAL_OTHER):
        severe = rng.choice(("extensive", "marked"))
    mild = rng.choice(("mild", "minimal" if finding.severity < 0.18 else "mild"))
    sev = _grade(finding.severity, (mild, "moderate", severe))
    extent = _grade(
        finding.severity,
        (rng.choice(("small", "tiny" if finding.severity < 0.15 else "small")), "moderate", "large"),
    )
    size = f"{finding.size_mm / 10:.1f} cm" if rng.random() < 0.7 else f"{finding.size_mm:.0f} mm"
    plural = len(finding.ribs) > 1 or (both and finding.pathology is P.PLEURAL_EFFUSION)
    slots = {
        "number": "plural" if plural else "singular",
        "sev": sev,
        "sevly": {
            "minimal": "minimally",
            "mild": "mildly",
            "moderate": "moderately",
            "severe": "severely",
            "marked": "markedly",
            "extensive": "markedly",
        }[sev],
        "extent": extent,
        "extent_an": extent if both else f"a {extent}",
        "size": size,
        "side": finding.side.value,
        "angles": "costophrenic angles" if both else f"{finding.side.value} costophrenic angle",
        "blunting": rng.choice(("blunting", "obscuration")),
        "displaced": _grade(finding.severity, ("mildly displaced", "displaced", "markedly displaced")),
    }
    if both:
        slots["base"] = rng.choice(("lung bases", "bilateral lung bases"))
        slots["basal"] = "bibasilar"
        slots["place"] = "both lungs"
    else:
        slots["base"] = f"{finding.side.value} {rng.choice(('lung base', 'base'))}"
        slots["basal"] = f"{finding.side.value} basilar"
        slots["place"] = lobe(finding.side, finding.zone)
    if finding.ribs:
        slots["ribs_phrase"] = _rib_phrase(rng, finding)
    return slots


def _sentence(rng: random.Random, case: Case, finding: Finding, *, say_opacity: bool) -> str:
    key = (finding.pathology, finding.form)
    if finding.uncertain:
        options = phrases.HEDGED[key]
    elif say_opacity or key not in phrases.CERTAIN:
        options = phrases.OPACITY[key]
    else:
        options = phrases.CERTAIN[key] + phrases.OPACITY.get(key, ())
    text = _expand(rng, options, _slots(finding))
    if finding.pathology is P.CARDIOMEGALY and case.projection == "AP" and rng.random() < 0.35:
        rest = text if text.startswith("The ") or text.startswith("There ") else None
        if rest:
            text = _expand(rng, (phrases.TECHNIQUE_AP,), {"rest": rest[:1].lower() + rest[1:]})
    return text


def _device_slots(device: Device) -> dict[str, str]:
    return {"side": device.side.value, "tip": f"{device.tip_mm / 10:.1f}"}


def _lungs(rng: random.Random, case: Case) -> list[str]:
    drawn = [f for f in case.findings if f.pathology in _LUNG]
    if not drawn:
        sentences = [_expand(rng, phrases.CLEAR_LUNGS, {})]
        if rng.random() < 0.25:
            sentences.append(_expand(rng, phrases.NO_EDEMA, {}))
        if rng.random() < 0.15:
            sentences.append(_expand(rng, phrases.NO_LESION, {}))
        return sentences
    implying = [f for f in drawn if f.pathology in IMPLIES_OPACITY]
    spoken = rng.choice(implying) if implying else None
    sentences = [_sentence(rng, case, finding, say_opacity=finding is spoken) for finding in drawn]
    if not case.labels[P.EDEMA] and rng.random() < 0.25:
        sentences.append(_expand(rng, phrases.NO_EDEMA, {}))
    return sentences


def _pleura(rng: random.Random, case: Case) -> list[str]:
    sentences = [
        _sentence(rng, case, f, say_opacity=False)
        for f in case.findings
        if f.pathology in (P.PLEURAL_EFFUSION, P.PNEUMOTHORAX, P.PLEURAL_OTHER)
    ]
    fluid, air = case.labels[P.PLEURAL_EFFUSION], case.labels[P.PNEUMOTHORAX]
    if not fluid and not air:
        sentences.append(_expand(rng, phrases.NO_EFFUSION_NO_AIR, {}))
    elif not fluid:
        sentences.append(_expand(rng, phrases.NO_EFFUSION, {}))
    elif not air:
        sentences.append(_expand(rng, phrases.NO_AIR, {}))
    return sentences


def _heart(rng: random.Random, case: Case) -> list[str]:
    sentences = [
        _sentence(rng, case, f, say_opacity=False)
        for f in case.findings
        if f.pathology in (P.CARDIOMEGALY, P.ENLARGED_CARDIOMEDIASTINUM)
    ]
    large, wide = case.labels[P.CARDIOMEGALY], case.labels[P.ENLARGED_CARDIOMEDIASTINUM]
    if not large and not wide:
        sentences.append(_expand(rng, phrases.NORMAL_HEART_AND_MEDIASTINUM, {}))
    elif not large:
        sentences.append(_expand(rng, phrases.NORMAL_HEART, {}))
    elif not wide and rng.random() < 0.5:
        sentences.append(_expand(rng, phrases.NORMAL_MEDIASTINUM, {}))
    return sentences


def _bones(rng: random.Random, case: Case) -> list[str]:
    broken = [_sentence(rng, case, f, say_opacity=False) for f in case.of(P.FRACTURE)]
    if broken:
        return broken
    chance = rng.random()
    if chance < 0.3:
        return [_expand(rng, phrases.NORMAL_BONES, {})]
    return [_expand(rng, phrases.NO_FRACTURE, {})] if chance < 0.5 else []


def _impression(rng: random.Random, case: Case) -> str:
    parts = []
    ordered = sorted(case.findings, key=lambda f: _URGENCY.index(f.pathology))
    for finding in ordered:
        slots = _slots(finding)
        text = _expand(rng, phrases.SUMMARY[(finding.pathology, finding.form)], slots)
        if finding.uncertain:
            text = _expand(rng, (phrases.HEDGED_SUMMARY,), {"summary": text[:1].lower() + text[1:]})
        parts.append(text + ".")
    if not parts:
        if case.devices:
            kind = case.devices[0]
            text = _expand(rng, (phrases.DEVICE_SUMMARY[kind.kind.value],), _device_slots(kind))
            parts.append(text + ".")
            parts.append(_expand(rng, phrases.NORMAL_SUMMARY[:2], {}))
        else:
            parts.append(_expand(rng, phrases.NORMAL_SUMMARY, {}))
    elif case.devices and rng.random() < 0.4:
        first = case.devices[0]
        parts.append(_expand(rng, (phrases.DEVICE_SUMMARY[first.kind.value],), _device_slots(first)) + ".")
    if len(parts) > 1 and rng.random() < 0.3:
        parts = [f"{number}. {text}" for number, text in enumerate(parts, start=1)]
    return " ".join(parts)


def _priors(rng: random.Random, case: Case) -> tuple[str, ...]:
    date = case.study_date - datetime.timedelta(days=rng.randrange(3, 400))
    slots = {"date": rng.choice((date.strftime("%m/%d/%Y"), date.strftime("%B %Y"), date.isoformat()))}
    nouns = [phrases.NOUN[f.pathology] for f in case.findings]
    sentences = []
    for _ in range(rng.choice((1, 1, 2))):
        if nouns and rng.random() < 0.7:
            noun = nouns.pop(rng.randrange(len(nouns)))
            sentences.append(_expand(rng, phrases.PRIOR_OF, slots | {"noun": noun}))
        else:
            sentences.append(_expand(rng, phrases.PRIOR_GENERAL, slots))
    return tuple(dict.fromkeys(sentences))


def write_report(case: Case, *, prior_share: float = 0.0) -> Report:
    """Write the report of a case.

    Args:
        case: What is true.
        prior_share: Share of reports, 0 to 1, that also compare with an invented earlier study. These
            sentences are listed in ``Report.prior_sentences`` and asserted of nothing drawn; they exist so
            that their removal from exemplars can be tested. The rest of the text does not depend on it.

    Raises:
        ValueError: If the share is not between 0 and 1.
    """
    if not 0.0 <= prior_share <= 1.0:
        raise ValueError(f"prior_share is a share from 0 to 1, not {prior_share}")
    rng = stream(case.seed, case.index, "report")
    devices = [
        _expand(rng, phrases.DEVICES[d.kind.value], _device_slots(d))
        for d in sorted(case.devices, key=lambda d: list(DeviceKind).index(d.kind))
    ]
    groups = [_lungs(rng, case), _pleura(rng, case), _heart(rng, case)]
    rng.shuffle(groups)
    ordered = (
        [devices, *groups, _bones(rng, case)] if rng.random() < 0.7 else [*groups, _bones(rng, case), devices]
    )
    sentences = [sentence for group in ordered for sentence in group]
    impression = _impression(rng, case)
    other = stream(case.seed, case.index, "prior")
    priors: tuple[str, ...] = ()
    if other.random() < prior_share:
        priors = _priors(other, case)
        for sentence in priors:
            sentences.insert(other.randrange(len(sentences) + 1), sentence)
    return Report(findings=" ".join(sentences), impression=impression, prior_sentences=priors)


def reports(seed: int, n: int) -> Iterator[str]:
    """Texts of the first ``n`` studies of a seed, without drawing them.

    Used to train the tokenizer and the small language model.
    """
    for index in range(n):
        yield write_report(sample_case(seed, index)).text
