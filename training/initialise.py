"""A release that nobody has trained: random or given weights, sealed and saying so."""

# Shapes: B probe images, N patches, E extra tokens, D features, H hidden size.

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import Phi3ForCausalLM

from models.dast import DiseaseTokens
from models.dvaf import VisualPrefix
from models.errors import WeightsMismatch
from models.language_model import language_model_config
from models.manifest import Manifest, ReleaseError
from models.reader import normalise
from models.release import MANIFEST_FILE, file_digest, seal
from models.text_encoder import load_text_encoder
from models.vmamba import VMamba, infer_config, load_checkpoint
from models.weights import read_tensors, weight_files, write_tensors
from training.recipes import Recipe, Untrained
from training.sources import local_folder
from training.vocabulary import copy_tokenizer, train_tokenizer

PROBES = 24


def initialise_release(
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    texts: Iterable[str],
    name: str | None = None,
    encoder: Path | None = None,
    text_encoder: Path | str | None = None,
    language_model: Path | str | None = None,
) -> Manifest:
    """Write a release folder that calls itself untrained.

    Sizes follow the given files, so that miniature files in the public layouts make a release too.

    Args:
        recipe: Sizes and settings.
        out: The folder, which must be empty or absent.
        seed: Decides every random weight; the same seed and texts give the same digest.
        texts: Reports that the tokenizer learns its words from, where none is given.
        name: What people call it; the recipe's name and the seed by default.
        encoder: VMamba weights as safetensors, in either key layout.
        text_encoder: Folder, or hub id with a pinned revision (``owner/name@<40 hexadecimal digits>``);
            checked and named in the manifest, not copied: it is used in training only.
        language_model: Folder or pinned hub id of a Phi-3-architecture model with its tokenizer.

    Raises:
        ReleaseError: If the folder is not empty, or the recipe needs a language model and none is given.
        WeightsMismatch: If given weights do not fit.
    """
    if out.exists() and any(out.iterdir()):
        raise ReleaseError(f"{out} is not empty; choose a new folder for the release")
    if recipe.language_model_files and language_model is None:
        raise ReleaseError(
            f"recipe {recipe.name} needs a language model: give the folder of {recipe.language_model_files}, "
            f"or {recipe.language_model_files}@<revision>"
        )
    out.mkdir(parents=True, exist_ok=True)
    given_language_model = local_folder(language_model) if language_model is not None else None
    given_text_encoder = local_folder(text_encoder) if text_encoder is not None else None
    tensors = read_tensors([encoder]) if encoder is not None else None
    recipe = fitted(recipe, tensors, given_language_model, given_text_encoder)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vmamba, dast, prefix = recipe.encoder.build(), recipe.dast.build(), recipe.fusion.build()
        if tensors is not None:
            report = load_checkpoint(vmamba, tensors)
            if not report.is_complete:
                raise WeightsMismatch(f"the encoder's weights do not fit; {report}")
        else:
            sharpen(vmamba, recipe.untrained.edge_share)
        settle(vmamba, dast, prefix, recipe, seed=seed, encoder_is_random=tensors is None)
        if given_language_model is None:
            _write_language_model(recipe, out / "language_model")
    if given_language_model is None:
        train_tokenizer(
            texts, recipe.vocabulary_size, out / "tokenizer", prompt_version=recipe.prompt_version
        )
    else:
        _copy_language_model(given_language_model, out / "language_model")
        copy_tokenizer(given_language_model, out / "tokenizer")

    for part, network, config in (
        ("encoder", vmamba, recipe.encoder.to_json()),
        ("dast", dast, json.dumps(asdict(recipe.dast), indent=1)),
        ("dvaf", prefix, json.dumps(asdict(recipe.fusion), indent=1)),
    ):
        write_tensors(out / part / "model.safetensors", cast(nn.Module, network).state_dict())
        (out / part / "config.json").write_text(config + "\n", encoding="utf-8")

    given = {
        "encoder": encoder is not None,
        "language model": given_language_model is not None,
    }
    (out / "model_card.md").write_text(_model_card(recipe, seed, given), encoding="utf-8")
    manifest = Manifest(
        name=name or f"{recipe.name}-untrained-{seed}",
        recipe=recipe.name,
        trained=False,
        feature_size=recipe.encoder.feature_size,
        image_size=recipe.image_size,
        prompt_version=recipe.prompt_version,
        max_new_tokens=recipe.max_new_tokens,
        exemplar_max_tokens=recipe.exemplar_max_tokens,
        alpha=recipe.alpha,
        rendering=recipe.rendering,
        normalisation=recipe.normalisation,
        text_encoder=_text_encoder_digest(given_text_encoder),
    )
    (out / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return seal(out)


def fitted(
    recipe: Recipe,
    encoder: dict[str, Tensor] | None,
    language_model: Path | None,
    text_encoder: Path | None,
) -> Recipe:
    """The recipe with the sizes of the given files in place of its own."""
    network = recipe.encoder
    if encoder is not None:
        own = infer_config(encoder)
        network = replace(own, num_classes=None, drop_path_rate=recipe.encoder.drop_path_rate)
    causal = dict(recipe.language_model)
    if language_model is not None:
        causal = json.loads((language_model / "config.json").read_text(encoding="utf-8"))
        language_model_config(causal)
    bert = dict(recipe.text_encoder)
    if text_encoder is not None:
        bert = json.loads((text_encoder / "config.json").read_text(encoding="utf-8"))
    D = network.feature_size
    heads = max(h for h in range(1, recipe.dast.heads + 1) if D % h == 0)
    return replace(
        recipe,
        encoder=network,
        dast=replace(recipe.dast, feature_size=D, heads=heads),
        fusion=replace(recipe.fusion, feature_size=D, heads=heads, hidden_size=causal["hidden_size"]),
        alignment=replace(recipe.alignment, image_features=D, text_features=bert["hidden_size"]),
        language_model=causal,
        text_encoder=bert,
        vocabulary_size=min(recipe.vocabulary_size, causal["vocab_size"]),
    )


@torch.no_grad()
def sharpen(encoder: VMamba, edge_share: float) -> None:
    """Let a random encoder answer to edges and to every branch.

    A usual random convolution averages what lies under it, so a small bright spot all but vanishes in the
    grey around it. Here its kernels lose most of their mean and all of their bias; linear layers start at
    the size that keeps the size of their input.
    """
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=(2.0 / module.weight[0].numel()) ** 0.5)
            module.weight.sub_(edge_share * module.weight.mean(dim=(2, 3), keepdim=True))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)


