"""The next release follows the active one, goes on where it was stopped, and shares its language model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from models.release import open_release
from training.initialise import initialise_release
from training.loop import LOSSES, Pause, StopAsked, never
from training.plans import tiny
from training.successor import Wanted, all_steps, train_successor

WANTED = Wanted(datasets=("phantom:3:160",), name="next", stage1_steps=7, stage2_steps=5, checkpoint_every=3)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_successor_that_was_stopped_in_steps_and_validations_comes_to_the_same_release(
    tmp_path: Path,
) -> None:
    from training.datasets.phantom import reports

    initialise_release(tiny().recipe, tmp_path / "base", seed=0, texts=reports(3, 200))
    base = open_release(tmp_path / "base")
    assert all_steps(base, WANTED) == (7, 5)

    def until(phase: str | None, step: int) -> Any:
        def make(name: str) -> Any:
            def tell(done: int, total: int, figures: Mapping[str, float]) -> None:
                if (name, done) == (phase, step):
                    raise StopAsked

            return tell

        return make

    def train(out: str, phase: str | None = None, step: int = 0, pause: Pause = never) -> Any:
        return train_successor(
            base,
            WANTED,
            tmp_path / out,
            cache=tmp_path / "cache",
            tensorboard=False,
            tell=until(phase, step),
            pause=pause,
        )

    def stop() -> None:
        raise StopAsked

    whole = train("whole")
    for phase, step in (("stage 1", 4), ("stage 2", 2)):
        with pytest.raises(StopAsked):
            train("broken", phase, step)
        with pytest.raises(StopAsked):
            train("broken", pause=stop)  # in the middle of a validation
    resumed = train("broken")
    for stage in ("stage1", "stage2"):
        lines = [(tmp_path / out / stage / LOSSES).read_text() for out in ("whole", "broken")]
        assert lines[0] == lines[1]
    assert resumed.digest == whole.digest
    assert not whole.trained, "its language model has random weights"
    assert whole.metrics["follows"] == base.digest

    made = open_release(tmp_path / "whole" / "release").manifest
    parts = {
        m.digest: {part: [f.sha256 for f in files] for part, files in m.parts.items()}
        for m in (made, base.manifest)
    }
    mine, theirs = parts[made.digest], parts[base.digest]
    assert mine["language_model"] == theirs["language_model"]
    assert mine["tokenizer"] == theirs["tokenizer"]
    assert mine["encoder"] != theirs["encoder"]
    assert mine["dvaf"] != theirs["dvaf"]
