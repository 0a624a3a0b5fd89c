"""Files in the public layouts, in miniature: Phi-4's folder, Bio_ClinicalBERT's, VMamba's checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

TEXTS = ["Findings: Clear lungs. Impression: Normal.", "Findings: A nodule. Impression: Follow up."] * 3
BERT = {
    "model_type": "bert",
    "vocab_size": 64,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
    "hidden_dropout_prob": 0.5,
}
# The fields of the public config.json of microsoft/phi-4, with miniature sizes.
PHI_4_MINIATURE: dict[str, Any] = {
    "_name_or_path": "phi-4",
    "architectures": ["Phi3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 400,
    "embd_pdrop": 0.0,
    "eos_token_id": 400,
    "hidden_act": "silu",
    "hidden_size": 24,
    "initializer_range": 0.02,
    "intermediate_size": 40,
    "max_position_embeddings": 16384,
    "model_type": "phi3",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "original_max_position_embeddings": 16384,
    "pad_token_id": 400,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 250000,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.47.0",
    "use_cache": True,
    "vocab_size": 448,
}


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as microsoft/phi-4 publishes it: bf16 shards with an index, control tokens after the words."""
    import torch
    from safetensors.torch import save_file
    from transformers import Phi3Config, Phi3ForCausalLM

    from models.prompt import CONTROL_TOKENS
    from training.vocabulary import train_tokenizer

    folder = tmp_path_factory.mktemp("public") / "phi-4"
    train_tokenizer(TEXTS, 404, folder)
    layout = json.loads((folder / "tokenizer.json").read_text())
    words = {w: i - 4 for w, i in layout["model"]["vocab"].items() if w not in CONTROL_TOKENS}
    layout["model"]["vocab"] = words
    names = ["<|endoftext|>", "<|fim_prefix|>", "<|dummy_0|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>"]
    flags = {"single_word": False, "lstrip": True, "rstrip": True, "normalized": False, "special": True}
    layout["added_tokens"] = [{"id": len(words) + i, "content": n, **flags} for i, n in enumerate(names)]
    (folder / "tokenizer.json").write_text(json.dumps(layout))
    torch.manual_seed(0)
    settings = {k: v for k, v in PHI_4_MINIATURE.items() if not k.startswith(("torch", "transf", "_name"))}
    state = Phi3ForCausalLM(Phi3Config.from_dict(settings)).to(torch.bfloat16).state_dict()
    shards: list[dict[str, Any]] = [{}, {}, {}]
    for i, (name, tensor) in enumerate(state.items()):
        shards[i * 3 // len(state)][name] = tensor.clone()
    weight_map = {}
    for i, shard in enumerate(shards, 1):
        file = f"model-0000{i}-of-00003.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(PHI_4_MINIATURE))
    return folder


@pytest.fixture(scope="session")
def text_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as Bio_ClinicalBERT is laid out, its weights as safetensors."""
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertForPreTraining

    folder = tmp_path_factory.mktemp("public-bert")
    torch.manual_seed(1)
    theirs = BertForPreTraining(BertConfig(**{k: v for k, v in BERT.items() if k != "model_type"}))
    # The decoder shares the embeddings' storage, which safetensors does not write.
    state = {n: t.clone() for n, t in theirs.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(BERT))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(59))]
    (folder / "vocab.txt").write_text("\n".join(words))
    return folder


@pytest.fixture(scope="session")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VMamba weights in the key layout of the code that came after the public checkpoints, head included."""
    import torch
    from safetensors.torch import save_file

    from models.vmamba import VMambaConfig

    torch.manual_seed(2)
    network = VMambaConfig(depths=(1, 1, 1, 1), dims=4, num_classes=10).build()
    state = {}
    for name, tensor in network.state_dict().items():
        if name.endswith("x_proj_weight"):
            name, tensor = name.replace("x_proj_weight", "x_proj.weight"), tensor.flatten(0, 1)
        elif name.endswith("dt_projs_weight"):
            name, tensor = name.replace("dt_projs_weight", "dt_projs.weight"), tensor.flatten(0, 1)
        state[name] = tensor.clone().contiguous()
    path = tmp_path_factory.mktemp("public-vmamba") / "vmamba.safetensors"
    save_file(state, path)
    return path
