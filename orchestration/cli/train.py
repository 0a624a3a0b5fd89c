"""``nightread train``: both stages, the demonstration release, and the ablation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestration.cli._common import JsonOption, fail, print_json, print_table, say
from orchestration.cli._train_release import release

if TYPE_CHECKING:
    from training.loop import Tell
    from training.metrics import ClassificationReport
    from training.plans import Plan

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

    plan, items, notes = _open(recipe, dataset, threads=threads, splits=not folds, seed=seed)
    for note in notes:
        say(f"note: {note}")
    target = resolve_device(device)
    encoders = _text_encoder(text_encoder, plan) if text_encoder is not None else None
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

        with _progress() as bar:
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
    with _progress() as bar:
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

    with _progress() as bar:
        ready = _frozen(
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
        plan, reader, model, prompts, target, read = ready
        written = {
            split: write_out(features, read["train"], prompts, plan) for split, features in read.items()
        }
        trained = train_stage2(
            plan,
            reader,
            model,
            prompts,
            written["train"],
            written.get("val"),
            out,
            seed=seed,
            device=target,
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

    with _progress() as bar:
        plan, reader, model, prompts, target, read = _frozen(
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
        if "test" not in read:
            fail(f"{dataset} has no test study with a report; the ablation is measured on the test split")
        rows = run_ablation(
            plan,
            reader,
            model,
            prompts,
            read,
            out,
            seeds=range(seeds),
            max_steps=max_steps,
            device=target,
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

    Planned for 85 minutes on two cores; --resume keeps finished phases. The release is OUT/release. It reads
    drawn studies and is not medicine.

    Example: nightread train demo --out demo
    """
    import torch

    from training.demo import PLANNED_MINUTES, SCALES, train_demo

    if scale not in SCALES:
        fail(f"there is no scale {scale!r}; there are {', '.join(SCALES)}")
    if threads:
        torch.set_num_threads(threads)
    chosen = SCALES[scale] if minutes is None else SCALES[scale].within(minutes, PLANNED_MINUTES)
    with _progress() as bar:
        made = train_demo(out, scale=chosen, seed=seed, processes=processes, resume=resume, tell=bar)
    summary = made.evaluation.summary()
    if as_json:
        print_json({"digest": made.manifest.digest, "seconds": dict(made.seconds), **summary})
        return
    from training.evaluate import table_of

    typer.echo(table_of(made.evaluation))
    minutes_taken = sum(made.seconds.values()) / 60
    typer.echo(f"release {made.manifest.digest[:12]} in {out / 'release'}; {minutes_taken:.0f} minutes")


def _open(
    recipe: str, specs: list[str], *, threads: int, splits: bool, seed: int
) -> tuple[Plan, list[Any], list[str]]:
    """Plan and pooled items; sets the number of threads."""
    import torch

    from training.datasets.opening import open_dataset, refuse_shared_patients, with_splits
    from training.plans import plan_named

    if threads:
        torch.set_num_threads(threads)
    try:
        plan = plan_named(recipe)
    except ValueError as error:
        fail(str(error))
    items: list[Any] = []
    notes: list[str] = []
    for spec in specs:
        found = open_dataset(spec)
        if splits:
            found = with_splits(found, seed=seed)
        else:
            refuse_shared_patients(found)
        items += found.items
        notes += [f"{found.name}: {note}" for note in found.notes]
    return plan, items, notes


def _frozen(
    dataset: str,
    stage1: Path,
    language_model: str,
    tokenizer: Path | None,
    recipe: str,
    out: Path,
    bar: Any,
    *,
    device: str,
    threads: int,
    processes: int,
    seed: int,
    splits: tuple[str, ...] = ("train", "val"),
) -> tuple[Plan, Any, Any, Any, Any, dict[str, Any]]:
    """Plan, reader, language model, prompts, device, and features by split: all that stage 2 starts from."""
    import json
    from dataclasses import replace

    from models.devices import resolve_device
    from models.language_model import load_language_model
    from models.prompt import PromptWriter
    from models.weights import weight_files
    from training.features import compute_features
    from training.sources import local_folder
    from training.stage1 import prepare, read_stage1

    plan, items, notes = _open(recipe, [dataset], threads=threads, splits=True, seed=seed)
    for note in notes:
        say(f"note: {note}")
    # Of a finished stage 1, or of a release.
    described = [stage1 / name for name in ("stage1.json", "manifest.json") if (stage1 / name).is_file()]
    started_with = json.loads(described[0].read_text(encoding="utf-8")) if described else {}
    if size := started_with.get("image_size"):
        plan = replace(plan, recipe=replace(plan.recipe, image_size=size))
    target = resolve_device(device)
    folder = local_folder(language_model)
    model = load_language_model(folder / "config.json", weight_files(folder), device=target)
    hidden = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    fusion = replace(plan.recipe.fusion, hidden_size=hidden["hidden_size"])
    plan = replace(plan, recipe=replace(plan.recipe, fusion=fusion, language_model=hidden))
    prompts = PromptWriter.from_file(
        tokenizer or folder / "tokenizer.json",
        version=plan.recipe.prompt_version,
        exemplar_max_tokens=plan.recipe.exemplar_max_tokens,
    )
    reader, _ = read_stage1(stage1, plan)
    reader.to(target)
    read = {}
    for split in splits:
        part = [item for item in items if item.split == split and item.report]
        if part:
            material = prepare(
                part, plan, folder=out / "cache", processes=processes, tell=bar(f"images, {split}")
            )
            read[split] = compute_features(
                reader, plan, material, folder=out / "cache", device=target, tell=bar(f"features, {split}")
            )
    if "train" not in read:
        fail(f"{dataset} has no training item with a report; stage 2 learns to write reports")
    return plan, reader, model, prompts, target, read


def _text_encoder(source: str, plan: Plan) -> tuple[Any, Any]:
    from models.text_encoder import TextTokenizer, load_text_encoder
    from training.sources import local_folder

    folder = local_folder(source)
    encoder = load_text_encoder(folder, plan.recipe.text_pooling)
    return encoder, TextTokenizer.from_folder(folder, plan.recipe.text_max_tokens)


def _print_classification(report: ClassificationReport, what: str) -> None:
    rows: list[tuple[object, ...]] = [
        (name.value, one.positives, one.auroc, one.auprc, one.f1) for name, one in report.pathologies.items()
    ]
    rows.append((f"macro over {what}", "", report.macro_auroc, report.macro_auprc, report.macro_f1))
    print_table(("finding", "positives", "AUROC", "AUPRC", "F1"), rows)


@contextmanager
def _progress() -> Iterator[Any]:
    """Bars on a terminal, a line now and then elsewhere; gives a maker of ``Tell``."""
    import time

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bars:

        def start(name: str) -> Tell:
            task = bars.add_task(name, total=None)
            last = [time.monotonic()]

            def tell(done: int, total: int, figures: Any) -> None:
                loss = figures.get("loss")
                text = name if loss is None else f"{name}, loss {loss:.3f}"
                bars.update(task, completed=done, total=total, description=text)
                if not console.is_terminal and (time.monotonic() - last[0] > 20 or done == total):
                    last[0] = time.monotonic()
                    say(f"{text}: {done} of {total}")

            return tell

        yield start
