"""The reason codes, their page, and what a refusal may say."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from models.radiograph.eligibility import PRECEDENCE, summarise
from models.radiograph.reasons import NOTES, REASONS, Disposition, Refused, as_markdown

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_is_current() -> None:
    page = (ROOT / "docs" / "reason-codes.md").read_text()
    assert page == as_markdown(), "run: python -m models.radiograph.reasons > docs/reason-codes.md"


def test_codes_are_snake_case_and_sentences_are_sentences() -> None:
    for code, reason in REASONS.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", code)
        assert reason.code == code
        for sentence in (reason.sentence, reason.remedy):
            assert sentence[0].isupper()
            assert sentence.endswith(".")
    assert not set(REASONS) & set(NOTES)


def test_every_code_and_note_is_used_by_the_code() -> None:
    sources = [*(ROOT / "models" / "radiograph").glob("*.py"), *(ROOT / "workers").glob("*.py")]
    text = "".join(path.read_text() for path in sources if path.name != "reasons.py")
    unused = [name for name in (*REASONS, *NOTES) if f'"{name}"' not in text]
    assert unused == []


def test_a_refusal_says_the_code_the_tags_and_the_sentence() -> None:
    refusal = Refused("truncated", tags=(0x7FE00010,))
    assert str(refusal) == "truncated (7FE0,0010): The file ends before the data that its header announces."
    again = pickle.loads(pickle.dumps(refusal))
    assert (again.code, again.tags) == ("truncated", (0x7FE00010,))


def test_an_unknown_code_is_named() -> None:
    with pytest.raises(ValueError, match="unknown reason code 'bored'"):
        Refused("bored")


def test_a_study_gets_one_code_whatever_the_order() -> None:
    assert summarise(["wrong_modality", "lateral_only"]) == "lateral_only"
    assert summarise(["lateral_only", "under_age", "wrong_modality"]) == "under_age"
    assert summarise(["lateral_only", "decode_failed"]) == "decode_failed"
    assert summarise(["decode_failed", "lateral_only"]) == "decode_failed"
    with pytest.raises(ValueError, match="without instances"):
        summarise([])


def test_the_precedence_holds_every_ineligible_code() -> None:
    ineligible = {code for code, reason in REASONS.items() if reason.disposition is Disposition.INELIGIBLE}
    assert set(PRECEDENCE) == ineligible