@torch.no_grad()
def settle(
    encoder: VMamba,
    dast: DiseaseTokens,
    prefix: VisualPrefix,
    recipe: Recipe,
    *,
    seed: int,
    encoder_is_random: bool,
) -> None:
    """Scale the random parts by what drawn probe images give (after the idea of LSUV).

    A random encoder's last norm and the projection take away what all images have in common, channel by
    channel, so that what is left tells images apart; the heads get the recipe's mean and spread of logits.
    """
    probes = torch.as_tensor(probe_images(seed, PROBES, recipe.image_size))
    images = normalise(probes, cast(Any, recipe))
    encoder.eval()
    patch_tokens = torch.cat([encoder(images[i : i + 8]).patch_tokens for i in range(0, PROBES, 8)])
    if encoder_is_random and recipe.encoder.final_norm:
        centre, scale = _channels(patch_tokens)
        norm = encoder.classifier.norm
        norm.weight.div_(scale)
        norm.bias.copy_((norm.bias - centre) / scale)
        patch_tokens = (patch_tokens - centre) / scale
    found = dast(patch_tokens)
    gain = recipe.untrained.logit_std / found.logits.std(dim=0).clamp(min=1e-4)
    dast.head_weight.mul_(gain[:, None])
    dast.head_bias.copy_(recipe.untrained.logit_mean - gain * found.logits.mean(dim=0))
    centre, scale = _channels(prefix.fused_tokens(patch_tokens, found.disease_tokens))
    nn.init.normal_(prefix.projection.weight, std=len(centre) ** -0.5)
    prefix.projection.weight.div_(scale)
    prefix.projection.bias.copy_(-prefix.projection.weight @ centre)


