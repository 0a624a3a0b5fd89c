"""The whole demonstration: from drawing to a sealed release, trained and measured on drawn studies alone."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from models.manifest import Manifest
from models.prompt import PromptWriter
from models.release import MANIFEST_FILE, file_digest, open_release, seal
from models.text_encoder import TextTokenizer, load_text_encoder
from models.weights import write_tensors
from training.attention import Guidance, guide_attention, lesion_cells, reread
from training.calibration import Fit, fit_calibration
from training.datasets.opening import read_dataset
from training.evaluate import Evaluation, evaluate, read_studies, write_evaluation
from training.features import compute_features
from training.language import pretrain_language_model
from training.loop import Tell
from training.plans import Plan, plan_named
from training.stage1 import STAGE1, prepare, read_stage1, train_stage1, write_stage1
from training.stage2 import train_stage2, write_out
from training.text_pretraining import pretrain_text_encoder
from training.vocabulary import train_tokenizer


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of everything. Steps times the plan's batch sizes are what two cores can do in the time."""

    plan: str
    studies: int
    """Drawn for training, validation and test, 8:1:1."""
    text_steps: int
    language_steps: int
    stage1_steps: int
    stage2_steps: int
    test_studies: int

    def within(self, minutes: float, planned_minutes: float) -> Scale:
        """The same with studies and steps scaled to a time."""
        share = minutes / planned_minutes
        return replace(
            self,
            studies=max(160, round(self.studies * min(1.0, share))),
            text_steps=max(1, round(self.text_steps * share)),
            language_steps=max(1, round(self.language_steps * share)),
            stage1_steps=max(1, round(self.stage1_steps * share)),
            stage2_steps=max(1, round(self.stage2_steps * share)),
        )


SCALES: Mapping[str, Scale] = {
    "full": Scale(
        plan="phantom",
        studies=12000,
        text_steps=600,
        language_steps=1400,
        stage1_steps=5600,
        stage2_steps=1200,
        test_studies=500,
    ),
    "tiny": Scale(
        plan="tiny",
        studies=960,
        text_steps=30,
        language_steps=40,
        stage1_steps=1000,
        stage2_steps=30,
        test_studies=96,
    ),
}
PLANNED_MINUTES = 85.0
"""Of the scale ``full`` on two slow cores; two of a Zen 5 took 49."""

MakeTell = Callable[[str], Tell]


@dataclass(frozen=True, kw_only=True, eq=False)
class Demo:
    """What came out."""

    manifest: Manifest
    evaluation: Evaluation
    seconds: Mapping[str, float]
    """By phase."""


