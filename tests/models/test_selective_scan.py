"""Every form of the selective scan against the loop in fp64, values and gradients."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import selective_scan as package
from models.selective_scan import available_forms, resolve_form, selective_scan
from models.selective_scan.directions import merge, walk, walk_each
from tests.scan_cases import arguments_of, assert_agrees, run

# (H, W) of the lengths 1, 3, 49, 50, 196 and others, square and not.
MAPS = ((1, 1), (1, 3), (3, 1), (7, 7), (5, 10), (10, 5), (14, 14), (1, 65), (13, 11))


@pytest.fixture(params=["chunked", "compiled"])
def form(request: pytest.FixtureRequest) -> str:
    reason = available_forms()[request.param]
    if reason is not None:
        pytest.skip(reason)
    name: str = request.param
    return name


@pytest.mark.parametrize(("height", "width"), MAPS)
def test_a_form_equals_the_loop_at_every_length(form: str, height: int, width: int) -> None:
    assert_agrees(arguments_of(2, height, width, 20), form)


@functools.cache
def _longest() -> tuple[tuple[Tensor, ...], list[Tensor]]:
    arguments = arguments_of(1, 56, 56, 5)
    return arguments, run(arguments, "loop", torch.float64)


@pytest.mark.slow
def test_a_form_equals_the_loop_at_3136_steps(form: str) -> None:
    arguments, expected = _longest()
    assert_agrees(arguments, form, expected)


@pytest.mark.parametrize("states", [1, 2, 5])
@pytest.mark.parametrize("channels", [1, 15, 16, 17, 48])
def test_a_form_equals_the_loop_at_ragged_widths_and_several_states(
    form: str, channels: int, states: int
) -> None:
    assert_agrees(arguments_of(1, 3, 6, channels, rank=3, states=states), form)


@pytest.mark.parametrize("step", [1e-3, 10.0, 100.0])
@pytest.mark.parametrize("rate", [0.01, 3.0, 8.0])
def test_a_form_survives_extreme_steps_and_decays(form: str, step: float, rate: float) -> None:
    assert_agrees(arguments_of(1, 7, 9, 16, states=2, step=step, rate=rate), form)


@pytest.mark.parametrize("bias", [-30.0, -100.0, 50.0])
def test_a_form_survives_steps_that_all_vanish_or_all_are_huge(form: str, bias: float) -> None:
    features, projected, weight, _, a_log, skip = arguments_of(1, 5, 5, 16)
    assert_agrees((features, projected, weight, torch.full((4, 16), bias), a_log, skip), form)


def test_the_loop_passes_a_numerical_gradient_check() -> None:
    arguments = tuple(tensor.double().requires_grad_() for tensor in arguments_of(1, 2, 3, 2, states=2))
    for name in ("loop", "chunked"):
        assert torch.autograd.gradcheck(functools.partial(selective_scan, form=name), arguments)


def test_the_merge_is_the_transpose_of_the_walk() -> None:
    features = torch.arange(2 * 3 * 4 * 2.0).reshape(2, 3, 4, 2)
    walked = walk(features)
    assert torch.equal(merge(walked, 3, 4), 4 * features)
    assert torch.equal(walked, walk_each(features[:, :, :, None].expand(2, 3, 4, 4, 2)))
    # Rows, columns, and both from the end (the order that the public checkpoints were trained with).
    assert walked[0, :, :3, 0].tolist() == [[0, 2, 4], [0, 8, 16], [22, 20, 18], [22, 14, 6]]


def test_an_image_does_not_depend_on_its_batch(form: str) -> None:
    arguments = arguments_of(3, 5, 4, 20)
    whole = selective_scan(*arguments, form=form)
    alone = selective_scan(arguments[0][1:2], arguments[1][1:2], *arguments[2:], form=form)
    # The compiled form is exact; torch picks other vector widths for other sizes: 2e-7 measured.
    torch.testing.assert_close(alone, whole[1:2], rtol=1e-5, atol=1e-5)


def test_threads_do_not_change_the_compiled_result() -> None:
    if available_forms()["compiled"] is not None:
        pytest.skip("no compiled form here")
    arguments, threads = arguments_of(2, 7, 7, 48), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(run(arguments, "compiled", torch.float32))
    finally:
        torch.set_num_threads(threads)
    # The scan itself is exact; the matrix products of the backward pass may split differently.
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][0], results[2][0])
    assert torch.equal(results[0][1], results[2][1])


def test_strided_arguments_give_the_same(form: str) -> None:
    arguments = arguments_of(1, 4, 6, 16)
    strided = tuple(torch.stack([tensor, tensor], dim=-1)[..., 0] for tensor in arguments)
    assert torch.equal(selective_scan(*arguments, form=form), selective_scan(*strided, form=form))


def test_the_scan_stays_fp32_under_autocast_and_for_16_bit_maps(form: str) -> None:
    features, projected, *parameters = arguments_of(1, 4, 4, 16)
    expected = selective_scan(features.bfloat16().float(), projected, *parameters, form=form)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = selective_scan(features.bfloat16(), projected, *parameters, form=form)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, expected, rtol=1e-6, atol=1e-6)


def test_auto_takes_the_compiled_form_on_the_cpu_and_keeps_fp64_in_torch() -> None:
    compiled = available_forms()["compiled"] is None
    cpu = torch.device("cpu")
    assert resolve_form("auto", cpu, torch.float32) == ("compiled" if compiled else "chunked")
    assert resolve_form("auto", cpu, torch.float64) == "chunked"


def test_what_is_wrong_with_the_arguments_is_said() -> None:
    arguments = list(arguments_of(1, 2, 3, 4))
    with pytest.raises(
        ValueError, match=r"unknown form of the selective scan 'fast'; choose one of auto, loop"
    ):
        selective_scan(*arguments, form="fast")
    arguments[3] = torch.zeros(4, 5)
    with pytest.raises(
        ValueError, match=r"dt_bias must be \(4, 4\) for features \(1, 2, 3, 4\), got \(4, 5\)"
    ):
        selective_scan(*arguments)
    with pytest.raises(ValueError, match="at least one pixel"):
        selective_scan(*arguments_of(1, 0, 3, 4))
    if available_forms()["compiled"] is None:
        with pytest.raises(ValueError, match=r"compiled scan needs fp32 on the CPU, got torch\.float64"):
            selective_scan(*(tensor.double() for tensor in arguments_of(1, 2, 3, 4)), form="compiled")


@pytest.fixture
def own_kernels(tmp_path: Path) -> Iterator[Path]:
    """A cache folder of the test's own, and the usual one again afterwards."""
    usual = package.cache_folder()
    package.set_cache_folder(tmp_path / "kernels")
    yield tmp_path / "kernels"
    package.set_cache_folder(usual)


