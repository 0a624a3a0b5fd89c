"""Plans: a recipe and how its stages are run. What the paper says nothing about stands here with a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from models.vmamba import VMambaConfig
from training.datasets.common import LabelPolicy
from training.recipes import RECIPES, Optimisation, Recipe, phantom, recipe_named

Views = Literal["frontal", "mean"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of training images; each is drawn evenly between its limits."""

    rotation_degrees: float = 0.0
    shift: float = 0.0
    """Share of the image's side."""
    scale: float = 0.0
    """0.1 for 0.9 to 1.1."""
    contrast: float = 0.0
    """0.2 for a gain of 0.8 to 1.2 about the mean."""
    brightness: float = 0.0
    """Shift of the grey values, of 1."""
    noise: float = 0.0
    """Largest spread of added noise, of 1."""
    flip: bool = False
    """Mirror half of the images. Only where no report names a side."""


@dataclass(frozen=True, kw_only=True)
class Stage1Plan:
    """How stage 1 is run."""

    augmentation: Augmentation = field(default_factory=Augmentation)
    views: Views = "frontal"
    """The frontal view alone, or the mean of the views' patch tokens (as the public code does for IU)."""
    accumulate: int = 1
    average: float = 0.0
    """See ``LoopOptions.average``."""
    schedule: float = 1.0
    """See ``LoopOptions.schedule``."""
    auxiliary_weight: float = 0.0
    """Weight of a linear head on mean and maximum of the patch tokens, in training alone. Not in the paper:
    from random weights it carries the encoder over a plateau that the disease tokens alone sit on for
    epochs. Measured on phantoms after 200 steps of 32 images: macro AUROC of the disease tokens 0.636, and
    0.482 where the head sees the mean alone."""
    contrastive_weight: float = 1.0
    """1 is Eq. 4. Without reports there is nothing to align with and the term is left out."""
    evaluate_flipped: bool = False
    """Average the logits of an image and its mirror image when measuring; see ``Augmentation.flip``."""
    validate_every: int = 0
    bf16: bool = True
    """Use bf16 where it is faster: on an accelerator. Measured on a CPU without AMX it is slower."""


@dataclass(frozen=True, kw_only=True)
class Stage2Plan:
    """How stage 2 is run."""

    accumulate: int = 1
    average: float = 0.0
    validate_every: int = 0
    validate_studies: int = 0
    """How many validation studies are read each time; 0 for all."""
    drop_exemplar: float = 0.0
    """Share of training prompts without an exemplar. Not in the paper."""
    keep_sections: bool = True
    """Targets have impression and findings where both exist; False trains on findings alone."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A recipe with its plans."""

    recipe: Recipe
    stage1: Stage1Plan = field(default_factory=Stage1Plan)
    stage2: Stage2Plan = field(default_factory=Stage2Plan)

    @property
    def labels(self) -> LabelPolicy:
        """The recipe's policy for uncertain and blank labels."""
        return LabelPolicy(uncertain=self.recipe.uncertain_label, blank=self.recipe.blank_label)


_DRAWN = Augmentation(rotation_degrees=4.0, shift=0.03, scale=0.05, contrast=0.15, brightness=0.05)


def small() -> Plan:
    """Stage 1 on a few hundred real images in a few minutes on two cores, from random weights.

    A small network, strong augmentation, a fixed schedule and averaged weights instead of a choice by a
    validation set that would be too small to choose by.
    """
    recipe = phantom()
    encoder = VMambaConfig(depths=(1, 1, 2, 1), dims=16, drop_path_rate=0.1)
    return Plan(
        recipe=replace(
            recipe,
            name="small",
            encoder=encoder,
            dast=replace(recipe.dast, feature_size=encoder.feature_size, heads=4),
            fusion=replace(recipe.fusion, feature_size=encoder.feature_size, heads=4),
            alignment=replace(recipe.alignment, image_features=encoder.feature_size),
            image_size=128,
            stage1=Optimisation(
                batch_size=32, epochs=20, learning_rate=2e-3, warmup_steps=40, weight_decay=0.05
            ),
        ),
        stage1=Stage1Plan(
            augmentation=Augmentation(
                rotation_degrees=10.0,
                shift=0.06,
                scale=0.12,
                contrast=0.3,
                brightness=0.1,
                noise=0.03,
                flip=True,
            ),
            average=0.99,
            auxiliary_weight=1.0,
            evaluate_flipped=True,
        ),
    )


def tiny() -> Plan:
    """A miniature of the phantom family for tests: everything runs, nothing reads well."""
    recipe = phantom()
    encoder = VMambaConfig(depths=(1, 1, 1, 1), dims=12, drop_path_rate=0.0)
    D, H = encoder.feature_size, 64
    language_model = dict(recipe.language_model) | {
        "hidden_size": H,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "vocab_size": 512,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    return Plan(
        recipe=replace(
            recipe,
            name="tiny",
            text_pooling="mean",
            encoder=encoder,
            dast=replace(recipe.dast, feature_size=D, heads=4),
            fusion=replace(recipe.fusion, feature_size=D, heads=4, hidden_size=H),
            alignment=replace(recipe.alignment, image_features=D, text_features=32),
            text_encoder=dict(recipe.text_encoder)
            | {"vocab_size": 512, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64},
            language_model=language_model,
            vocabulary_size=512,
            image_size=64,
            stage1=Optimisation(batch_size=16, epochs=5, learning_rate=3e-3, warmup_steps=10),
            stage2=Optimisation(batch_size=8, epochs=2, learning_rate=2e-3, warmup_steps=2),
            max_new_tokens=96,
            exemplar_max_tokens=48,
        ),
        stage1=Stage1Plan(auxiliary_weight=1.0, augmentation=_DRAWN),
    )


def drawn() -> Plan:
    """The phantom family as the demo trains it."""
    return Plan(
        # A BERT that has only guessed words keeps nothing in [CLS]: measured, its features were all but equal
        # and the contrastive loss stayed at log B. The mean over tokens differs between reports.
        recipe=replace(phantom(), max_new_tokens=192, exemplar_max_tokens=160, text_pooling="mean"),
        # At weight 1 the contrastive gradient is five times that of the labels, and macro AUROC after 300
        # steps was 0.69 with it and 0.73 without: from random weights the labels must lead.
        stage1=Stage1Plan(
            augmentation=_DRAWN,
            auxiliary_weight=1.0,
            contrastive_weight=0.25,
            average=0.998,
            # Averaged weights do not need the cosine's end: 0.952, 0.958, 0.962 at the last three marks.
            schedule=1.25,
            validate_every=700,
        ),
        stage2=Stage2Plan(average=0.99, validate_every=200, validate_studies=256),
    )


PLANS: dict[str, Callable[[], Plan]] = {
    "small": small,
    "tiny": tiny,
    "phantom": drawn,
    **{name: lambda name=name: Plan(recipe=recipe_named(name)) for name in RECIPES if name != "phantom"},  # type: ignore[misc]
}
"""Plans by the name that ``--recipe`` takes."""


def plan_named(name: str) -> Plan:
    """Look a plan up.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in PLANS:
        raise ValueError(f"there is no recipe {name!r} to train; there are {', '.join(PLANS)}")
    return PLANS[name]()