def train_demo(
    out: Path,
    *,
    scale: Scale,
    seed: int = 0,
    processes: int = 2,
    resume: bool = False,
    tell: MakeTell | None = None,
    resamples: int = 1000,
) -> Demo:
    """Draw, train both stages and the text networks, evaluate, seal.

    Args:
        out: Gets ``work/`` (runs and caches), ``release/`` and ``evaluation/``.
        scale: How much.
        seed: Of drawings and training. Test studies come from another seed.
        processes: How many draw.
        resume: Keep finished phases and go on with the one that was cut off.
        tell: Makes a progress for each phase.
        resamples: Bootstrap draws of the evaluation.
    """
    work, release = out / "stages", out / "release"
    plan = plan_named(scale.plan)
    clock = work / "seconds.json"
    seconds: dict[str, float] = {}
    if resume and clock.is_file():
        seconds = json.loads(clock.read_text(encoding="utf-8"))
    started = time.monotonic()

    def phase(name: str) -> Tell | None:
        nonlocal started
        started = time.monotonic()
        return None if tell is None else tell(name)

    def done(name: str) -> None:
        # A resumed run adds to what the runs before it took; only a phase that was cut off loses its part.
        seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - started, 1)
        work.mkdir(parents=True, exist_ok=True)
        clock.write_text(json.dumps(seconds, indent=1) + "\n", encoding="utf-8")

    items = read_dataset("phantom", f"{seed}:{scale.studies}").items
    train, validation = ([item for item in items if item.split == s] for s in ("train", "val"))
    test = read_dataset("phantom", f"{seed + 1_000_003}:{scale.test_studies}").items
    texts = [item.report for item in train]

    if not (release / "tokenizer" / "tokenizer.json").is_file():
        train_tokenizer(
            texts,
            plan.recipe.vocabulary_size,
            release / "tokenizer",
            prompt_version=plan.recipe.prompt_version,
        )
    prompts = PromptWriter.from_file(
        release / "tokenizer" / "tokenizer.json",
        version=plan.recipe.prompt_version,
        exemplar_max_tokens=plan.recipe.exemplar_max_tokens,
    )
    bert = work / "text_encoder"
    told = phase("text encoder")
    pretrain_text_encoder(
        plan,
        texts,
        [i.report for i in validation],
        bert,
        steps=scale.text_steps,
        seed=seed,
        resume=resume,
        tell=told,
    )
    done("text encoder")
    told = phase("drawing")
    encoder = (
        load_text_encoder(bert, plan.recipe.text_pooling),
        TextTokenizer.from_folder(bert, plan.recipe.text_max_tokens),
    )
    options: dict[str, Any] = {"folder": work / "images", "processes": processes, "tell": told}
    seen = prepare(train, plan, text_encoder=encoder, **options)
    held_out = prepare(validation, plan, text_encoder=encoder, **options)
    done("drawing")
    told = phase("stage 1")
    stage1 = train_stage1(
        _for_steps(plan, len(train), stage1_steps=scale.stage1_steps),
        seen,
        held_out,
        work / "stage1",
        seed=seed,
        resume=resume,
        max_steps=scale.stage1_steps,
        tell=told,
    )
    done("stage 1")
    told = phase("language model")
    language_model, _ = pretrain_language_model(
        plan,
        prompts,
        train,
        validation,
        work / "language_model",
        steps=scale.language_steps,
        seed=seed,
        resume=resume,
        tell=told,
    )
    done("language model")

    told = phase("features")
    cache = work / "features"
    features = compute_features(stage1.network, plan, seen, folder=cache, tell=told)
    held_out_features = compute_features(stage1.network, plan, held_out, folder=cache, tell=told)
    done("features")
    told = phase("attention")
    guided = work / "attention"
    if not (resume and (guided / STAGE1).is_file()):
        guidance = replace(Guidance(), studies=min(Guidance.studies, len(train)))
        side = round(features.attention.shape[-1] ** 0.5)
        cells = lesion_cells(train[: guidance.studies], plan.recipe.image_size, side, processes=processes)
        guide_attention(stage1.network.dast, features, seen.targets, cells, guidance, seed=seed, tell=told)
        fit = fit_calibration(held_out.targets, reread(held_out_features, stage1.network.dast).logits)
        write_stage1(guided, plan, stage1.network, stage1.fitted, fit, seed=seed, encoder=None)
    network, fit = read_stage1(guided, plan)
    features, held_out_features = (reread(one, network.dast) for one in (features, held_out_features))
    done("attention")
    told = phase("stage 2")
    train_stage2(
        _for_steps(plan, len(train), stage2_steps=scale.stage2_steps),
        network,
        language_model,
        prompts,
        write_out(features, features, prompts, plan),
        write_out(held_out_features, features, prompts, plan),
        work / "stage2",
        seed=seed,
        resume=resume,
        max_steps=scale.stage2_steps,
        tell=told,
    )
    done("stage 2")

    manifest = write_release(release, work, plan, fit, name=f"{scale.plan}-demo-{seed}", metrics={})
    told = phase("evaluation")
    reading = read_studies(
        open_release(release), test, train, cache=work / "images", processes=processes, tell=told
    )
    evaluation = evaluate(reading, train, manifest, resamples=resamples)
    write_evaluation(out / "evaluation", evaluation, reading)
    done("evaluation")
    metrics = {**evaluation.summary(), "seconds": dict(seconds), "scale": asdict(scale)}
    manifest = write_release(release, work, plan, fit, name=f"{scale.plan}-demo-{seed}", metrics=metrics)
    open_release(release)
    return Demo(manifest=manifest, evaluation=evaluation, seconds=seconds)


