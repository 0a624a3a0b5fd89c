"""VMamba: sizes, checkpoint layouts, and the fused path against the plain one."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.errors import WeightsMismatch
from models.selective_scan import available_forms
from models.vmamba import (
    UnreadableWeights,
    VMamba,
    VMambaConfig,
    convert_weights,
    infer_config,
    load_checkpoint,
    read_weights,
)


def _small(**changes: object) -> VMambaConfig:
    sizes = {"depths": (1, 2), "dims": 16, "drop_path_rate": 0.0} | changes
    return VMambaConfig(**sizes)  # type: ignore[arg-type]


def _seeded(config: VMambaConfig, *, form: str = "auto") -> VMamba:
    torch.manual_seed(0)
    return config.build(form=form).eval()


def _images(height: int = 32, width: int = 32, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("config", "with_head", "without_head", "features"),
    [
        (VMambaConfig.tiny, 30_249_064, 29_480_064, 768),
        (VMambaConfig.small, 50_147_752, 49_378_752, 768),
        (VMambaConfig.base, 88_557_800, 87_532_800, 1024),
    ],
)
def test_the_published_sizes_have_the_published_parameter_counts(
    config: type, with_head: int, without_head: int, features: int
) -> None:
    with torch.device("meta"):
        for classes, expected in ((1000, with_head), (None, without_head)):
            network = config(num_classes=classes).build()
            assert sum(parameter.numel() for parameter in network.parameters()) == expected
    assert config().feature_size == features


def test_vmamba_t_has_the_released_keys() -> None:
    with torch.device("meta"):
        keys = VMambaConfig.tiny(num_classes=1000).build().state_dict()
    assert len(keys) == 276
    assert tuple(keys["layers.3.blocks.1.op.x_proj_weight"].shape) == (4, 50, 768)
    assert tuple(keys["layers.2.downsample.1.weight"].shape) == (768, 384, 3, 3)


def test_tokens_are_the_rows_of_the_last_map() -> None:
    network = _seeded(_small(final_norm=False))
    with torch.inference_mode():
        output = network(_images(64, 32), return_stages=True)
    assert output.grid == (8, 4)
    assert output.stages is not None
    assert [tuple(stage.shape) for stage in output.stages] == [(2, 16, 16, 8), (2, 32, 8, 4)]
    assert torch.equal(output.patch_tokens, output.stages[-1].flatten(2).transpose(1, 2))
    assert torch.equal(output.mean_token, output.patch_tokens.mean(1))


def test_the_final_norm_puts_every_token_on_one_scale() -> None:
    tokens = _seeded(_small())(_images()).patch_tokens
    torch.testing.assert_close(
        tokens.var(-1, unbiased=False), torch.ones(tokens.shape[:2]), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ssm_ratio": 2.0},
        {"d_state": 3},
        {"mlp_ratio": 0.0},
        {"ssm_conv": 1},
        {"ssm_conv": 5},
        {"ssm_conv_bias": True},
        {"dims": (12, 20), "dt_rank": 3, "ssm_ratio": 1.5, "mlp_ratio": 2.5},
    ],
)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 56), (33, 19), (4, 4), (1, 1)])
def test_the_fused_path_equals_the_plain_one(changes: dict[str, object], height: int, width: int) -> None:
    if (reason := available_forms()["compiled"]) is not None:
        pytest.skip(reason)
    network, images = _seeded(_small(**changes)), _images(height, width)
    with torch.inference_mode():
        fused = network.use_form("compiled")(images, return_stages=True)
        plain = network.use_form("chunked")(images, return_stages=True)
        embedded = dict(network.use_form("compiled").trace(images))["patch_embed"]
        assert torch.equal(embedded, network.patch_embed(images)), "the first stage overwrote its input"
    # Measured: 2e-6.
    torch.testing.assert_close(fused.patch_tokens, plain.patch_tokens, rtol=1e-4, atol=2e-5)
    assert fused.stages is not None
    assert plain.stages is not None
    for ours, theirs in zip(fused.stages, plain.stages, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("form", ["chunked", "compiled"])
def test_gradients_reach_every_parameter_and_equal_the_loops(form: str) -> None:
    if (reason := available_forms()[form]) is not None:
        pytest.skip(reason)
    gradients = []
    for name, dtype in ((form, torch.float32), ("loop", torch.float64)):
        network = _seeded(_small(depths=(1, 1)), form=name).to(dtype)
        tokens = network(_images().to(dtype)).patch_tokens
        # Not the tokens' norm: they are normed, so its gradient is rounding noise.
        weights = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(2))
        (tokens * weights.to(dtype)).sum().backward()
        gradients.append({key: value.grad for key, value in network.named_parameters()})
    for key, ours in gradients[0].items():
        theirs = gradients[1][key]
        assert ours is not None
        assert theirs is not None
        assert theirs.abs().max() > 0, key
        # Measured: 2.1e-6 of the largest value.
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max(), key


def test_drop_path_grows_to_its_rate_and_sleeps_outside_training() -> None:
    network = _seeded(_small(depths=(2, 3), drop_path_rate=0.4))
    rates = [module.rate for module in network.modules() if type(module).__name__ == "DropPath"]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    first, second = network(_images()).mean_token, network(_images()).mean_token
    assert torch.equal(first, second)
    network.train()
    outputs = {network(_images()).mean_token.sum().item() for _ in range(8)}
    assert len(outputs) > 1


def _newer_layout(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The layout that the original code writes today, with point-wise layers as convolutions."""
    renamed = {}
    for name, tensor in state_dict.items():
        if name.endswith(("x_proj_weight", "dt_projs_weight")):
            name, tensor = name.replace("_weight", ".weight"), tensor.flatten(0, 1)
        elif name.endswith(("in_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight")):
            tensor = tensor[..., None, None]
        renamed[name] = tensor
    return renamed


