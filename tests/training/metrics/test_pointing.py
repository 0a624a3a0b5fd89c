"""The pointing game against masks whose outcome is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from training.metrics import pointing_game


def test_a_map_that_points_at_the_lesion_wins() -> None:
    masks = np.zeros((2, 28, 28), bool)
    masks[0, 4:8, 8:12] = True  # the cell (1, 2) of 7 x 7
    masks[1, 20:22, 20:22] = True  # a corner of the cell (5, 5)
    maps = np.zeros((2, 7, 7))
    maps[0, 1, 2] = maps[1, 5, 5] = 1.0
    game = pointing_game(maps, masks)
    assert game.rate.value == 1.0
    assert game.chance == pytest.approx(1 / 49)
    assert game.ratio == pytest.approx(49)


def test_the_centre_rule_is_stricter() -> None:
    masks = np.zeros((1, 28, 28), bool)
    masks[0, 20:22, 20:22] = True
    maps = np.zeros((1, 7, 7))
    maps[0, 5, 5] = 1.0
    assert pointing_game(maps, masks, rule="centre").rate.value == 0.0
    masks[0, 22, 22] = True
    assert pointing_game(maps, masks, rule="centre").rate.value == 1.0


def test_a_flat_map_scores_exactly_chance() -> None:
    rng = np.random.default_rng(0)
    game = pointing_game(np.ones((50, 7, 7)), rng.random((50, 56, 56)) > 0.99)
    assert game.ratio == pytest.approx(1.0)


def test_random_maps_score_about_chance() -> None:
    rng = np.random.default_rng(1)
    masks = np.zeros((2000, 28, 28), bool)
    masks[:, 3:12, 5:14] = True
    game = pointing_game(rng.random((2000, 7, 7)), masks, resamples=200)
    assert game.rate.low < game.chance < game.rate.high


def test_findings_without_a_mask_are_left_out() -> None:
    masks = np.zeros((2, 14, 14), bool)
    masks[0, 0, 0] = True
    game = pointing_game(np.ones((2, 7, 7)), masks)
    assert game.findings == 1
    empty = pointing_game(np.ones((1, 7, 7)), np.zeros((1, 14, 14), bool))
    assert empty.findings == 0
    assert math.isnan(empty.ratio)
    assert empty.to_json()["ratio"] is None


def test_misfit_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="a mask of 15 x 14 does not divide into 7 x 7 patches"):
        pointing_game(np.ones((1, 7, 7)), np.zeros((1, 15, 14), bool))
    with pytest.raises(ValueError, match="rule is cell or centre, not 'near'"):
        pointing_game(np.ones((1, 7, 7)), np.zeros((1, 14, 14), bool), rule="near")  # type: ignore[arg-type]
