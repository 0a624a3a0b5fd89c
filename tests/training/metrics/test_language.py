"""Language scores on fixed texts equal recorded values; the legacy cleaner keeps its quirks to itself."""

from __future__ import annotations

import pytest

from training.metrics import Vocabulary, clean_report, language_scores, truncate_reference
from training.metrics.language import tokenise

REFERENCES = [
    "The heart is normal in size. The lungs are clear.",
    "There is a small left effusion of 1.5 cm. No pneumothorax.",
    "Bibasilar atelectasis. The heart is enlarged.",
    "No acute abnormality of the chest.",
]
DRAFTS = [
    "The heart is normal in size. Lungs are clear.",
    "There is a large right effusion of 1.5 cm.",
    "Bibasilar atelectasis is seen. The heart is enlarged.",
    "No effusion. No pneumothorax.",
]


def test_strict_scores_equal_recorded_values() -> None:
    # Recorded with pycocoevalcap 1.2 on the tokens below; measured again: equal to the last digit.
    scores = language_scores(REFERENCES, DRAFTS)
    assert scores.bleu_1 == pytest.approx(0.6937086871, abs=1e-9)
    assert scores.bleu_2 == pytest.approx(0.6215086247, abs=1e-9)
    assert scores.bleu_3 == pytest.approx(0.5416025871, abs=1e-9)
    assert scores.bleu_4 == pytest.approx(0.4470206239, abs=1e-9)
    assert scores.rouge_l == pytest.approx(0.6747269624, abs=1e-9)
    assert scores.cider == pytest.approx(4.0349399295, abs=1e-9)


def test_legacy_scores_equal_recorded_values() -> None:
    scores = language_scores(REFERENCES, DRAFTS, "legacy")
    assert scores.bleu_1 == pytest.approx(0.7227418578, abs=1e-9)
    assert scores.bleu_4 == pytest.approx(0.5226376040, abs=1e-9)
    assert scores.rouge_l == pytest.approx(0.7098230362, abs=1e-9)
    assert scores.cider == pytest.approx(4.5710105589, abs=1e-9)


def test_a_single_report_has_a_cider_score() -> None:
    assert language_scores(REFERENCES[:1], REFERENCES[:1]).cider == pytest.approx(10.0)
    assert language_scores(REFERENCES[:1], DRAFTS[:1]).cider == pytest.approx(7.1950503410, abs=1e-9)
    assert language_scores(REFERENCES[:1], ["Nothing alike"]).cider == 0.0


def test_scoring_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    language_scores(REFERENCES, DRAFTS)
    assert capsys.readouterr() == ("", "")


def test_an_empty_draft_scores_nothing_and_breaks_nothing() -> None:
    scores = language_scores(REFERENCES[:2], ["", ""])
    assert (scores.rouge_l, scores.cider) == (0.0, 0.0)
    assert scores.bleu_1 < 1e-6


def test_strict_tokens_keep_numbers_whole() -> None:
    assert (
        tokenise("A nodule of 1.5 cm, T8-level; patient's left.")
        == "a nodule of 1.5 cm t 8 level patient's left"
    )


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("iu_xray", "nodule of 15 cm . heart normal see note . xxxx no effusion twedge ."),
        ("mimic_cxr", "nodule of 15 cm . heart : normal see note . xxxx no effusion twedge ."),
        ("mimic_cxr_r2gen", "nodule of 15 cm . heart normal see note . xxxx no effusion twedge ."),
    ],
)
def test_the_legacy_cleaner_keeps_each_quirk_of_its_family(variant: str, expected: str) -> None:
    text = "1. Nodule of 1.5 cm.. 2. Heart: normal [see note]. XXXX, no effusion; T1. wedge."
    assert clean_report(text, variant) == expected  # type: ignore[arg-type]


def test_the_range_in_the_old_character_class_eats_comparison_signs() -> None:
    text = "A < B. Size = 2.0 x 3.1 cm @ hilum?"
    assert clean_report(text, "iu_xray") == "a  b . size  20 x 31 cm  hilum ."
    assert clean_report(text, "mimic_cxr") == "a < b . size = 20 x 31 cm @ hilum ."


def test_the_legacy_cleaner_keeps_empty_sentences() -> None:
    assert clean_report("Normal. . Clear.") == "normal .  . clear ."


def test_an_unknown_variant_is_named() -> None:
    with pytest.raises(
        ValueError, match="variant is one of iu_xray, mimic_cxr, mimic_cxr_r2gen, not 'openi'"
    ):
        clean_report("", "openi")  # type: ignore[arg-type]


def test_legacy_references_lose_their_end_and_their_rare_words() -> None:
    vocabulary = Vocabulary.of(["The heart is normal."] * 3 + ["The spine is bent."])
    assert vocabulary.words == {"the", "heart", "is", "normal", "."}
    cleaned = clean_report("The heart is normal. The spine is bent.")
    assert (
        truncate_reference(cleaned, 60, vocabulary=vocabulary) == "the heart is normal . the <unk> is <unk> ."
    )
    # The first of the 60 positions is the start mark.
    assert len(truncate_reference("word " * 80, 60).split()) == 59
    assert truncate_reference(cleaned, 3, round_trip=lambda text, length: text[:length]) == "the"


def test_truncated_references_inflate_the_score() -> None:
    long = " ".join(f"word{index}" for index in range(120)) + "."
    drafts = [" ".join(f"word{index}" for index in range(58)) + ".", "no effusion."]
    strict = language_scores([long, "no effusion."], drafts)
    legacy = language_scores([long, "no effusion."], drafts, "legacy")
    assert strict.bleu_1 < 0.5 < 0.9 < legacy.bleu_1


def test_numbers_of_references_and_drafts_must_agree() -> None:
    with pytest.raises(ValueError, match="2 references for 1 drafts"):
        language_scores(REFERENCES[:2], DRAFTS[:1])
    with pytest.raises(ValueError, match="mode is strict or legacy, not 'loose'"):
        language_scores(REFERENCES, DRAFTS, "loose")  # type: ignore[arg-type]
