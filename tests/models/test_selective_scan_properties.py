"""No map, width or step tells the forms of the selective scan apart."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.selective_scan import available_forms
from tests.scan_cases import arguments_of, assert_agrees, run


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 2),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.integers(1, 35),
    rank=st.integers(1, 5),
    states=st.integers(1, 3),
    step=st.sampled_from([0.01, 1.0, 30.0]),
    rate=st.sampled_from([0.1, 1.0, 5.0]),
    seed=st.integers(0, 2**31),
)
def test_no_map_tells_the_forms_apart(
    batch: int,
    height: int,
    width: int,
    channels: int,
    rank: int,
    states: int,
    step: float,
    rate: float,
    seed: int,
) -> None:
    arguments = arguments_of(batch, height, width, channels, rank, states, step=step, rate=rate, seed=seed)
    expected = run(arguments, "loop", torch.float64)
    for name in ("chunked", "compiled"):
        if available_forms()[name] is None:
            assert_agrees(arguments, name, expected)
