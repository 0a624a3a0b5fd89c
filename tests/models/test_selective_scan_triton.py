"""The Triton programs under Triton's interpreter on the CPU, and their compilation for a GPU.

The interpreter must be chosen before the programs are imported, and it patches Triton's language, so it
runs in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

PROJECT = Path(__file__).resolve().parents[2]

# Compares values and gradients with the loop in fp64 and prints the largest error relative to the largest
# value; measured below 2e-6 for every case.
_PROGRAM = """
import sys, torch
from models.selective_scan import available_forms, selective_scan

def run(arguments, form, dtype):
    inputs = [tensor.to(dtype).clone().requires_grad_() for tensor in arguments]
    output = selective_scan(*inputs, form=form)
    output.backward(torch.randn(output.shape, generator=torch.Generator().manual_seed(7)).to(dtype))
    return [output.detach()] + [tensor.grad for tensor in inputs]

assert available_forms()["triton"] is None, available_forms()["triton"]
worst = 0.0
for case in sys.argv[1:]:
    batch, height, width, channels, rank, states, step = map(float, case.split(","))
    b, h, w, d, r, n = map(int, (batch, height, width, channels, rank, states))
    g = torch.Generator().manual_seed(0)
    shapes = ((b, h, w, d), (b, h, w, 4, r + 2 * n), (4, d, r), (4, d), (4, d, n), (4, d))
    arguments = [torch.randn(shape, generator=g) for shape in shapes]
    arguments[2] *= step
    arguments[3] = arguments[3] * step - 2
    for ours, theirs in zip(run(arguments, "triton", torch.float32), run(arguments, "loop", torch.float64)):
        assert torch.isfinite(ours).all()
        worst = max(worst, ((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30)).item())
print(worst)
"""


def _interpret(*cases: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *cases],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return float(done.stdout)


# Lengths 1, 3, 49, 50, 196 and 3,136 are among the cases. One process for all: importing torch is most of
# the time. Each case is B, H, W, D, R, N, step scale.
@pytest.mark.slow
def test_the_interpreted_programs_equal_the_loop_on_small_maps() -> None:
    cases = ("1,1,1,3,1,1,1", "1,1,3,2,1,1,1", "2,3,2,5,2,2,1", "1,4,3,2,2,1,30", "1,2,5,3,1,1,0.001")
    assert _interpret(*cases) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("case", ["1,7,7,2,1,1,1", "1,5,10,2,2,1,1", "1,13,11,1,1,1,1", "1,14,14,1,1,1,8"])
def test_the_interpreted_programs_carry_the_state_from_tile_to_tile(case: str) -> None:
    assert _interpret(case) <= 1e-4


@pytest.mark.slow
def test_the_interpreted_programs_equal_the_loop_over_the_first_map_of_an_image() -> None:
    """3,136 steps, 49 tiles: a stage of 56 x 56. Takes 20 s; measured error 1e-6."""
    assert _interpret("1,56,56,2,1,1,1") <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("program", ["forward", "backward"])
def test_the_programs_compile_for_a_gpu_without_one(program: str) -> None:
    """Down to machine code of compute capability 9.0; the compiler comes with the package."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if triton.knobs.runtime.interpret:
        pytest.skip("the interpreter is on")
    from models.selective_scan import triton_programs

    function = getattr(triton_programs, program)
    constants = {"N": 1, "NP": 1, "BT": 64, "BD": 16, "KEEP": True}
    integers = ("images", "height", "width", "channels", "rank")
    names = function.arg_names
    source = ASTSource(
        fn=function,
        signature={
            name: "constexpr" if name in constants else "i32" if name in integers else "*fp32"
            for name in names
        },
        constexprs={(names.index(name),): value for name, value in constants.items() if name in names},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": True})
    assert len(compiled.asm["cubin"]) > 0