def _channels(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread of each channel, ``(D,)`` each, over all images and patches."""
    flat = tokens.flatten(0, 1)
    return flat.mean(dim=0), flat.std(dim=0).clamp(min=1e-4)


def probe_images(seed: int, count: int, side: int) -> NDArray[np.uint8]:
    """Draw grey images with two dark fields and a few bright blobs, ``(count, side, side)``.

    They only have to differ as radiographs do: alike at large, unlike in places.
    """
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    images = []
    for _ in range(count):
        image = 0.55 + 0.25 * (y - 0.5) * random.uniform(0.5, 1.5)
        blobs = [
            (0.3, 0.45, 0.13, 0.25, -0.35),
            (0.7, 0.45, 0.13, 0.25, -0.35),
            (0.55, 0.65, 0.15, 0.12, 0.3),
        ]
        for _ in range(int(random.integers(0, 4))):
            size = random.uniform(0.02, 0.12)
            blobs.append((random.uniform(0.15, 0.85), random.uniform(0.15, 0.85), size, size, 0.3))
        for cx, cy, sx, sy, strength in blobs:
            jitter = random.normal(0, 0.02, 2)
            distance = ((x - cx - jitter[0]) / sx) ** 2 + ((y - cy - jitter[1]) / sy) ** 2
            image = image + strength * random.uniform(0.7, 1.3) * np.exp(-distance)
        image = image + random.normal(0, 0.02, image.shape)
        images.append(np.clip(image * 255, 0, 255).astype(np.uint8))
    return np.stack(images)


def _write_language_model(recipe: Recipe, folder: Path) -> None:
    config = language_model_config(recipe.language_model)
    network = Phi3ForCausalLM(config)
    enliven(network, recipe.untrained)
    tensors = {n: t.to(torch.bfloat16) for n, t in cast(nn.Module, network).state_dict().items()}
    write_tensors(folder / "model.safetensors", tensors)
    settings = {**recipe.language_model, "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


@torch.no_grad()
def enliven(language_model: Any, untrained: Untrained) -> None:
    """Let a random language model's words depend on its whole prompt.

    Every matrix starts at the size that keeps the size of its input, times the recipe's gains.
    """
    config = language_model.config
    H, heads = config.hidden_size, config.num_attention_heads
    value_rows = config.num_key_value_heads * (H // heads)
    nn.init.normal_(language_model.get_input_embeddings().weight)
    nn.init.normal_(language_model.lm_head.weight, std=H**-0.5)
    for index, layer in enumerate(language_model.model.layers):
        first = index == 0
        sharpness = untrained.first_sharpness if first else untrained.sharpness
        qkv, output = layer.self_attn.qkv_proj.weight, layer.self_attn.o_proj.weight
        # Scores are products of a query and a key, so each carries the root of their spread.
        nn.init.normal_(qkv[:-value_rows], std=(sharpness / H) ** 0.5)
        nn.init.normal_(qkv[-value_rows:], std=H**-0.5)
        nn.init.normal_(output, std=(untrained.first_gain if first else untrained.gain) * H**-0.5)
        nn.init.normal_(layer.mlp.gate_up_proj.weight, std=2 * H**-0.5)
        down = layer.mlp.down_proj.weight
        nn.init.normal_(down, std=(1.0 if first else untrained.gain) * down.shape[1] ** -0.5)


def _copy_language_model(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    files = [source / "config.json", *weight_files(source)]
    optional = [source / name for name in ("model.safetensors.index.json", "generation_config.json")]
    for file in [*files, *(f for f in optional if f.is_file())]:
        shutil.copyfile(file, target / file.name)


def _text_encoder_digest(folder: Path | None) -> str | None:
    if folder is None:
        return None
    load_text_encoder(folder)
    digests = {path.name: file_digest(path) for path in [folder / "config.json", *weight_files(folder)]}
    return " ".join(f"{name}={digest}" for name, digest in sorted(digests.items()))


def _model_card(recipe: Recipe, seed: int, given: dict[str, bool]) -> str:
    public = [part for part, is_given in given.items() if is_given]
    made = [part for part, is_given in given.items() if not is_given]
    random = ["disease tokens and heads", "fusion and projection", *made]
    lines = [
        f"# {recipe.name}, untrained",
        "",
        "**Nobody has trained this release.** Its predictions and drafts mean nothing and must not be",
        "used for any patient. It exists to run and to test the pipeline.",
        "",
        f"- Random weights (seed {seed}): {', '.join(random)}.",
        f"- Given weights: {', '.join(public) or 'none'}.",
        f"- Input: one frontal chest radiograph, {recipe.image_size} x {recipe.image_size} grey pixels.",
        f"- Encoder: VMamba, depths {recipe.encoder.depths}, {recipe.encoder.feature_size} features.",
        "- Thresholds and calibration: 0.5 and the identity, fitted to nothing.",
        "- Metrics: none measured.",
        "",
    ]
    return "\n".join(lines)
