"""``nightread train``: both stages, the demonstration release, and the ablation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestration.cli._common import JsonOption, fail, print_json, print_table, say
from orchestration.cli._train_parts import frozen_parts, open_plan, progress, text_encoder_of
from orchestration.cli._train_release import release

if TYPE_CHECKING:
    from training.metrics import ClassificationReport

app = typer.Typer(help="Train both stages of a recipe.", no_args_is_help=True)
app.command("release")(release)

DatasetOption = Annotated[
    list[str], typer.Option("--dataset", help="KIND:PATH, or phantom:SEED:COUNT. Repeat it to pool several.")
]
SeedOption = Annotated[int, typer.Option(help="Decides weights, order and augmentation.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on after a kill, to the same losses.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
ThreadsOption = Annotated[
    int, typer.Option(min=0, help="Threads of a CPU; resume with the same number. 0: PyTorch's own choice.")
]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Stop the schedule after so many steps.")]
ProcessesOption = Annotated[int, typer.Option(min=1, help="How many processes read or draw images.")]
BoardOption = Annotated[bool, typer.Option(help="Write TensorBoard events.")]


@app.callback()
def main() -> None:
    """Train both stages of a recipe."""


@app.command()
def stage1(
    dataset: DatasetOption,
    recipe: Annotated[
        str, typer.Option(help="small, phantom, paper, paper-T, paper-S, paper-B or tiny.")
    ] = "small",
    out: Annotated[Path, typer.Option(help="Folder of the run.", file_okay=False)] = Path("stage1"),
    folds: Annotated[
        int, typer.Option(min=0, help="Cross-validate with so many folds, disjoint by patient; 0: by splits.")
    ] = 0,
    encoder: Annotated[
        Path | None,
        typer.Option(help="VMamba weights to start from, safetensors.", exists=True, dir_okay=False),
    ] = None,
    text_encoder: Annotated[
        str | None, typer.Option(help="Folder, or hub id with pinned revision, of the frozen BERT.")
    ] = None,
    seed: SeedOption = 0,
    resume: ResumeOption = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
    max_steps: StepsOption = None,
    processes: ProcessesOption = 1,
    tensorboard: BoardOption = True,
    as_json: JsonOption = False,
) -> None:
    """Train encoder, disease tokens and alignment on the pooled training splits.

    With --folds, every image is read by a network that never saw its patient, and the pooled figures are
    printed with bootstrap intervals over patients. Exit code 0: trained; 1: the data set is not usable, or
    a step was not finite.

    Example: nightread train stage1 --dataset folder:../shared/data/cxr_images/nih1k --folds 5
    """
    from models.devices import resolve_device
    from training.stage1 import prepare, train_stage1

    plan, items, notes = open_plan(recipe, dataset, threads=threads, splits=not folds, seed=seed)
    for note in notes:
        say(f"note: {note}")
    target = resolve_device(device)
    encoders = text_encoder_of(text_encoder, plan) if text_encoder is not None else None
    cache = out / "cache"
    kept: dict[str, Any] = {
        "tensorboard": tensorboard,
        "device": target,
        "encoder": encoder,
        "seed": seed,
        "resume": resume,
    }
    if folds:
        from training.folds import cross_validate, write_result

        with progress() as bar:
            material = prepare(
                items, plan, folder=cache, text_encoder=encoders, processes=processes, tell=bar("images")
            )
            result = cross_validate(
                plan, material, out, folds=folds, tell=lambda fold: bar(f"fold {fold + 1} of {folds}"), **kept
            )
        write_result(out, result, {"recipe": plan.recipe.name, "seed": seed, "datasets": list(dataset)})
        if as_json:
            print_json(result.to_json())
            return
        typer.echo(f"{result.images} images of {result.patients} patients, {folds} folds, pooled out of fold")
        _print_classification(result.focus, "these findings")
        typer.echo("all labelled findings:")
        _print_classification(result.all_labelled, "all labelled")
        return
    train = [item for item in items if item.split == "train"]
    validation = [item for item in items if item.split == "val"]
    with progress() as bar:
        options: dict[str, Any] = {"folder": cache, "text_encoder": encoders, "processes": processes}
        trained = train_stage1(
            plan,
            prepare(train, plan, tell=bar("images"), **options),
            prepare(validation, plan, tell=bar("images"), **options) if validation else None,
            out,
            max_steps=max_steps,
            tell=bar("stage 1"),
            **kept,
        )
    summary = {
        "out": str(out),
        "steps": trained.fitted.steps,
        "best_step": trained.fitted.best_step,
        "validation": dict(trained.fitted.figures),
    }
    if as_json:
        print_json(summary)
    else:
        score = trained.fitted.figures.get("score")
        said = "no validation split" if score is None else f"validation macro AUROC {score:.3f}"
        typer.echo(
            f"{trained.fitted.steps} steps, weights of step {trained.fitted.best_step}, {said}; in {out}"
        )


@app.command()
def stage2(
    dataset: Annotated[str, typer.Option("--dataset", help="KIND:PATH, or phantom:SEED:COUNT; one alone.")],
    stage1: Annotated[
        Path,
        typer.Option(help="Folder of a finished stage 1, or of a release.", exists=True, file_okay=False),
    ],
    language_model: Annotated[
        str, typer.Option(help="Folder or pinned hub id of the frozen language model.")
    ],
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Its tokenizer.json, if it lies elsewhere.", exists=True, dir_okay=False),
    ] = None,
    recipe: Annotated[str, typer.Option(help="The recipe of stage 1.")] = "phantom",
    out: Annotated[Path, typer.Option(help="Folder of the run.", file_okay=False)] = Path("stage2"),
    seed: SeedOption = 0,
    resume: ResumeOption = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
    max_steps: StepsOption = None,
    processes: ProcessesOption = 1,
    tensorboard: BoardOption = True,
    as_json: JsonOption = False,
) -> None:
    """Train fusion, projection and norms for one data set; everything else is frozen, and checked.

    Exit code 0: trained, and the frozen parts have the digests that they had; 1: not.

    Example: nightread train stage2 --dataset iu-xray:/data/iu --stage1 runs/s1 --language-model phi-4
    """
    import json

    from training.stage2 import STAGE2, train_stage2, write_out

    with progress() as bar:
        frozen = frozen_parts(
            dataset,
            stage1,
            language_model,
            tokenizer,
            recipe,
            out,
            bar,
            device=device,
            threads=threads,
            processes=processes,
            seed=seed,
        )
        written = {
            split: write_out(features, frozen.features["train"], frozen.prompts, frozen.plan)
            for split, features in frozen.features.items()
        }
        trained = train_stage2(
            frozen.plan,
            frozen.reader,
            frozen.language_model,
            frozen.prompts,
            written["train"],
            written.get("val"),
            out,
            seed=seed,
            device=frozen.device,
            resume=resume,
            max_steps=max_steps,
            tensorboard=tensorboard,
            tell=bar("stage 2"),
        )
    contents = json.loads((out / STAGE2).read_text(encoding="utf-8"))
    if as_json:
        print_json(contents)
    else:
        loss = trained.fitted.figures.get("loss")
        said = "no validation split" if loss is None else f"validation loss {loss:.3f}"
        typer.echo(
            f"{trained.fitted.steps} steps, weights of step {trained.fitted.best_step}, {said}; in {out}"
        )
        typer.echo(f"frozen parts unchanged, digest {trained.frozen_digest[:16]}")


@app.command()
def ablation(
    dataset: Annotated[str, typer.Option("--dataset", help="KIND:PATH, or phantom:SEED:COUNT; one alone.")],
    stage1: Annotated[
        Path,
        typer.Option(help="Folder of a finished stage 1, or of a release.", exists=True, file_okay=False),
    ],
    language_model: Annotated[
        str, typer.Option(help="Folder or pinned hub id of the frozen language model.")
    ],
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Its tokenizer.json, if it lies elsewhere.", exists=True, dir_okay=False),
    ] = None,
    recipe: Annotated[str, typer.Option(help="The recipe of stage 1.")] = "phantom",
    out: Annotated[Path, typer.Option(help="Folder of the runs.", file_okay=False)] = Path("ablation"),
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds a row.")] = 3,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
    max_steps: StepsOption = None,
    processes: ProcessesOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Make the rows of the paper's Tables 4 and 5 at equal data and steps; started again it goes on.

    Example: nightread train ablation --dataset phantom:7:4000 --stage1 demo/stages/stage1
    --language-model demo/stages/language_model --tokenizer demo/release/tokenizer/tokenizer.json
    """
    from training.ablation import run_ablation, table_of

    with progress() as bar:
        frozen = frozen_parts(
            dataset,
            stage1,
            language_model,
            tokenizer,
            recipe,
            out,
            bar,
            device=device,
            threads=threads,
            processes=processes,
            seed=0,
            splits=("train", "val", "test"),
        )
        if "test" not in frozen.features:
            fail(f"{dataset} has no test study with a report; the ablation is measured on the test split")
        rows = run_ablation(
            frozen.plan,
            frozen.reader,
            frozen.language_model,
            frozen.prompts,
            frozen.features,
            out,
            seeds=range(seeds),
            max_steps=max_steps,
            device=frozen.device,
            tell=bar,
        )
    if as_json:
        print_json([row.to_json() for row in rows])
    else:
        typer.echo(table_of(rows))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for runs, release and evaluation.", file_okay=False)],
    scale: Annotated[str, typer.Option(help="full, or tiny to see that everything runs.")] = "full",
    minutes: Annotated[
        float | None, typer.Option(min=1, help="Scale studies and steps to this time.")
    ] = None,
    seed: SeedOption = 0,
    resume: ResumeOption = False,
    threads: ThreadsOption = 0,
    processes: Annotated[int, typer.Option(min=1, help="How many processes draw.")] = 2,
    as_json: JsonOption = False,
) -> None:
    """Train the whole demonstration: draw, text networks, both stages, evaluation, sealed release.

    Takes 49 minutes on two recent cores and is planned for 85 on slower ones; --resume keeps finished phases.
    The release is OUT/release. It reads drawn studies and is not medicine.

    Example: nightread train demo --out demo
    """
    import torch

    from training.demo import PLANNED_MINUTES, SCALES, train_demo

    if scale not in SCALES:
        fail(f"there is no scale {scale!r}; there are {', '.join(SCALES)}")
    if threads:
        torch.set_num_threads(threads)
    chosen = SCALES[scale] if minutes is None else SCALES[scale].within(minutes, PLANNED_MINUTES)
    with progress() as bar:
        made = train_demo(out, scale=chosen, seed=seed, processes=processes, resume=resume, tell=bar)
    summary = made.evaluation.summary()
    if as_json:
        print_json({"digest": made.manifest.digest, "seconds": dict(made.seconds), **summary})
        return
    from training.evaluate import table_of

    typer.echo(table_of(made.evaluation))
    minutes_taken = sum(made.seconds.values()) / 60
    typer.echo(f"release {made.manifest.digest[:12]} in {out / 'release'}; {minutes_taken:.0f} minutes")


def _print_classification(report: ClassificationReport, what: str) -> None:
    rows: list[tuple[object, ...]] = [
        (name.value, one.positives, one.auroc, one.auprc, one.f1) for name, one in report.pathologies.items()
    ]
    rows.append((f"macro over {what}", "", report.macro_auroc, report.macro_auprc, report.macro_f1))
    print_table(("finding", "positives", "AUROC", "AUPRC", "F1"), rows)
