"""The encoder against outputs of the original code, in every form that this machine can run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from models.selective_scan import FORMS, available_forms
from models.vmamba import VMambaConfig, check_encoder, read_weights

PROJECT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("NIGHTREAD_TEST_DATA", PROJECT.parent / "shared" / "data")) / "golden" / "vmamba"
NETWORKS = ("tiny_ratio1", "tiny_ratio2")

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no recorded outputs at {GOLDEN}")


def _files(name: str) -> tuple[Path, Path, Path]:
    return GOLDEN / f"{name}.json", GOLDEN / f"{name}.pth", GOLDEN / f"{name}.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_stage_equals_the_original(name: str, form: str) -> None:
    if (reason := available_forms()[form]) is not None:
        pytest.skip(reason)
    if form in ("triton", "mamba"):
        pytest.skip("the check runs on the CPU; the form is held to the loop by its own tests")
    errors = check_encoder(*_files(name), form=form)
    assert list(errors) == ["patch_embed", "stage0", "stage1", "stage2", "stage3", "logits"]
    # Measured: 8e-7 at most, in every form.
    assert max(errors.values()) <= 1e-4, errors


def test_the_training_path_equals_the_original_too() -> None:
    from models.vmamba import load_checkpoint

    config, weights, reference = _files("tiny_ratio2")
    recorded = read_weights(reference)
    network = VMambaConfig.from_json(config).build()
    load_checkpoint(network, read_weights(weights)).require_complete()
    logits = network.train().classify(recorded["input"])
    assert logits.requires_grad
    assert (logits - recorded["logits"]).abs().max() <= 1e-4 * recorded["logits"].abs().max()


def test_the_command_passes_and_fails_by_its_exit_code(tmp_path: Path) -> None:
    from orchestration.cli.model import app

    config, weights, reference = (str(path) for path in _files("tiny_ratio2"))
    passed = CliRunner().invoke(app, ["check-encoder", config, weights, reference, "--json"])
    assert passed.exit_code == 0, passed.output
    said = json.loads(passed.stdout)
    assert said["passed"] is True
    assert max(said["forms"]["auto"].values()) <= said["tolerance"]

    tensors = read_weights(Path(weights))
    tensors["layers.1.blocks.0.op.Ds"] = tensors["layers.1.blocks.0.op.Ds"] + 1.0
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "off.safetensors")
    failed = CliRunner().invoke(
        app, ["check-encoder", config, str(tmp_path / "off.safetensors"), reference, "--form", "chunked"]
    )
    assert failed.exit_code == 1
    assert "stage0        " in failed.stdout
    assert "TOO LARGE" in failed.stdout

    del tensors["layers.1.blocks.0.op.Ds"]
    torch.save({"model": tensors}, tmp_path / "less.pth")
    refused = CliRunner().invoke(app, ["check-encoder", config, str(tmp_path / "less.pth"), reference])
    assert refused.exit_code == 2
    assert "1 missing: layers.1.blocks.0.op.Ds" in refused.output
