"""Retrieval in numpy: Eq. 8 as one inner product."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.dmsr import exemplar_vector, query_vector, similarities, unit

D, K = 6, 14
VALUES = st.floats(-1e6, 1e6, width=32)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    length = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / length) if length > 0 else 0.0


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_one_inner_product_is_equation_8(alpha: float) -> None:
    random = np.random.default_rng(0)
    v, z, w, y = (random.normal(size=n) for n in (D, K, D, K))
    by_hand = alpha * cosine(v, w) + (1 - alpha) * cosine(z, y)
    assert query_vector(v, z, alpha) @ exemplar_vector(w, y) == pytest.approx(by_hand, abs=1e-6)
    found = similarities(v, z, exemplar_vector(w, y), alpha)
    assert found.weighted[0] == pytest.approx(by_hand, abs=1e-6)
    assert found.visual[0] == pytest.approx(cosine(v, w), abs=1e-6)
    assert found.disease[0] == pytest.approx(cosine(z, y), abs=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_half_precision_keeps_three_digits(alpha: float) -> None:
    random = np.random.default_rng(1)
    v, z = random.normal(size=768), random.normal(size=K)
    rows = np.stack([exemplar_vector(random.normal(size=768), random.normal(size=K)) for _ in range(20)])
    exact = similarities(v, z, rows, alpha).weighted
    stored = rows.astype(np.float16).astype(np.float32)
    query = query_vector(v, z, alpha).astype(np.float16).astype(np.float32)
    # Measured largest difference 2e-4.
    np.testing.assert_allclose(stored @ query, exact, atol=1e-3, rtol=0)


@settings(deadline=None, max_examples=60)
@given(
    v=arrays(np.float32, D, elements=VALUES),
    z=arrays(np.float32, K, elements=VALUES),
    w=arrays(np.float32, D, elements=VALUES),
    y=arrays(np.float32, K, elements=VALUES),
    alpha=st.floats(0, 1),
)
def test_similarities_stay_within_bounds_and_are_symmetric(
    v: np.ndarray, z: np.ndarray, w: np.ndarray, y: np.ndarray, alpha: float
) -> None:
    there = similarities(v, z, exemplar_vector(w, y), alpha).weighted[0]
    back = similarities(w, y, exemplar_vector(v, z), alpha).weighted[0]
    assert abs(there) <= 1 + 1e-5
    assert there == pytest.approx(back, abs=1e-5)


def test_a_study_is_most_similar_to_itself() -> None:
    random = np.random.default_rng(2)
    cases = [(random.normal(size=D), random.normal(size=K)) for _ in range(30)]
    rows = np.stack([exemplar_vector(v, z) for v, z in cases])
    for i, (v, z) in enumerate(cases):
        found = similarities(v, z, rows, 0.5).weighted
        assert int(found.argmax()) == i
        assert found[i] == pytest.approx(1.0, abs=1e-6)


def test_vectors_are_float32_of_both_halves() -> None:
    vector = exemplar_vector(np.ones(D), np.ones(K))
    assert vector.dtype == np.float32
    assert vector.shape == (D + K,)
    assert np.linalg.norm(vector[:D]) == pytest.approx(1.0)
    assert np.linalg.norm(vector[D:]) == pytest.approx(1.0)
    assert query_vector(np.ones(D), np.ones(K), 0.3).dtype == np.float32


def test_a_zero_vector_has_no_direction_and_no_similarity() -> None:
    assert unit(np.zeros(4)).tolist() == [0.0] * 4
    found = similarities(np.zeros(D), np.ones(K), exemplar_vector(np.ones(D), np.ones(K)), 0.5)
    assert found.visual[0] == 0.0
    assert found.weighted[0] == pytest.approx(0.5)


@pytest.mark.parametrize("size", [1e-30, 1e-300, 1e30, 1e300])
def test_neither_tiny_nor_huge_vectors_lose_their_direction(size: float) -> None:
    assert unit([3 * size, 4 * size]).tolist() == pytest.approx([0.6, 0.8])


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        exemplar_vector([1.0, float("nan")], [1.0])


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_an_alpha_outside_its_range_is_named(alpha: float) -> None:
    with pytest.raises(ValueError, match=rf"alpha must lie in \[0, 1\], got {alpha}"):
        query_vector([1.0], [1.0], alpha)


def test_exemplars_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"exemplars are \(1, 5\), the query needs \(M, 3 \+ 1\)"):
        similarities(np.ones(3), np.ones(1), np.ones(5), 0.5)
