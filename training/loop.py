"""The loop that both stages share: AdamW, warm-up, cosine, clipping, accumulation, and a resume bit for bit.

Nothing random is carried from step to step: the order of an epoch follows from (seed, epoch) and what a step
draws from (seed, step). So a run that is killed and resumed from its last checkpoint repeats the lost steps
exactly; ``losses.jsonl`` is cut back to the checkpoint and grows to the same lines. The number of threads
must be the same, because sums over threads round differently.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.errors import ModelError
from training.checkpoints import (
    CheckpointError,
    load_checkpoint,
    optimiser_tensors,
    prefixed,
    restore_optimiser,
    save_checkpoint,
    under,
)
from training.recipes import Optimisation

LAST, BEST, LOSSES = "last.safetensors", "best.safetensors", "losses.jsonl"
Places = NDArray[np.int64]


class NonFiniteStep(ModelError, ArithmeticError):
    """A loss or gradient is not finite; the step was not taken. Lower the learning rate and resume."""


class StopAsked(ModelError):
    """Raised by a progress callback to end a run; the loop keeps a checkpoint first. Resume to go on."""


@dataclass(frozen=True, kw_only=True)
class StepLoss:
    """The loss of one batch and what it is made of."""

    total: Tensor
    parts: Mapping[str, float]


class Task(Protocol):
    """What a stage brings to the loop."""

    size: int
    """Training items."""

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What is trained, under names that stay the same."""

    def loss(self, places: Places, generator: torch.Generator) -> StepLoss:
        """The mean loss of some training items; whatever is random comes from the generator or torch."""

    def score(self) -> Mapping[str, float]:
        """Validation figures; ``score`` among them decides which weights are kept. Empty without any."""


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """How the loop runs; what is optimised stands in ``Optimisation``."""

    seed: int = 0
    accumulate: int = 1
    """Batches whose gradients are added before a step."""
    average: float = 0.0
    """Decay of an exponential average of the weights, which is then validated and kept; 0 for none."""
    validate_every: int = 0
    """Steps; 0 for once an epoch."""
    checkpoint_every: int = 50
    """Steps between checkpoints."""
    tensorboard: bool = True
    max_steps: int | None = None
    schedule: float = 1.0
    """Length of the cosine in steps that are taken: above 1 the run ends before its rate is zero."""
    """Stop the schedule here instead of after the epochs."""

    def __post_init__(self) -> None:
        if self.accumulate < 1 or self.checkpoint_every < 1 or not 0.0 <= self.average < 1.0:
            raise ValueError(f"loop options need positive counts and an average in [0, 1), got {self}")


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """How a run ended; the network holds the kept weights."""

    steps: int
    best_step: int
    figures: Mapping[str, float]
    """Validation figures of the kept weights; empty without validation."""


Tell = Callable[[int, int, Mapping[str, float]], None]
"""Called after a step with its number, how many there are, and figures.

It may wait, and the run waits with it; it may raise ``StopAsked``, and the run ends at a checkpoint. Neither
changes a loss: nothing random is carried from step to step.
"""


Pause = Callable[[], object]
"""Called between two batches that are no steps, of validation for example.

It may wait; it may raise ``StopAsked``, and the run ends as if it were killed: its last checkpoint stands.
"""


def never() -> None:
    """The pause of a run that nobody interrupts."""


