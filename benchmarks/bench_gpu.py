"""On a CUDA device: the scan and VMamba-T by form, and drafts of a full-size Phi-4 with random weights.

Needs only what ``models`` and ``training`` import: torch, transformers, safetensors and numpy. Baselines are
the chunked torch form for the scan and the network, and for drafting the time in which the device's own
memory can hand over the weights once for each token, measured in the same run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench_scan import captured
from benchmarks.measure import interleave
from models.dvaf import FusionConfig
from models.generator import ReportRequest, ReportWriter
from models.language_model import random_language_model
from models.prompt import PromptWriter
from models.selective_scan import available_forms, selective_scan
from models.vmamba import VMambaConfig
from training.recipes import PHI_4
from training.vocabulary import train_tokenizer

FORMS = ("chunked", "triton", "mamba")
DRAFTS, TOKENS = 8, 120
EXEMPLAR = "Findings: The heart is large. There is a small left effusion. Impression: Heart failure. " * 8
_COPY = 1 << 31


def _here(action: Callable[[], object]) -> Callable[[], None]:
    """The action, and the wait until the device has done it."""

    def run() -> None:
        action()
        torch.cuda.synchronize()

    return run


def _row(name: str, timing: Any, baseline: Any) -> str:
    by_bests, by_medians = baseline.best_s / timing.best_s, baseline.median_s / timing.median_s
    return f"  {name:<24}{timing}; {by_bests:6.2f}x by bests, {by_medians:6.2f}x by medians"


def bench_scan(forms: list[str], rounds: int) -> None:
    """The scans of all 14 blocks of VMamba-T, one image, forward alone and with backward."""
    network = VMambaConfig.tiny().build().eval()
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    blocks = [tuple(tensor.cuda() for tensor in arguments) for arguments in captured(network, images)]
    trainable = [tuple(tensor.clone().requires_grad_() for tensor in arguments) for arguments in blocks]

    def forward(form: str) -> Callable[[], object]:
        def run() -> None:
            with torch.no_grad():
                for arguments in blocks:
                    selective_scan(*arguments, form=form)

        return run

    def both(form: str) -> Callable[[], object]:
        def run() -> None:
            for arguments in trainable:
                output = selective_scan(*arguments, form=form)
                torch.autograd.grad(output, arguments, torch.ones_like(output))

        return run

    for what, make in (("forward", forward), ("forward and backward", both)):
        print(f"\nscan of one VMamba-T image, {len(blocks)} blocks, {what}")
        timings = interleave({form: _here(make(form)) for form in forms}, rounds=rounds)
        for form, timing in timings.items():
            print(_row(form, timing, timings["chunked"]), flush=True)


def bench_network(forms: list[str], rounds: int, batch: int) -> None:
    """VMamba-T forward in fp32 and under bf16 autocast."""
    network = VMambaConfig.tiny().build().eval().cuda()
    images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0)).cuda()

    def forward(form: str, dtype: torch.dtype) -> Callable[[], Tensor]:
        def run() -> Tensor:
            on = dtype != torch.float32
            with torch.inference_mode(), torch.autocast("cuda", dtype=dtype, enabled=on):
                tokens: Tensor = network.use_form(form)(images).patch_tokens
            return tokens

        return run

    cases = {
        f"{form}, {name}": forward(form, dtype)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
        for form in forms
    }
    print(f"\nVMamba-T forward, batch {batch}")
    expected = cases["chunked, fp32"]().float()
    timings = interleave({name: _here(case) for name, case in cases.items()}, rounds=rounds)
    for name, timing in timings.items():
        difference = ((cases[name]().float() - expected).abs().max() / expected.abs().max()).item()
        print(_row(name, timing, timings["chunked, fp32"]), end="")
        print(f"; {batch / timing.best_s:,.0f} images/s, difference {difference:.1e}", flush=True)


def bench_drafts() -> None:
    """Eight drafts by ``ReportWriter`` of a Phi-4 with random bf16 weights, which end at the limit."""
    place = torch.device("cuda")
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    model: Any = random_language_model(PHI_4, device=place)
    torch.cuda.synchronize()
    made_s = time.perf_counter() - began
    bytes_of_weights = sum(p.numel() * p.element_size() for p in model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer([EXEMPLAR] * 3, 400, Path(folder), prompt_version="report-v1")
        prompts = PromptWriter.from_file(
            Path(folder) / "tokenizer.json", version="report-v1", exemplar_max_tokens=300
        )
    writer = ReportWriter(
        prefix=FusionConfig(feature_size=768, hidden_size=PHI_4["hidden_size"]).build(),
        language_model=model,
        prompts=prompts,
        device=place,
        max_new_tokens=TOKENS,
    )
    requests = [
        ReportRequest(
            patch_tokens=torch.randn(49, 768), disease_tokens=torch.randn(14, 768), exemplar_report=EXEMPLAR
        )
        for _ in range(DRAFTS)
    ]
    timing = interleave({"drafts": _here(lambda: writer.write(requests))}, rounds=2)["drafts"]
    written = sum(draft.generated_tokens for draft in writer.write(requests))
    memory = torch.cuda.max_memory_allocated()
    source = torch.empty(_COPY, dtype=torch.uint8, device=place)
    target = torch.empty_like(source)
    copy = interleave({"copy": _here(lambda: target.copy_(source))}, rounds=5)["copy"]
    bandwidth = 2 * _COPY / copy.best_s
    floor_s = TOKENS * bytes_of_weights / bandwidth
    print(f"\nPhi-4, {bytes_of_weights / 1e9:.1f} GB of random bf16 weights, made in {made_s:.1f} s")
    print(f"  {DRAFTS} drafts of {TOKENS} tokens at most: {timing}")
    print(f"  {written / timing.best_s:,.0f} tokens/s, {DRAFTS / timing.best_s * 3600:,.0f} drafts an hour")
    print(f"  memory at most {memory / 2**30:.1f} GiB")
    print(
        f"  reading the weights once a token takes {floor_s:.2f} s at the {bandwidth / 1e12:.2f} TB/s that a "
        f"copy reads and writes: {floor_s / timing.best_s * 100:.0f} % of the time",
        flush=True,
    )


def main() -> int:
    """Print every figure; exit code 1 without a CUDA device."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_gpu", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="interleaved repetitions")
    parser.add_argument("--batch", type=int, default=32, help="images a batch of the whole network")
    parser.add_argument("--without-language-model", action="store_true", help="leave Phi-4 out")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("there is no CUDA device here", file=sys.stderr)
        return 1
    # fp32 means fp32: the comparison of forms is not one of TF32 products.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    forms = [form for form in FORMS if available_forms()[form] is None]
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, forms {', '.join(forms)}")
    for form in set(FORMS) - set(forms):
        print(f"  without {form}: {available_forms()[form]}")
    bench_scan(forms, arguments.rounds)
    bench_network(forms, arguments.rounds, arguments.batch)
    if not arguments.without_language_model:
        bench_drafts()
    return 0


if __name__ == "__main__":
    sys.exit(main())
