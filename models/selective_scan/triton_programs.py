"""The Triton programs of the scan. Imported only where Triton is wanted; see ``triton_kernel``.

A program works for one image, one walk and one block of channels. It takes the walk in tiles of BT steps:
each tile is an associative scan, and a state carries over from tile to tile. Step sizes, softplus and decay
are computed inside, so nothing of the size of the four walks is read.

Shapes: features (B, L, D), projected (B, L, 4, R + 2 N), outputs of each walk (B, 4, L, D), all at the
pixel they belong to, not at the step.
"""

# Triton's decorator and its language have no types.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _after(a1, b1, a2, b2):
    """h -> a2 (a1 h + b1) + b2."""
    return a1 * a2, a2 * b1 + b2


@triton.jit
def _around(a1, b1, p1, s1, a2, b2, p2, s2):
    """As ``_after``, and beside it the state before the last step, h -> p h + s."""
    return a1 * a2, a2 * b1 + b2, a1 * p2, s2 + p2 * b1


@triton.jit
def _pixels(step, walk, height, width):
    """Where the walk is at each step: rows, columns, and both from the end."""
    length = height * width
    forward = tl.where(walk < 2, step, length - 1 - step)
    return tl.where(walk % 2 == 1, (forward % height) * width + forward // height, forward)


@triton.jit
def _raw_steps(row, weight, bias, live, inside, rank, BT: tl.constexpr, BD: tl.constexpr):
    raw = tl.zeros([BT, BD], dtype=tl.float32) + bias[None, :]
    for r in range(rank):
        low = tl.load(row + r, mask=live, other=0.0)
        up = tl.load(weight + r, mask=inside, other=0.0)
        raw += low[:, None] * up[None, :]
    return raw


@triton.jit
def _softplus(raw):
    small = tl.exp(-tl.abs(raw))
    # log(1 + t) forgets a t below the spacing of fp32: a series keeps small steps.
    series = small * (1.0 - small * (0.5 - small * (1.0 / 3.0)))
    return tl.maximum(raw, 0.0) + tl.where(small < 0.01, series, tl.log(1.0 + small))


@triton.jit
def _sigmoid(raw):
    small = tl.exp(-tl.abs(raw))
    return tl.where(raw >= 0.0, 1.0 / (1.0 + small), small / (1.0 + small))


@triton.jit
def forward(
    features,
    projected,
    dt_weight,
    dt_bias,
    a_log,
    walked,
    carried,
    height,
    width,
    channels,
    rank,
    N: tl.constexpr,
    NP: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    KEEP: tl.constexpr,
):
    image = tl.program_id(0) // 4
    walk = tl.program_id(0) % 4
    length = height * width
    tiles = tl.cdiv(length, BT)
    columns = rank + 2 * N
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    inside = d < channels
    step_in_tile = tl.arange(0, BT)
    state_index = tl.arange(0, NP)[:, None]
    bias = tl.load(dt_bias + walk * channels + d, mask=inside, other=0.0)
    weight = dt_weight + (walk * channels + d) * rank
    state = tl.zeros([NP, BD], dtype=tl.float32)
    for tile in range(tiles):
        step = tile * BT + step_in_tile
        live = step < length
        pixel = image * length + _pixels(step, walk, height, width)
        row = projected + (pixel * 4 + walk) * columns
        mask = live[:, None] & inside[None, :]
        u = tl.load(features + pixel[:, None] * channels + d[None, :], mask=mask, other=0.0)
        raw = _raw_steps(row, weight, bias, live, inside, rank, BT, BD)
        # A step beyond the end has size 0: it keeps the state and adds nothing.
        delta = tl.where(mask, _softplus(raw), 0.0)
        y = tl.zeros([BT, BD], dtype=tl.float32)
        for n in tl.static_range(N):
            rate = -tl.exp(tl.load(a_log + (walk * channels + d) * N + n, mask=inside, other=0.0))
            b = tl.load(row + rank + n, mask=live, other=0.0)
            c = tl.load(row + rank + N + n, mask=live, other=0.0)
            before = tl.sum(tl.where(state_index == n, state, 0.0), axis=0)
            if KEEP:
                at = ((tl.program_id(0) * tiles + tile) * N + n) * channels
                tl.store(carried + at + d, before, mask=inside)
            left, gathered = tl.associative_scan(
                (tl.exp(delta * rate[None, :]), delta * u * b[:, None]), 0, _after
            )
            h = left * before[None, :] + gathered
            y += h * c[:, None]
            last = tl.sum(tl.where(step_in_tile[:, None] == BT - 1, h, 0.0), axis=0)
            state = tl.where(state_index == n, last[None, :], state)
        out = (tl.program_id(0) * length + pixel - image * length)[:, None] * channels + d[None, :]
        tl.store(walked + out, y, mask=mask)


@triton.jit
def backward(
    features,
    projected,
    dt_weight,
    dt_bias,
    a_log,
    grad_output,
    carried,
    grad_walked,
    grad_step,
    grad_bc,
    grad_a_log,
    images,
    height,
    width,
    channels,
    rank,
    N: tl.constexpr,
    NP: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
):
    image = tl.program_id(0) // 4
    walk = tl.program_id(0) % 4
    length = height * width
    tiles = tl.cdiv(length, BT)
    columns = rank + 2 * N
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    inside = d < channels
    step_in_tile = tl.arange(0, BT)
    state_index = tl.arange(0, NP)[:, None]
    bias = tl.load(dt_bias + walk * channels + d, mask=inside, other=0.0)
    weight = dt_weight + (walk * channels + d) * rank
    # What later steps ask of the state: a_t g_t of the step after the tile.
    asked = tl.zeros([NP, BD], dtype=tl.float32)
    g_a_log = tl.zeros([NP, BD], dtype=tl.float32)
    for back in range(tiles):
        tile = tiles - 1 - back
        step = tile * BT + step_in_tile
        live = step < length
        pixel = image * length + _pixels(step, walk, height, width)
        row = projected + (pixel * 4 + walk) * columns
        mask = live[:, None] & inside[None, :]
        at = pixel[:, None] * channels + d[None, :]
        u = tl.load(features + at, mask=mask, other=0.0)
        gy = tl.load(grad_output + at, mask=mask, other=0.0)
        raw = _raw_steps(row, weight, bias, live, inside, rank, BT, BD)
        delta = tl.where(mask, _softplus(raw), 0.0)
        ones = tl.zeros([BT, BD], dtype=tl.float32) + 1.0
        zeros = tl.zeros([BT, BD], dtype=tl.float32)
        gu = tl.zeros([BT, BD], dtype=tl.float32)
        gdelta = tl.zeros([BT, BD], dtype=tl.float32)
        for n in tl.static_range(N):
            rate = -tl.exp(tl.load(a_log + (walk * channels + d) * N + n, mask=inside, other=0.0))
            b = tl.load(row + rank + n, mask=live, other=0.0)
            c = tl.load(row + rank + N + n, mask=live, other=0.0)
            incoming = tl.load(
                carried + ((tl.program_id(0) * tiles + tile) * N + n) * channels + d, mask=inside, other=0.0
            )
            a = tl.exp(delta * rate[None, :])
            drive = delta * u * b[:, None]
            _a, _b, kept, gathered = tl.associative_scan((a, drive, ones, zeros), 0, _around)
            before = kept * incoming[None, :] + gathered
            after = tl.sum(tl.where(state_index == n, asked, 0.0), axis=0)
            q = gy * c[:, None]
            _a, _b, kept, gathered = tl.associative_scan((a, a * q, ones, zeros), 0, _around, reverse=True)
            g = q + kept * after[None, :] + gathered
            through = g * before * a
            gu += g * delta * b[:, None]
            gdelta += through * rate[None, :] + g * u * b[:, None]
            gradient = tl.sum(through * delta, axis=0) * rate
            g_a_log += tl.where(state_index == n, gradient[None, :], 0.0)
            first = tl.sum(tl.where(step_in_tile[:, None] == 0, a * g, 0.0), axis=0)
            asked = tl.where(state_index == n, first[None, :], asked)
            to = grad_bc + ((tl.program_id(1) * images * length + pixel) * 4 + walk) * 2 * N + n
            tl.store(to, tl.sum(g * delta * u, axis=1), mask=live)
            tl.store(to + N, tl.sum(gy * (a * before + drive), axis=1), mask=live)
        out = (tl.program_id(0) * length + pixel - image * length)[:, None] * channels + d[None, :]
        tl.store(grad_walked + out, gu, mask=mask)
        to_step = (pixel[:, None] * 4 + walk) * channels + d[None, :]
        tl.store(grad_step + to_step, gdelta * _sigmoid(raw), mask=mask)
    for n in tl.static_range(N):
        gradient = tl.sum(tl.where(state_index == n, g_a_log, 0.0), axis=0)
        tl.store(grad_a_log + (tl.program_id(0) * channels + d) * N + n, gradient, mask=inside)
