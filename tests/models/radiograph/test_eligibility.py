"""Which image of a study is read."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from models.radiograph.eligibility import EligibilityPolicy, choose
from models.radiograph.header import InstanceHeader
from models.radiograph.view import View


def instance(number: int, view: View, rows: int = 2000, image_type: tuple[str, ...] = ()) -> InstanceHeader:
    return InstanceHeader(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
        sop_instance_uid=f"1.2.{number}",
        study_instance_uid="1.2",
        series_instance_uid="1.2.3",
        transfer_syntax_uid="1.2.840.10008.1.2",
        modality="CR",
        view=view,
        body_part="CHEST",
        photometric_interpretation="MONOCHROME2",
        rows=rows,
        columns=2000,
        samples_per_pixel=1,
        bits_allocated=16,
        bits_stored=12,
        number_of_frames=1,
        presentation_intent=None,
        image_type=image_type,
        patient_id=None,
        issuer_of_patient_id=None,
        patient_age_years=None,
        requested_priority=None,
        study_date=None,
        has_pixel_data=True,
        notes=(),
    )


def test_pa_goes_before_ap_before_frontal_then_size_then_the_lowest_uid() -> None:
    best_first = [
        instance(9, View.PA, rows=3000),
        instance(10, View.PA, rows=3000),
        instance(1, View.PA, rows=2500),
        instance(2, View.AP, rows=4000),
        instance(3, View.FRONTAL, rows=5000),
        instance(4, View.PA, rows=6000, image_type=("DERIVED", "PRIMARY")),
    ]
    for left, right in itertools.pairwise(best_first):
        assert choose([left, right]) == 0
        assert choose([right, left]) == 1


def test_the_choice_does_not_depend_on_the_order() -> None:
    headers = [
        instance(n, view, rows)
        for n, (view, rows) in enumerate(itertools.product((View.PA, View.AP), (1, 2)))
    ]
    chosen = {
        headers[choose(order)].sop_instance_uid
        for order in map(list, itertools.permutations(headers))
        if (headers := order)
    }
    assert len(chosen) == 1


def test_choosing_from_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no eligible instance"):
        choose([])


def test_a_policy_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match="got -1"):
        EligibilityPolicy(minimum_age_years=-1)


def test_a_header_with_a_bad_uid_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="study_instance_uid is no UID"):
        replace(instance(1, View.PA), study_instance_uid="../x")


@pytest.mark.parametrize(
    "change", [{"rows": "2000"}, {"notes": ["no such note"]}, {"view": "top"}, {"extra": 1}]
)
def test_a_header_document_of_a_stranger_is_checked(change: dict[str, object]) -> None:
    document = instance(1, View.PA).to_json() | change
    with pytest.raises(ValueError):
        InstanceHeader.from_json(document)