def test_without_its_compiler_the_scan_falls_back_and_says_why(
    own_kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package.native.importlib.util, "find_spec", lambda name: None)
    assert available_forms()["compiled"] == (
        "the ziglang wheel, which compiles the kernels, is not installed"
    )
    assert resolve_form("auto", torch.device("cpu"), torch.float32) == "chunked"
    assert selective_scan(*arguments_of(1, 2, 3, 4)).shape == (1, 2, 3, 4)


def test_a_cache_folder_that_cannot_be_made_is_a_reason_not_a_crash(own_kernels: Path) -> None:
    own_kernels.write_text("a file where the folder should be")
    reason = available_forms()["compiled"]
    assert reason is not None
    assert "cannot be kept or loaded" in reason or "ziglang" in reason


@pytest.mark.slow
def test_the_kernel_is_built_once_under_the_name_of_its_content(own_kernels: Path) -> None:
    pytest.importorskip("ziglang")
    assert available_forms()["compiled"] is None
    built = list(own_kernels.iterdir())
    assert [path.suffix for path in built] == [".so"]
    made = built[0].stat().st_mtime_ns
    package.set_cache_folder(own_kernels)
    assert available_forms()["compiled"] is None
    assert built[0].stat().st_mtime_ns == made


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["chunked", "triton", "mamba"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3), (7, 7), (5, 10), (14, 14), (56, 56)])
def test_a_form_equals_the_loop_on_the_gpu(name: str, height: int, width: int) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if (reason := available_forms()[name]) is not None:
        pytest.skip(reason)
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        for step, states in ((1.0, 1), (30.0, 2)):
            arguments = arguments_of(2, height, width, 20, states=states, step=step)
            expected = run(arguments, "loop", torch.float64)
            assert_agrees(tuple(tensor.cuda() for tensor in arguments), name, expected)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
