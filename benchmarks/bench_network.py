"""VMamba-T forward at batch 8: against the same network with other scans, and against its ceiling.

The ceiling is what no rewriting of the rest could beat with this machine's libraries: the network's matrix
products (linear layers, dense convolutions as products over their windows, the scan's two projections), by
``torch.mm`` into memory that is there already or as convolutions of one pixel, whichever library is faster in
sum; plus its exponentials: of each scan element two exponentials and one log1p, one exponential for each SiLU
and GELU, by ``torch.exp`` and ``torch.log1p`` on blocks that stay in the cache. All are measured in the same
rounds as the network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measure import interleave
from models.vmamba.network import SS2D, Mlp, VMamba

GATES = {"loop": (4, 6), "chunked": (2, 2), "ceiling": (0.5, 0.7)}
_BLOCK = 1 << 17


def _work(network: VMamba, images: Tensor) -> tuple[list[tuple[int, int, int]], int, int]:
    """(M, K, N) of every matrix product of a forward pass, exponentials, logarithms."""
    products: list[tuple[int, int, int]] = []
    counts = {"exp": 0, "log": 0}

    def on_linear(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Linear)
        products.append((output.numel() // module.out_features, module.in_features, module.out_features))

    def on_convolution(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        if module.groups == 1:
            window = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
            products.append((output.numel() // module.out_channels, window, module.out_channels))

    def on_scan(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, SS2D)
        walks, columns, inner = module.x_proj_weight.shape
        pixels = output.numel() // output.shape[-1]
        products.append((pixels, inner, walks * columns))
        products.extend([(pixels, module.dt_projs_weight.shape[-1], inner)] * walks)
        counts["exp"] += pixels * inner * walks * 2 + pixels * inner  # the scan, and the SiLU before it
        counts["log"] += pixels * inner * walks

    def on_mlp(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, Mlp)
        counts["exp"] += output.numel() // output.shape[-1] * module.fc1.out_features

    hooks = []
    for module in network.modules():
        for kind, hook in (
            (nn.Linear, on_linear),
            (nn.Conv2d, on_convolution),
            (SS2D, on_scan),
            (Mlp, on_mlp),
        ):
            if isinstance(module, kind):
                hooks.append(module.register_forward_hook(hook))
    network.use_form("chunked")  # the plain path calls every module, so every hook sees its layer
    with torch.no_grad():
        network(images)
    for handle in hooks:
        handle.remove()
    return products, counts["exp"], counts["log"]


def _convolve(products: list[tuple[int, int, int]]) -> Callable[[], None]:
    prepared = [
        (torch.randn(1, k, m, 1).to(memory_format=torch.channels_last), torch.randn(n, k, 1, 1))
        for m, k, n in products
    ]

    def run() -> None:
        with torch.inference_mode():
            for pixels, weight in prepared:
                functional.conv2d(pixels, weight)

    return run


def _multiply(products: list[tuple[int, int, int]]) -> Callable[[], None]:
    prepared = [(torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)) for m, k, n in products]

    def run() -> None:
        for left, right, out in prepared:
            torch.mm(left, right, out=out)

    return run


def _exponentiate(exponentials: int, logarithms: int) -> Callable[[], None]:
    values, out = torch.rand(_BLOCK), torch.empty(_BLOCK)

    def run() -> None:
        for _ in range(exponentials // _BLOCK):
            torch.exp(values, out=out)
        for _ in range(logarithms // _BLOCK):
            torch.log1p(values, out=out)

    return run


def bench(network: VMamba, *, rounds: int, batch: int = 8) -> dict[str, Any]:
    """Time the network with each scan, and its ceiling; ratios are of bests, then of medians."""
    images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    products, exponentials, logarithms = _work(network, images)

    def forward(form: str) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.inference_mode():
                tokens: Tensor = network.use_form(form)(images).patch_tokens
            return tokens

        return run

    ours, theirs = forward("compiled")(), forward("chunked")()
    timings = interleave(
        {
            "compiled": forward("compiled"),
            "products by MKL": _multiply(products),
            "products by oneDNN": _convolve(products),
            "exponentials": _exponentiate(exponentials, logarithms),
            "chunked": forward("chunked"),
            "loop": forward("loop"),
        },
        rounds=rounds,
    )
    best, median = timings["compiled"].best_s, timings["compiled"].median_s
    products_s = min(timings["products by MKL"], timings["products by oneDNN"], key=lambda one: one.best_s)
    exponentials_s = timings["exponentials"]
    return {
        "batch": batch,
        "products_gflop": sum(2 * m * k * n for m, k, n in products) / 1e9,
        "exponentials": exponentials + logarithms,
        "difference": ((ours - theirs).abs().max() / theirs.abs().max()).item(),
        "timings": timings,
        "ratios": {
            form: (timings[form].best_s / best, timings[form].median_s / median)
            for form in ("loop", "chunked")
        },
        "ceiling": (
            (products_s.best_s + exponentials_s.best_s) / best,
            (products_s.median_s + exponentials_s.median_s) / median,
        ),
        "products_alone": (products_s.best_s / best, products_s.median_s / median),
    }