def learning_rate(step: int, total: int, optimisation: Optimisation) -> float:
    """Linear warm-up to the recipe's rate, then a cosine to zero; ``step`` counts from 0."""
    warmup = min(optimisation.warmup_steps, max(1, total // 2))
    if step < warmup:
        return optimisation.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return optimisation.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


def steps_in(size: int, optimisation: Optimisation, options: LoopOptions) -> tuple[int, int]:
    """Steps an epoch and in all; a last, smaller batch counts."""
    batch = optimisation.batch_size * options.accumulate
    each = max(1, math.ceil(size / batch))
    total = each * optimisation.epochs
    return each, total if options.max_steps is None else min(total, options.max_steps)


def fit(
    task: Task,
    optimisation: Optimisation,
    options: LoopOptions,
    out: Path,
    *,
    resume: bool = False,
    tell: Tell | None = None,
) -> Fitted:
    """Train, validate, keep the best.

    Args:
        task: Gives losses and scores.
        optimisation: Of the recipe.
        options: Of this run.
        out: Where checkpoints, losses and TensorBoard events go.
        resume: Go on from ``last.safetensors`` if there is one; otherwise the folder must hold none.
        tell: Progress.

    Returns:
        The end; the task's parameters hold the best weights by validation score, the last without one.

    Raises:
        NonFiniteStep: Before a step that would have spoiled the weights.
        CheckpointError: If the checkpoint belongs to another run, or there is one and ``resume`` is not set.
        StopAsked: If ``tell`` raised it.
    """
    out.mkdir(parents=True, exist_ok=True)
    parameters = dict(task.parameters())
    optimiser = torch.optim.AdamW(_groups(parameters, optimisation), lr=optimisation.learning_rate)
    each, total = steps_in(task.size, optimisation, options)
    identity = {"size": task.size, "seed": options.seed, "total": total, "parameters": len(parameters)}
    state = _RunState(parameters=parameters, optimiser=optimiser, average=options.average, identity=identity)
    if (out / LAST).is_file():
        if not resume:
            raise CheckpointError(f"{out} holds a run already; resume it, or choose another folder")
        state.restore(out / LAST)
    _cut_losses(out / LOSSES, state.step)
    validate_every = options.validate_every or each
    with (
        _writer(out, options.tensorboard, state.step) as board,
        (out / LOSSES).open("a", encoding="utf-8") as losses,
    ):
        while state.step < total:
            rate = learning_rate(state.step, round(options.schedule * total), optimisation)
            for group in optimiser.param_groups:
                group["lr"] = rate
            figures = _take_step(task, state, optimisation, options, each)
            state.step += 1
            at_end = state.step == total
            if at_end or state.step % validate_every == 0:
                state.validate(task, out)
                figures |= {f"validation_{name}": value for name, value in state.latest.items()}
            losses.write(json.dumps({"step": state.step, "learning_rate": rate, **figures}) + "\n")
            if at_end or state.step % options.checkpoint_every == 0:
                losses.flush()
                state.save(out / LAST)
            for name, value in figures.items():
                board(name, value, state.step)
            if tell is not None:
                try:
                    tell(state.step, total, figures)
                except StopAsked:
                    losses.flush()
                    state.save(out / LAST)
                    raise
    state.take_best(out)
    return Fitted(steps=state.step, best_step=state.best_step, figures=state.best_figures)


def order_of(size: int, epoch: int, seed: int) -> Places:
    """The order in which an epoch takes the items."""
    return np.random.default_rng((seed, 1, epoch)).permutation(size)


def _take_step(
    task: Task, state: _RunState, optimisation: Optimisation, options: LoopOptions, each: int
) -> dict[str, float]:
    epoch, place = divmod(state.step, each)
    batch = optimisation.batch_size * options.accumulate
    chosen = order_of(task.size, epoch, options.seed)[place * batch : (place + 1) * batch]
    generator = torch.Generator().manual_seed(
        int(np.random.default_rng((options.seed, 2, state.step)).integers(2**62))
    )
    torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
    state.optimiser.zero_grad(set_to_none=True)
    figures: dict[str, float] = {}
    for start in range(0, len(chosen), optimisation.batch_size):
        part = chosen[start : start + optimisation.batch_size]
        share = len(part) / len(chosen)
        loss = task.loss(part, generator)
        (loss.total * share).backward()  # type: ignore[no-untyped-call]
        for name, value in {"loss": float(loss.total.detach()), **loss.parts}.items():
            figures[name] = figures.get(name, 0.0) + share * value
    norm = float(nn.utils.clip_grad_norm_(list(state.parameters.values()), optimisation.gradient_clip))
    if not (math.isfinite(figures["loss"]) and math.isfinite(norm)):
        raise NonFiniteStep(
            f"step {state.step + 1} has loss {figures['loss']} and gradient norm {norm}; it was not "
            f"taken, and {LAST} holds finite weights"
        )
    state.optimiser.step()
    state.update_average()
    return figures | {"gradient_norm": norm}


class _RunState:
    """What a checkpoint holds."""

    def __init__(
        self,
        *,
        parameters: dict[str, nn.Parameter],
        optimiser: torch.optim.Optimizer,
        average: float,
        identity: dict[str, Any],
    ) -> None:
        self.parameters = parameters
        self.optimiser = optimiser
        self.identity = identity
        self.step = 0
        self.best_step = 0
        self.best_score = -math.inf
        self.best_figures: dict[str, float] = {}
        self.latest: dict[str, float] = {}
        self._decay = average
        self._averaged = {n: p.detach().clone() for n, p in parameters.items()} if average else {}

    @torch.no_grad()
    def update_average(self) -> None:
        # Short runs forget their start sooner: the decay grows with the steps taken.
        decay = min(self._decay, (1 + self.step) / (10 + self.step))
        for name, tensor in self._averaged.items():
            tensor.lerp_(self.parameters[name].detach(), 1.0 - decay)

    def validate(self, task: Task, out: Path) -> None:
        raw = {name: p.detach().clone() for name, p in self.parameters.items()} if self._averaged else {}
        if raw:
            self._put(self._averaged)
        self.latest = dict(task.score())
        score = self.latest.get("score", math.nan)
        if score > self.best_score:
            self.best_score, self.best_step, self.best_figures = score, self.step, dict(self.latest)
            save_checkpoint(out / BEST, self._kept(), {"step": self.step, "figures": self.latest})
        if raw:
            self._put(raw)

    def take_best(self, out: Path) -> None:
        """Put the kept weights into the network."""
        if self.best_step:
            self._put(load_checkpoint(out / BEST).tensors)
        else:
            self.best_step = self.step
            self._put(self._kept())

    def save(self, path: Path) -> None:
        tensors = {
            **prefixed("weights", {n: p.detach() for n, p in self.parameters.items()}),
            **prefixed("average", self._averaged),
            **prefixed("optimiser", optimiser_tensors(self.optimiser)),
        }
        numbers = {
            "identity": self.identity,
            "step": self.step,
            "best_step": self.best_step,
            "best_score": self.best_score if self.best_step else None,
            "best_figures": self.best_figures,
        }
        save_checkpoint(path, tensors, numbers)

    def restore(self, path: Path) -> None:
        found = load_checkpoint(path)
        if found.numbers["identity"] != self.identity:
            raise CheckpointError(
                f"{path} is of another run: {found.numbers['identity']}, not {self.identity}"
            )
        self._put(under("weights", found.tensors))
        restore_optimiser(self.optimiser, under("optimiser", found.tensors))
        self._averaged = {
            name: tensor.to(self.parameters[name].device)
            for name, tensor in under("average", found.tensors).items()
        }
        self.step, self.best_step = found.numbers["step"], found.numbers["best_step"]
        if self.best_step:
            self.best_score = found.numbers["best_score"]
        self.best_figures = found.numbers["best_figures"]

    def _kept(self) -> dict[str, Tensor]:
        return self._averaged or {name: p.detach() for name, p in self.parameters.items()}

    @torch.no_grad()
    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        if tensors.keys() != self.parameters.keys():
            raise CheckpointError("the checkpoint holds other parameters than the network")
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[name])


def _groups(parameters: Mapping[str, nn.Parameter], optimisation: Optimisation) -> list[dict[str, Any]]:
    """Matrices decay; norms, biases, learned tokens and the scan's own do not (VMamba's custom)."""
    plain = ("A_logs", "Ds", "tokens", "dt_projs_bias", "log_scale")
    decays = {n: p.ndim > 1 and n.rsplit(".", 1)[-1] not in plain for n, p in parameters.items()}
    groups = [
        {
            "params": [p for n, p in parameters.items() if decays[n]],
            "weight_decay": optimisation.weight_decay,
        },
        {"params": [p for n, p in parameters.items() if not decays[n]], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _cut_losses(path: Path, step: int) -> None:
    """Keep the lines up to a step; a killed process may have left more, and half of one."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            break
    path.write_text("".join(kept), encoding="utf-8")


class _writer:  # noqa: N801 - used as a function
    """TensorBoard's writer, or nothing."""

    def __init__(self, out: Path, is_on: bool, step: int) -> None:
        self._board: Any = None
        if is_on:
            from torch.utils.tensorboard import SummaryWriter

            # Steps that a killed run took after its last checkpoint are repeated, and shown once.
            self._board = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> Callable[[str, float, int], None]:
        return self._add

    def _add(self, name: str, value: float, step: int) -> None:
        if self._board is not None:
            self._board.add_scalar(name, value, step)

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()