def write_release(
    release: Path, work: Path, plan: Plan, fitted: Fit, *, name: str, metrics: Mapping[str, Any]
) -> Manifest:
    """Put the parts of ``work`` into a release folder and seal it; weights are stored as fp16 or bf16."""
    for source, part in (
        (work / "attention", "encoder"),
        (work / "attention", "dast"),
        (work / "stage2", "dvaf"),
    ):
        (release / part).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / part / "config.json", release / part / "config.json")
        _write_half(source / part / "model.safetensors", release / part / "model.safetensors")
    (release / "language_model").mkdir(parents=True, exist_ok=True)
    for file in ("config.json", "model.safetensors"):
        shutil.copyfile(work / "language_model" / file, release / "language_model" / file)
    recipe = plan.recipe
    (release / "model_card.md").write_text(_model_card(plan, name, metrics), encoding="utf-8")
    manifest = Manifest(
        name=name,
        recipe=recipe.name,
        trained=True,
        feature_size=recipe.encoder.feature_size,
        image_size=recipe.image_size,
        prompt_version=recipe.prompt_version,
        max_new_tokens=recipe.max_new_tokens,
        exemplar_max_tokens=recipe.exemplar_max_tokens,
        alpha=recipe.alpha,
        rendering=recipe.rendering,
        normalisation=recipe.normalisation,
        thresholds=fitted.thresholds,
        calibration=fitted.calibration,
        metrics=dict(metrics),
        text_encoder=f"model.safetensors={file_digest(work / 'text_encoder' / 'model.safetensors')}",
    )
    (release / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return seal(release)


def _write_half(source: Path, target: Path) -> None:
    """fp16 halves the file; the evaluation reads the release as stored, its rounding included."""
    from models.weights import read_tensors

    tensors = read_tensors([source])
    largest = max(float(t.abs().max()) for t in tensors.values())
    kind = torch.float16 if largest < 6e4 else torch.float32
    write_tensors(target, {name: tensor.to(kind) for name, tensor in tensors.items()})


def _for_steps(plan: Plan, items: int, *, stage1_steps: int = 0, stage2_steps: int = 0) -> Plan:
    """The plan with as many epochs as the steps need."""
    recipe = plan.recipe
    if stage1_steps:
        epochs = max(1, -(-stage1_steps * recipe.stage1.batch_size * plan.stage1.accumulate // items))
        recipe = replace(recipe, stage1=replace(recipe.stage1, epochs=epochs + 1))
    if stage2_steps:
        epochs = max(1, -(-stage2_steps * recipe.stage2.batch_size * plan.stage2.accumulate // items))
        recipe = replace(recipe, stage2=replace(recipe.stage2, epochs=epochs + 1))
    return replace(plan, recipe=recipe)


def _model_card(plan: Plan, name: str, metrics: Mapping[str, Any]) -> str:
    measured = json.dumps(dict(metrics), indent=1) if metrics else "not measured yet"
    parameters = sum(
        p.numel()
        for part in (plan.recipe.encoder.build(), plan.recipe.dast.build())
        for p in cast(nn.Module, part).parameters()
    )
    return "\n".join(
        [
            f"# {name}",
            "",
            "**Drawn studies, not medicine.** Every network of this release was trained on phantoms: drawn",
            "radiographs with invented findings and reports. It must not be used for any patient.",
            "",
            f"- Reader: VMamba {plan.recipe.encoder.depths} and disease tokens, {parameters:,} parameters.",
            "- Text networks: a small BERT and a small Phi-3-architecture model, of phantom reports alone.",
            f"- Input: one frontal image, {plan.recipe.image_size} x {plan.recipe.image_size} grey pixels.",
            "- Disease tokens: their attention was guided to the drawn lesions; see training/attention.py.",
            "- Thresholds (validation F1) and calibration are fitted on drawn validation studies.",
            "- Measured on drawn studies of another seed:",
            "",
            "```json",
            measured,
            "```",
            "",
        ]
    )
