"""Recipes: every choice of a network and of its training, as Python, with the reason beside it.

``paper`` is the published method, ``phantom`` the same modules, small, for two CPU cores. A field whose
docstring says "not in the paper" is our choice; ``docs/method.md`` lists them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from models.alignment import AlignmentConfig
from models.dast import DiseaseTokensConfig
from models.dvaf import FusionConfig
from models.manifest import Normalisation
from models.text_encoder import TextPooling
from models.vmamba import VMambaConfig

Variant = Literal["T", "S", "B"]


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """How a stage is optimised: AdamW, linear warm-up, cosine decay (paper)."""

    batch_size: int
    """Not in the paper."""

    epochs: int
    """Not in the paper."""

    learning_rate: float = 1e-4
    """Paper."""

    warmup_steps: int = 500
    """Paper."""

    weight_decay: float = 0.05
    """Not in the paper; VMamba's own training uses it."""

    gradient_clip: float = 1.0
    """Largest gradient norm. Not in the paper."""

    def __post_init__(self) -> None:
        if min(self.batch_size, self.epochs) < 1 or self.warmup_steps < 0 or self.learning_rate <= 0:
            raise ValueError(f"optimisation needs positive sizes and rates, got {self}")


@dataclass(frozen=True, kw_only=True)
class Untrained:
    """How random weights are scaled, so that a release nobody has trained still reacts to its input.

    At a network's usual start every image looks alike to the layers above and every draft is the same;
    a pipeline that mixed up two studies could not be told from a right one.
    """

    logit_mean: float = -1.4
    """Mean logit over drawn probe images: about a fifth of the findings come out positive."""

    logit_std: float = 1.4
    """Spread of the logits over drawn probe images."""

    edge_share: float = 0.7
    """Share of its mean that each kernel of a random encoder loses. Measured on images that differ in a
    blob of 7 pixels: patch tokens differ by 60 % of their size, by 3 % at PyTorch's own start."""

    first_sharpness: float = 2.0
    """Spread of the attention scores in the language model's first layer: low, so that every token of the
    prompt has a say in what the later layers see."""

    first_gain: float = 12.0
    """Size of what the first attention adds, against its input: about the root of a prompt's length,
    because an average over so many tokens is that much smaller than each."""

    sharpness: float = 10.0
    """Spread of the attention scores in the later layers: high, so that a small difference decides what is
    attended to, and grows."""

    gain: float = 10.0
    """Size of what the later attentions and perceptrons add, against their input."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One configuration of both stages."""

    name: str

    encoder: VMambaConfig
    """Not in the paper: which VMamba. T, because the paper calls it lightweight and its 768 features
    equal the text encoder's."""

    dast: DiseaseTokensConfig
    fusion: FusionConfig
    alignment: AlignmentConfig

    text_encoder: Mapping[str, Any]
    """Contents of the text encoder's ``config.json``."""

    language_model: Mapping[str, Any]
    """Contents of the language model's ``config.json``."""

    vocabulary_size: int
    """Tokens of the language model's tokenizer; its own table may be larger."""

    stage1: Optimisation
    stage2: Optimisation

    text_pooling: TextPooling = "cls"
    """Not in the paper; see ``models.text_encoder.TextPooling``."""

    text_max_tokens: int = 128
    """Where a report is cut for alignment. Not in the paper; the public code it builds on uses 128."""

    image_size: int = 224
    """Paper."""

    rendering: str = "voi-v1"
    """Not in the paper, which starts from 8-bit images."""

    normalisation: Normalisation = field(default_factory=Normalisation)
    """Not in the paper: ImageNet's, because the encoder starts from ImageNet weights."""

    alpha: float = 0.5
    """Weight of visual against disease similarity (Eq. 8). Not in the paper: both count equally."""

    uncertain_label: float = 0.0
    """Target for a label of -1. Not in the paper: 0, as the benchmark's clinical metric counts it."""

    blank_label: float = 0.0
    """Target for a label that the labeler left blank. Not in the paper: CheXpert's authors say negative."""

    prompt_version: str = "report-v1"
    """Not in the paper, which prints no prompt."""

    exemplar_max_tokens: int = 256
    """Where an exemplar is cut. Not in the paper; longer than nearly every report."""

    max_new_tokens: int = 256
    """Where a draft is cut. Not in the paper; benchmarks cut at 100 to 150, which loses ends."""

    language_model_files: str | None = None
    """The public language model that must be given; None where we make a small one ourselves."""

    untrained: Untrained = field(default_factory=Untrained)

    def __post_init__(self) -> None:
        D = self.encoder.feature_size
        sizes = {
            "dast": (self.dast.feature_size, D),
            "fusion": (self.fusion.feature_size, D),
            "fusion to language model": (self.fusion.hidden_size, self.language_model["hidden_size"]),
            "alignment image": (self.alignment.image_features, D),
            "alignment text": (self.alignment.text_features, self.text_encoder["hidden_size"]),
        }
        wrong = [
            f"{what} is {ours}, not {theirs}" for what, (ours, theirs) in sizes.items() if ours != theirs
        ]
        if wrong:
            raise ValueError(f"recipe {self.name}: " + "; ".join(wrong))
        if self.vocabulary_size > self.language_model["vocab_size"]:
            raise ValueError(
                f"recipe {self.name}: the tokenizer's {self.vocabulary_size} tokens exceed the "
                f"language model's {self.language_model['vocab_size']}"
            )