def _first_layout(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of the first generation, where this network has the same parts."""
    renames = ((".op.", ".self_attention."), ("classifier.norm", "norm"), ("classifier.head", "head"))
    renamed = {}
    for name, tensor in state_dict.items():
        for ours, theirs in renames:
            name = name.replace(ours, theirs)
        renamed[name.replace(".norm.", ".ln_1.") if ".blocks." in name else name] = tensor
    return renamed


@pytest.mark.parametrize("layout", [dict, _newer_layout, _first_layout])
@pytest.mark.parametrize("d_state", [1, 2])
def test_every_key_layout_loads_whole(layout: object, d_state: int) -> None:
    config = _small(d_state=d_state, num_classes=5, ssm_ratio=2.0)
    origin = _seeded(config)
    torch.manual_seed(9)
    target = config.build().eval()
    report = load_checkpoint(target, {"model": layout(origin.state_dict()), "epoch": 3})  # type: ignore[operator]
    assert report.is_complete
    assert str(report) == "every key fits"
    assert torch.equal(target.classify(_images()), origin.classify(_images()))


def test_keys_that_do_not_fit_are_named() -> None:
    state = dict(_seeded(_small(num_classes=5)).state_dict())
    del state["layers.0.blocks.0.norm.weight"]
    state["layers.0.blocks.0.norm2.bias"] = torch.zeros(17)
    report = load_checkpoint(_small().build(), state)
    assert report.missing == ("layers.0.blocks.0.norm.weight",)
    assert report.unexpected == ("classifier.head.weight", "classifier.head.bias")
    assert report.misshapen == ("layers.0.blocks.0.norm2.bias ((17,), expected (16,))",)
    assert not report.is_complete
    with pytest.raises(WeightsMismatch, match=r"1 missing: layers\.0\.blocks\.0\.norm\.weight; 2 unexpected"):
        report.require_complete()


def test_a_transposed_projection_is_misshapen_and_not_reshaped() -> None:
    state = dict(_seeded(_small()).state_dict())
    name = "layers.0.blocks.0.op.x_proj_weight"
    state[name] = state[name].transpose(1, 2).contiguous()
    assert load_checkpoint(_small().build(), state).misshapen == (
        f"{name} ((4, 16, 3), expected (4, 3, 16))",
    )


def test_the_constructors_arguments_survive_a_round_trip() -> None:
    for config in (
        VMambaConfig.tiny(),
        VMambaConfig.base(ssm_ratio=1.0),
        _small(dims=(12, 20), d_state=2, dt_rank=4, num_classes=3, final_norm=False),
    ):
        assert VMambaConfig.from_json(config.to_json()) == config
    assert json.loads(VMambaConfig.tiny().to_json())["ssm_d_state"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forward_type": "v05"}, "forward_type='v05' is not supported"),
        ({"downsample_version": "v1"}, "downsample_version='v1' is not supported, only 'v3'"),
        ({"windows": 7}, "unknown VMamba arguments: windows"),
        ({"depths": []}, r"depths must hold at least one block a stage, got \(\)"),
        ({"dims": [8]}, r"dims \(8,\) must name one width a stage"),
        ({"ssm_conv": 2}, "ssm_conv must be odd, got 2"),
        ({"patch_size": 8}, "got 8"),
    ],
)
def test_a_network_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VMambaConfig.from_json({"depths": [1, 1], "dims": 8} | changes)


def test_images_with_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected images \(B, 3, H, W\), got \(2, 1, 32, 32\)"):
        _small().build()(torch.zeros(2, 1, 32, 32))


def test_a_public_checkpoint_becomes_safetensors(tmp_path: Path) -> None:
    config = _small(num_classes=5, d_state=2, ssm_ratio=2.0)
    origin = _seeded(config)
    torch.save({"model": _newer_layout(origin.state_dict())}, tmp_path / "public.pth")
    report = convert_weights(tmp_path / "public.pth", tmp_path / "ours.safetensors")
    assert report.layout == "vmamba"
    assert report.keys is not None
    assert str(report.keys) == "every key fits"
    assert report.size_bytes == (tmp_path / "ours.safetensors").stat().st_size
    tensors = read_weights(tmp_path / "ours.safetensors")
    assert report.tensors == len(tensors) == len(origin.state_dict())
    target = infer_config(tensors).build().eval()
    load_checkpoint(target, tensors).require_complete()
    assert torch.equal(target.classify(_images()), origin.classify(_images()))
    assert not list(tmp_path.glob("*.partial"))


def test_another_networks_weights_keep_their_names_and_shared_tensors(tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    torch.save({"embeddings.weight": shared, "decoder.weight": shared}, tmp_path / "pytorch_model.bin")
    report = convert_weights(tmp_path / "pytorch_model.bin", tmp_path / "model.safetensors")
    assert (report.layout, report.tensors, report.keys) == ("other", 2, None)
    assert torch.equal(read_weights(tmp_path / "model.safetensors")["decoder.weight"], shared)


class _Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("trapped"),))  # type: ignore[return-value]


def test_a_pickle_that_asks_for_code_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": _Trap()}, "trap.pth")
    Path("old.bin").write_bytes(pickle.dumps({"model": _Trap()}, protocol=2))
    for name in ("trap.pth", "old.bin"):
        with pytest.raises(UnreadableWeights, match="holds more than tensors, and nothing in it was run"):
            convert_weights(Path(name), Path("out.safetensors"))
    assert not Path("trapped").exists()
    assert not Path("out.safetensors").exists()


def test_half_a_vmamba_is_not_converted(tmp_path: Path) -> None:
    state = dict(_seeded(_small()).state_dict())
    del state["layers.1.blocks.1.op.Ds"]
    torch.save(state, tmp_path / "half.pth")
    with pytest.raises(WeightsMismatch, match=r"not a whole VMamba: 1 missing: layers\.1\.blocks\.1\.op\.Ds"):
        convert_weights(tmp_path / "half.pth", tmp_path / "out.safetensors")
