"""Patients are told apart by a keyed hash, and strangers are never made one patient."""

from __future__ import annotations

import pytest

from workers.identity import patient_hash, study_hash

KEY = b"k" * 32


def test_the_same_patient_has_the_same_hash_and_others_have_others() -> None:
    one = patient_hash(KEY, "ISSUER", "4711")
    assert one is not None
    assert len(one) == 32
    assert one == patient_hash(KEY, " ISSUER ", "4711 ")
    others = [
        patient_hash(KEY, "OTHER", "4711"),
        patient_hash(KEY, "ISSUER", "4712"),
        patient_hash(b"x" * 32, "ISSUER", "4711"),
        patient_hash(KEY, None, "4711"),
        patient_hash(KEY, "ISSUER\x1f4711", "4711"),
    ]
    assert one not in others
    assert len(set(others)) == len(others)


@pytest.mark.parametrize(
    "patient_id",
    [None, "", "  ", "0", "000", "xxx", "---", "N/A", "n/a", "None", "unknown", "ANON", "anonymized", "test"],
)
def test_a_missing_id_or_a_place_holder_makes_nobody(patient_id: str | None) -> None:
    assert patient_hash(KEY, "ISSUER", patient_id) is None


def test_the_hash_shows_nothing_of_the_id() -> None:
    found = patient_hash(KEY, None, "DOE-1970")
    assert found is not None
    assert b"DOE" not in found
    assert study_hash(KEY, "1.2.3") != study_hash(KEY, "1.2.4")
    assert study_hash(KEY, " 1.2.3 ") == study_hash(KEY, "1.2.3")