PHI_4: dict[str, Any] = {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "hidden_size": 5120,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 10,
    "intermediate_size": 17920,
    "vocab_size": 100352,
    "max_position_embeddings": 16384,
    "original_max_position_embeddings": 16384,
    "rope_theta": 250000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 100257,
    "eos_token_id": 100265,
    "pad_token_id": 100257,
}
"""microsoft/phi-4, 14.66 B parameters. Not in the paper: which Phi-4; we take the 14 B model of that name."""

BIO_CLINICAL_BERT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 28996,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
"""emilyalsentzer/Bio_ClinicalBERT."""


def paper(variant: Variant = "T") -> Recipe:
    """The published method: VMamba, Bio_ClinicalBERT, Phi-4.

    Raises:
        ValueError: If the variant is not T, S or B.
    """
    builders: dict[str, Callable[[], VMambaConfig]] = {
        "T": VMambaConfig.tiny,
        "S": VMambaConfig.small,
        "B": VMambaConfig.base,
    }
    if variant not in builders:
        raise ValueError(f"variant must be T, S or B, got {variant!r}")
    encoder = builders[variant]()
    D = encoder.feature_size
    return Recipe(
        name=f"paper-{variant}",
        encoder=encoder,
        dast=DiseaseTokensConfig(feature_size=D),
        fusion=FusionConfig(feature_size=D, hidden_size=PHI_4["hidden_size"]),
        alignment=AlignmentConfig(image_features=D, text_features=BIO_CLINICAL_BERT["hidden_size"]),
        text_encoder=BIO_CLINICAL_BERT,
        language_model=PHI_4,
        vocabulary_size=PHI_4["vocab_size"],
        stage1=Optimisation(batch_size=128, epochs=20),
        stage2=Optimisation(batch_size=16, epochs=5),
        language_model_files="microsoft/phi-4",
    )


def phantom() -> Recipe:
    """The same modules, small, for drawn studies on two CPU cores. Never medicine."""
    encoder = VMambaConfig(depths=(1, 1, 2, 1), dims=32, drop_path_rate=0.0)
    D, hidden_size = encoder.feature_size, 256
    text_encoder = {
        "model_type": "bert",
        "vocab_size": 1024,
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "max_position_embeddings": 128,
        "type_vocab_size": 2,
    }
    language_model = {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "hidden_size": hidden_size,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 512,
        "vocab_size": 2048,
        "max_position_embeddings": 1024,
        "original_max_position_embeddings": 1024,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 3,
        "pad_token_id": 0,
    }
    return Recipe(
        name="phantom",
        encoder=encoder,
        dast=DiseaseTokensConfig(feature_size=D),
        fusion=FusionConfig(feature_size=D, hidden_size=hidden_size),
        alignment=AlignmentConfig(image_features=D, text_features=128),
        text_encoder=text_encoder,
        language_model=language_model,
        vocabulary_size=2048,
        # Small batches: after 6,400 images macro AUROC was 0.77 in batches of 16 at 1e-3, 0.64 in batches
        # of 32 at 2e-3.
        stage1=Optimisation(batch_size=16, epochs=20, learning_rate=1e-3, warmup_steps=100),
        stage2=Optimisation(batch_size=16, epochs=5, learning_rate=1e-3, warmup_steps=50),
        max_new_tokens=48,
        image_size=160,  # half of the pixels and so of the time; what is drawn at 224 is seen at 160
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "phantom": phantom,
    "paper": paper,
    "paper-T": lambda: paper("T"),
    "paper-S": lambda: paper("S"),
    "paper-B": lambda: paper("B"),
}
"""Recipes by the name that the command line takes."""


def recipe_named(name: str) -> Recipe:
    """Look a recipe up.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]()
