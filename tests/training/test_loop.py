"""The training loop: resume bit for bit, stop before a spoiled step, keep the best, and its schedule."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from training.checkpoints import CheckpointError, digest_of, load_checkpoint, save_checkpoint
from training.loop import (
    LAST,
    LOSSES,
    LoopOptions,
    NonFiniteStep,
    Places,
    StepLoss,
    StopAsked,
    fit,
    learning_rate,
    steps_in,
)
from training.recipes import Optimisation

RECIPE = Optimisation(batch_size=4, epochs=4, learning_rate=1e-2, warmup_steps=3)
QUIET = LoopOptions(tensorboard=False, checkpoint_every=3, average=0.9)


class Killed(Exception):
    """Stands for a process that ends without a word."""


class Line:
    """Fits a line with dropout and drawn noise, so that every source of chance is in use."""

    size = 18

    def __init__(
        self, *, spoil_at: int | None = None, kill_at: int | None = None, device: str = "cpu"
    ) -> None:
        torch.manual_seed(7)
        self.network = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.3), nn.Linear(16, 1)).to(device)
        self.steps = 0
        self.scores = iter(range(100))
        self._spoil_at, self._kill_at = spoil_at, kill_at
        self._x = torch.randn(self.size, 3, generator=torch.Generator().manual_seed(1)).to(device)

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.network.named_parameters()

    def loss(self, places: Places, generator: torch.Generator) -> StepLoss:
        self.steps += 1
        if self.steps == self._kill_at:
            raise Killed
        self.network.train()
        x = self._x[places] + 0.1 * torch.randn(len(places), 3, generator=generator).to(self._x.device)
        total = ((self.network(x)[:, 0] - self._x[places].sum(1)) ** 2).mean()
        if self.steps == self._spoil_at:
            total = total * math.nan
        return StepLoss(total=total, parts={"twice": 2 * float(total.detach())})

    def score(self) -> Mapping[str, float]:
        with torch.no_grad():
            return {"score": -float(((self.network.eval()(self._x)[:, 0] - self._x.sum(1)) ** 2).mean())}


def losses(folder: Path) -> list[str]:
    return (folder / LOSSES).read_text().splitlines()


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
            ],
        ),
    ],
)
def test_a_killed_run_resumes_to_the_same_losses_bit_for_bit(tmp_path: Path, device: str) -> None:
    whole, broken = Line(device=device), Line(kill_at=9, device=device)
    fit(whole, RECIPE, QUIET, tmp_path / "whole")
    with pytest.raises(Killed):
        fit(broken, RECIPE, QUIET, tmp_path / "broken")
    assert len(losses(tmp_path / "broken")) < len(losses(tmp_path / "whole"))
    resumed = Line(device=device)
    fit(resumed, RECIPE, QUIET, tmp_path / "broken", resume=True)
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")
    assert digest_of([resumed.network]) == digest_of([whole.network])


@pytest.mark.parametrize("at", [1, 7, 20])
def test_a_run_that_is_asked_to_stop_keeps_a_checkpoint_and_resumes_to_the_same_losses(
    tmp_path: Path, at: int
) -> None:
    def tell(step: int, total: int, figures: Mapping[str, float]) -> None:
        if step == at:
            raise StopAsked

    whole, resumed = Line(), Line()
    fit(whole, RECIPE, QUIET, tmp_path / "whole")
    with pytest.raises(StopAsked):
        fit(Line(), RECIPE, QUIET, tmp_path / "stopped", tell=tell)
    # No step is lost, although checkpoints are due every third step alone.
    assert load_checkpoint(tmp_path / "stopped" / LAST).numbers["step"] == at
    fit(resumed, RECIPE, QUIET, tmp_path / "stopped", resume=True)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    assert digest_of([resumed.network]) == digest_of([whole.network])


def test_whoever_uses_chance_while_the_run_waits_changes_no_loss(tmp_path: Path) -> None:
    def tell(step: int, total: int, figures: Mapping[str, float]) -> None:
        torch.manual_seed(step)
        torch.rand(3)

    fit(Line(), RECIPE, QUIET, tmp_path / "whole")
    fit(Line(), RECIPE, QUIET, tmp_path / "waited", tell=tell)
    assert losses(tmp_path / "waited") == losses(tmp_path / "whole")


def test_half_a_line_that_a_kill_left_is_cut_away(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(Line(kill_at=9), RECIPE, QUIET, tmp_path / "broken")
    with (tmp_path / "broken" / LOSSES).open("a") as file:
        file.write('{"step": 9, "lo')
    fit(Line(), RECIPE, QUIET, tmp_path / "broken", resume=True)
    assert [json.loads(line)["step"] for line in losses(tmp_path / "broken")] == list(range(1, 21))


def test_a_step_that_is_not_finite_is_not_taken(tmp_path: Path) -> None:
    task = Line(spoil_at=5)
    with pytest.raises(NonFiniteStep, match="step 5 has loss nan"):
        fit(task, RECIPE, QUIET, tmp_path)
    assert all(torch.isfinite(p).all() for _, p in task.parameters())
    kept = load_checkpoint(tmp_path / LAST)
    assert kept.numbers["step"] == 3
    assert all(torch.isfinite(t).all() for t in kept.tensors.values())


def test_the_weights_of_the_best_score_are_kept(tmp_path: Path) -> None:
    class Falling(Line):
        def score(self) -> Mapping[str, float]:
            return {"score": -float(next(self.scores))}

    task = Falling()
    seen: list[str] = []
    options = LoopOptions(tensorboard=False)

    def tell(step: int, total: int, figures: Mapping[str, float]) -> None:
        if step == 5:
            seen.append(digest_of([task.network]))

    ended = fit(task, RECIPE, options, tmp_path, tell=tell)
    assert (ended.best_step, ended.figures) == (5, {"score": 0.0})
    assert digest_of([task.network]) == seen[0]


def test_two_halves_of_a_batch_accumulate_to_the_whole(tmp_path: Path) -> None:
    class Plain(Line):
        def loss(self, places: Places, generator: torch.Generator) -> StepLoss:
            self.network.eval()
            total = ((self.network(self._x[places])[:, 0] - 1) ** 2).mean()
            return StepLoss(total=total, parts={})

    whole, halves = Plain(), Plain()
    fit(whole, RECIPE, LoopOptions(tensorboard=False, max_steps=6), tmp_path / "a")
    half = Optimisation(batch_size=2, epochs=4, learning_rate=1e-2, warmup_steps=3)
    fit(halves, half, LoopOptions(tensorboard=False, accumulate=2, max_steps=6), tmp_path / "b")
    for (_, a), (_, b) in zip(whole.parameters(), halves.parameters(), strict=True):
        # Sums in another order; AdamW divides small gradients by themselves: 3e-5 measured.
        torch.testing.assert_close(a, b, atol=3e-4, rtol=0)


def test_the_rate_warms_up_and_falls_on_a_cosine() -> None:
    recipe = Optimisation(batch_size=1, epochs=1, learning_rate=1.0, warmup_steps=4)
    rates = [learning_rate(step, 24, recipe) for step in range(24)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[14] == pytest.approx(0.5)
    assert np.all(np.diff(rates[4:]) < 0)


def test_steps_are_counted_with_the_last_smaller_batch() -> None:
    assert steps_in(18, RECIPE, QUIET) == (5, 20)
    assert steps_in(18, RECIPE, LoopOptions(accumulate=2, max_steps=7)) == (3, 7)


def test_a_folder_with_a_run_is_not_written_over(tmp_path: Path) -> None:
    fit(Line(), RECIPE, QUIET, tmp_path)
    with pytest.raises(CheckpointError, match="holds a run already"):
        fit(Line(), RECIPE, QUIET, tmp_path)
    other = LoopOptions(tensorboard=False, seed=5)
    with pytest.raises(CheckpointError, match="is of another run"):
        fit(Line(), RECIPE, other, tmp_path, resume=True)


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "last.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"last\.safetensors is no readable checkpoint"):
        load_checkpoint(tmp_path / "last.safetensors")
    save_checkpoint(tmp_path / "a.safetensors", {"t": torch.ones(2)}, {"step": 3})
    assert load_checkpoint(tmp_path / "a.safetensors").numbers == {"step": 3}
