"""Jobs ``train`` and ``evaluate``: the next release of the site, and what releases are worth.

A training may be killed at any instruction. Its checkpoints lie below the home in ``training/job-N``, and a
worker that takes it up goes on from the last one to the same losses, bit for bit; where the folder is lost
it begins anew and comes to the same. What decides the losses is therefore settled once and kept in the job:
the release that it follows, what the data sets were at that moment, the number of threads. Each attempt
works in a folder of its own, a copy of the last one's: a worker that hung past its lease and wakes writes
where nobody reads. In the end losses and TensorBoard events are what is left there.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import structlog

from db import releases
from db.engine import transaction
from db.errors import NoActiveRelease, ReleaseNotFound
from db.tables import ReleaseRecord
from workers.context import Context
from workers.errors import WorkerStopping
from workers.gate import measure
from workers.jobs import Job, JobCancelled, JobFailed
from workers.reported import resolve

log = structlog.get_logger()

_RUNS = ("stage1", "stage2")


def train(context: Context, job: Job) -> Mapping[str, Any]:
    """Train both stages from a release, seal and publish what came out; promotion is another job.

    Arguments: ``datasets``; ``base``, a release (the active one where it is null); ``recipe``, ``seed``,
    ``stage1_steps``, ``stage2_steps``, ``from_active``, ``text_encoder``, ``checkpoint_every``,
    ``processes``, ``threads``.

    Raises:
        JobFailed: ``not_trainable``: the data sets or the recipe cannot be used, or a step was not finite;
            ``no_release``: there is none to follow.
        OutOfDeviceMemory: If the accelerator has no room; tried again later.
    """
    import torch

    from models.devices import resolve_device
    from models.errors import ModelError, OutOfDeviceMemory
    from training.loop import StopAsked
    from training.successor import all_steps, train_successor
    from workers.releases import publish

    if "result" in job.checkpoint:
        return cast("Mapping[str, Any]", job.checkpoint["result"])
    home = context.home / "training" / f"job-{job.id}"
    try:
        base = context.release(_begin(context, job).id)
        torch.set_num_threads(job.checkpoint["threads"])
        wanted = _wanted(job)
        out = _own_folder(home, job)
        steps = all_steps(base, wanted)
        train_successor(
            base,
            wanted,
            out,
            cache=home / "cache",
            device=resolve_device(context.rules.device),
            processes=int(job.arguments.get("processes") or 1),
            tell=lambda phase: _teller(job, phase, steps, wanted.checkpoint_every),
            pause=lambda: _give_way(job),
        )
    except StopAsked as asked:
        raise asked.__cause__ or asked from None
    except OutOfDeviceMemory:
        raise
    except torch.OutOfMemoryError as error:
        raise OutOfDeviceMemory("the device has no room for a training step") from error
    except (ModelError, ValueError) as error:
        raise JobFailed("not_trainable", str(error)) from error
    made, active = publish(context, out / "release")
    log.info("release_trained", job_id=job.id, release_id=made.id)
    result = {
        "release": made.digest,
        "name": made.name,
        "trained": made.trained,
        "active": active,
        "follows": base.digest,
        "validation": made.manifest["metrics"]["validation"],
        "folder": str(out),
    }
    # Kept before anything is removed: a worker that dies now must not begin anew.
    job.save(**{**job.checkpoint, "result": result})
    _remove_what_is_published(home, out)
    return result


def evaluate(context: Context, job: Job) -> Mapping[str, Any]:
    """Measure releases on the gate's held-out studies: the one that is named, or the active and the newest.

    Arguments: ``release`` or null.

    Raises:
        JobFailed: ``no_release``: it is not there; ``no_gate_studies``: the gate's data set cannot be used.
    """
    from training.datasets.common import DatasetError

    def progress(done: int, total: int) -> None:
        job.give_way()
        job.report(done, total, "drafting")

    with transaction(context.engine) as session:
        chosen = [_release(session, job.arguments.get("release"))]
        newest = newest_release(session)
        if not job.arguments.get("release") and newest is not None and newest.id != chosen[0].id:
            chosen.append(newest)
    try:
        rows = [
            {
                "release": record.digest[:12],
                "name": record.name,
                "measure": row.measure,
                "figure": row.candidate,
            }
            for record in chosen
            for row in measure(context, record, progress).rows
        ]
    except DatasetError as error:
        raise JobFailed("no_gate_studies", str(error)) from error
    return {"dataset": context.rules.gate.dataset, "figures": rows}


def newest_release(session: Any) -> ReleaseRecord | None:
    """The release that was registered last."""
    from sqlalchemy import select

    return cast(
        "ReleaseRecord | None",
        session.scalars(select(ReleaseRecord).order_by(ReleaseRecord.id.desc()).limit(1)).one_or_none(),
    )


def _release(session: Any, named: str | None) -> ReleaseRecord:
    """The release that is named, or the active one."""
    try:
        return releases.find(session, named) if named else releases.active(session).release
    except (NoActiveRelease, ReleaseNotFound) as error:
        raise JobFailed("no_release", str(error)) from error


def _begin(context: Context, job: Job) -> ReleaseRecord:
    """Settle what the training begins with, once: a resumed one must not see another release or set."""
    with transaction(context.engine) as session:
        record = _release(session, job.checkpoint.get("base") or job.arguments.get("base"))
    if "datasets" not in job.checkpoint:
        job.save(
            base=record.digest,
            datasets=[resolve(context, spec) for spec in job.arguments["datasets"]],
            name=f"{record.recipe}-{datetime.now(UTC):%Y%m%d-%H%M}",
            # Sums over threads round by their number, and another machine may have more cores.
            threads=int(job.arguments.get("threads") or max(1, (os.cpu_count() or 2) // 2)),
            run=None,
        )
    return record


def _wanted(job: Job) -> Any:
    from training.successor import Wanted

    given = {
        key: job.arguments[key]
        for key in (
            "recipe",
            "seed",
            "stage1_steps",
            "stage2_steps",
            "from_active",
            "text_encoder",
            "checkpoint_every",
        )
        if job.arguments.get(key) is not None
    }
    return Wanted(datasets=tuple(job.checkpoint["datasets"]), name=job.checkpoint["name"], **given)


def _own_folder(home: Path, job: Job) -> Path:
    before: str | None = job.checkpoint.get("run")
    own = f"run-{secrets.token_hex(4)}"
    (home / own).mkdir(parents=True, mode=0o700)
    for name in _RUNS if before else ():
        if (home / str(before) / name).is_dir():
            shutil.copytree(home / str(before) / name, home / own / name)
    job.save(**{**job.checkpoint, "run": own})
    _remove_other_runs(home, home / own)
    return home / own


def _remove_other_runs(home: Path, own: Path) -> None:
    for left in home.glob("run-*"):
        if left != own:
            shutil.rmtree(left, ignore_errors=True)


def _remove_what_is_published(home: Path, out: Path) -> None:
    """Keep losses and events alone: a site that trains each week would fill its disk."""
    _remove_other_runs(home, out)
    for folder in (home / "cache", out / "release"):
        shutil.rmtree(folder, ignore_errors=True)
    for file in out.rglob("*.safetensors"):
        file.unlink(missing_ok=True)


def _give_way(job: Job) -> None:
    """Wait for the worklist, and end the run where the job is to end."""
    from training.loop import StopAsked

    try:
        job.give_way(_free_device_memory)
    except (JobCancelled, WorkerStopping) as asked:
        raise StopAsked from asked


def _free_device_memory() -> None:
    """Give back what is allocated and not in use: the worklist's networks may need it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _teller(job: Job, phase: str, steps: tuple[int, int], checkpoint_every: int) -> Any:
    """What the loop calls after each step: it waits for the worklist, tells people, and ends the run."""
    from training.loop import StopAsked

    before = {"stage 1": 0, "stage 2": steps[0]}.get(phase)

    def tell(done: int, total: int, figures: Mapping[str, float]) -> None:
        _give_way(job)
        try:
            text = f"{phase}, {done} of {total}"
            if before is None:
                job.report(None, None, text)
                return
            shown = {
                name: round(figures[name], 6) for name in ("loss", "validation_score") if name in figures
            }
            job.report(before + done, sum(steps), text, stage=phase, step=done, **shown)
            if done % checkpoint_every == 0:
                # A training that gets on is none that kills its workers.
                job.save(**job.checkpoint)
        except (JobCancelled, WorkerStopping) as asked:
            raise StopAsked from asked

    return tell
