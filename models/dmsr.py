"""Dual-Modal Similarity Retrieval: which reported case looks and is labelled most alike (Eq. 8).

Only numpy: the database computes the same inner product, and ``tests`` hold the two equal. A vector
of zeros has no direction; its unit vector is taken as zeros, so its similarity to anything is 0.
"""

# Shapes: D features, K = 14 pathologies, M exemplars.

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Similarities:
    """Cosines of one query with exemplars, each ``(M,)`` in [-1, 1]."""

    visual: Vector
    """Cosine of the mean patch tokens."""

    disease: Vector
    """Cosine of the raw logits."""

    weighted: Vector
    """``alpha * visual + (1 - alpha) * disease`` (Eq. 8)."""


def unit(vector: ArrayLike) -> Vector:
    """Scale to length one along the last axis; zeros stay zeros.

    Raises:
        ValueError: If a value is not finite.
    """
    values = np.asarray(vector, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a vector for retrieval holds a value that is not finite")
    # Divide by the largest value first, so that neither huge nor tiny vectors lose their length.
    largest = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
    scaled = np.divide(values, largest, out=np.zeros_like(values), where=largest > 0)
    length = np.linalg.norm(scaled, axis=-1, keepdims=True)
    directions = np.divide(scaled, length, out=np.zeros_like(scaled), where=length > 0)
    return cast(Vector, directions.astype(np.float32))


def exemplar_vector(visual_mean: ArrayLike, logits: ArrayLike) -> Vector:
    """Pack an exemplar for the index: ``[unit(v) ; unit(z)]``, ``(D + K,)``, independent of alpha.

    Args:
        visual_mean: Mean patch token ``v``, ``(D,)``.
        logits: Raw logits ``z``, ``(K,)``.
    """
    return np.concatenate([unit(visual_mean), unit(logits)], axis=-1)


def query_vector(visual_mean: ArrayLike, logits: ArrayLike, alpha: float) -> Vector:
    """Pack a query so that one inner product with an exemplar vector is Eq. 8.

    ``[alpha * unit(v) ; (1 - alpha) * unit(z)]``, ``(D + K,)``.

    Raises:
        ValueError: If alpha is outside [0, 1].
    """
    _check_alpha(alpha)
    visual, disease = np.float32(alpha), np.float32(1.0 - alpha)
    return np.concatenate([visual * unit(visual_mean), disease * unit(logits)], axis=-1)


def similarities(
    visual_mean: ArrayLike, logits: ArrayLike, exemplars: ArrayLike, alpha: float
) -> Similarities:
    r"""Compare one query with exemplars.

    .. math:: s_i = \alpha \cos(\bar v, \bar v_i) + (1-\alpha) \cos(z, z_i)

    Logits rather than probabilities: the paper speaks of disease classification logits.

    Args:
        visual_mean: The query's mean patch token, ``(D,)``.
        logits: The query's raw logits, ``(K,)``.
        exemplars: Rows made by ``exemplar_vector``, ``(M, D + K)``; their halves have length one or zero.
        alpha: Weight of the visual half, in [0, 1]. Not in the paper; 0.5 is the recipes' default.

    Raises:
        ValueError: If alpha is outside [0, 1] or the sizes do not fit.
    """
    _check_alpha(alpha)
    v, z = unit(visual_mean), unit(logits)
    rows = np.atleast_2d(np.asarray(exemplars, dtype=np.float32))
    if v.ndim != 1 or z.ndim != 1 or rows.shape[-1] != v.size + z.size:
        raise ValueError(f"exemplars are {rows.shape}, the query needs (M, {v.size} + {z.size})")
    visual = rows[:, : v.size] @ v
    disease = rows[:, v.size :] @ z
    weighted = np.float32(alpha) * visual + np.float32(1.0 - alpha) * disease
    return Similarities(visual=visual, disease=disease, weighted=weighted)


def _check_alpha(alpha: float) -> None:
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
