"""The words of phantom reports: they assert what was drawn, all of it, and nothing else."""

from __future__ import annotations

import re

import pytest

from models.pathologies import Pathology
from training.datasets.phantom import cases, reports, sample_case, write_report
from training.datasets.phantom.case import DeviceKind, Side

P = Pathology

# An independent, deliberately simple reading: a sentence that denies is dropped whole, the rest asserts.
_DENIES = re.compile(
    r"^(no|there is no|the lungs are clear|lungs are|normal)\b"
    r"|not (widened|enlarged)|within normal limits|normal|unremarkable|intact",
)
_WORDS = {
    P.CARDIOMEGALY: r"cardiomegaly|(heart|silhouette) is \w+ enlarged|enlarged heart|ment of the cardiac",
    P.ENLARGED_CARDIOMEDIASTINUM: r"mediastin(um|al)",
    P.LUNG_LESION: r"nodule|nodular|mass\b|mass-like",
    P.LUNG_OPACITY: r"opacit|airspace disease",
    P.EDEMA: r"edema",
    P.CONSOLIDATION: r"consolidation",
    P.PNEUMONIA: r"pneumonia",
    P.ATELECTASIS: r"atelectasis|collapse",
    P.PNEUMOTHORAX: r"pneumothorax",
    P.PLEURAL_EFFUSION: r"effusion",
    P.PLEURAL_OTHER: r"pleural thickening|pleural plaque",
    P.FRACTURE: r"fracture",
    P.SUPPORT_DEVICES: r"tube|catheter|central line|picc|port\b|port-a|pacemaker|valve",
}


def _sentences(text: str) -> list[str]:
    text = re.sub(r"(?<!\d)\b\d\. ", "", text.lower())
    return [s for s in re.split(r"(?<=[a-z])\.\s*", text) if s]


def _asserted(text: str) -> set[Pathology]:
    spoken = " . ".join(s for s in _sentences(text) if not _DENIES.search(s))
    return {p for p, words in _WORDS.items() if re.search(words, spoken)}


def test_a_report_asserts_exactly_what_was_drawn() -> None:
    for index in range(1500):
        case = sample_case(21, index)
        text = write_report(case)
        drawn = {p for p in _WORDS if case.labels[p]}
        assert _asserted(f"{text.findings} {text.impression}") == drawn, (index, text)


def test_only_what_was_not_drawn_is_denied() -> None:
    words = {p: _WORDS[p] for p in (P.PNEUMOTHORAX, P.PLEURAL_EFFUSION, P.EDEMA, P.FRACTURE, P.CONSOLIDATION)}
    denials = 0
    for index in range(800):
        case = sample_case(22, index)
        for sentence in _sentences(write_report(case).findings):
            if re.match(r"(no|there is no) ", sentence):
                for pathology, pattern in words.items():
                    if re.search(pattern, sentence):
                        denials += 1
                        assert not case.labels[pathology], sentence
    assert denials > 800


def test_the_impression_alone_names_every_finding() -> None:
    for index in range(600):
        case = sample_case(23, index)
        drawn = {f.pathology for f in case.findings} - {P.LUNG_OPACITY}
        assert drawn <= _asserted(write_report(case).impression), index


def test_texts_are_clean_english() -> None:
    for text in reports(24, 1500):
        assert not re.search(r"[{}|_()]|  | ,| \.|\.\.", text), text
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [bcdfghjklmnpqrstvwxyz]", text), text
        assert not re.search(
            r"\b(is|are) (is|are)\b|plaques is|thickening are|effusions is|effusion are", text
        ), text


def test_reports_are_the_texts_of_the_studies() -> None:
    texts = list(reports(25, 20))
    assert texts[7] == write_report(sample_case(25, 7)).text
    assert texts[7].startswith("Findings: ")
    assert " Impression: " in texts[7]


def test_phrasings_are_many() -> None:
    texts = list(reports(26, 1000))
    assert len(set(texts)) > 980
    normal = [write_report(case).findings for case in cases(26, 1000) if not case.findings]
    assert len(set(normal)) > 0.85 * len(normal)


def test_hedges_are_about_drawn_findings_and_are_listed() -> None:
    hedge = re.compile(r"may re|could re|possibl|probabl|suspect|suspicious|concerning|likely")
    hedged = 0
    for index in range(800):
        case = sample_case(27, index)
        report = write_report(case)
        spoken = " ".join(s for s in _sentences(report.text) if not _DENIES.search(s))
        assert bool(hedge.search(spoken)) == bool(case.uncertain), (index, report)
        assert all(case.labels[p] for p in case.uncertain)
        hedged += bool(case.uncertain)
    assert hedged > 60


def test_measures_in_the_text_are_those_of_the_drawing() -> None:
    tubes = lesions = 0
    for index in range(1500):
        case = sample_case(28, index)
        text = write_report(case).findings
        for device in case.devices:
            if device.kind is DeviceKind.ENDOTRACHEAL_TUBE:
                tubes += 1
                assert f"{device.tip_mm / 10:.1f} cm" in text
        for finding in case.of(P.LUNG_LESION):
            lesions += 1
            assert f"{finding.size_mm / 10:.1f} cm" in text or f"{finding.size_mm:.0f} mm" in text
    assert tubes > 50
    assert lesions > 100


def test_side_and_lobe_are_those_of_the_drawing() -> None:
    checked = 0
    for index in range(1500):
        case = sample_case(29, index)
        for finding in case.of(P.PNEUMONIA):
            sentence = next(s for s in _sentences(write_report(case).findings) if "pneumonia" in s)
            place = {"middle": "right middle lobe" if finding.side is Side.RIGHT else "lingula"}.get(
                finding.zone.value, f"{finding.side.value} {finding.zone.value} lobe"
            )
            assert place in sentence
            checked += 1
    assert checked > 100


def test_comparisons_with_priors_appear_only_on_request_and_are_listed() -> None:
    compared = 0
    for index in range(400):
        case = sample_case(30, index)
        plain, exemplar = write_report(case), write_report(case, prior_share=0.5)
        assert plain.prior_sentences == ()
        assert not re.search(r"prior|previous|interval|compar|unchanged", plain.text.lower())
        rest = exemplar.findings
        for sentence in exemplar.prior_sentences:
            assert sentence in rest
            assert re.search(r"prior|previous|interval", sentence.lower())
            rest = rest.replace(sentence, "", 1)
        assert " ".join(rest.split()) == plain.findings
        assert exemplar.impression == plain.impression
        compared += bool(exemplar.prior_sentences)
    assert 140 < compared < 260


def test_an_impossible_share_is_refused() -> None:
    with pytest.raises(ValueError, match=r"from 0 to 1, not 1\.5"):
        write_report(sample_case(1, 0), prior_share=1.5)
