"""Draft reports: visual tokens and a similar case in the prompt of a frozen language model (Eq. 9).

Any causal model of the Phi-3 architecture of ``transformers`` will do. Decoding is greedy with a
key-value cache: the opening that all prompts share is computed once, requests are sorted by prompt
length, padded on the left, and leave the batch when they end. Only the last position of the prompt goes
through the output head.
"""

# Shapes: B batch, L prompt length, N visual tokens, D features, H hidden size, V vocabulary.

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, Phi3ForCausalLM

from models.devices import in_halves
from models.dvaf import VisualPrefix
from models.prompt import PromptTokens, PromptWriter, split_sections

# transformers 5.24 renamed the argument; older 5.x know the other name alone.
_CACHE_ARGUMENT = (
    "cache" if "cache" in inspect.signature(Phi3ForCausalLM.forward).parameters else "past_key_values"
)
IGNORED = -100
"""Target value of positions that carry no loss: prompt, visual tokens, padding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportRequest:
    """What one draft is written from."""

    patch_tokens: Tensor | NDArray[Any]
    """Encoder output, ``(N, D)``."""

    disease_tokens: Tensor | NDArray[Any]
    """DAST output, ``(14, D)``."""

    exemplar_report: str | None
    """The retrieved report's text, or None where there is none."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What the language model wrote, and its sections as it headed them."""

    text: str
    findings: str
    impression: str
    generated_tokens: int
    """Tokens written, the closing one included."""

    finish: Literal["eos", "length"]
    """Whether the model ended the report or was cut at the limit."""


class ReportWriter:
    """Writes drafts. One object a process: it holds the language model."""

    def __init__(
        self,
        *,
        prefix: VisualPrefix,
        language_model: nn.Module,
        prompts: PromptWriter,
        device: torch.device,
        max_new_tokens: int,
    ) -> None:
        """Take the parts as loaded; they are moved to the device and set to evaluation.

        Raises:
            ValueError: If the projection's size is not the language model's hidden size, the vocabulary
                is smaller than the tokenizer's, or the limit is not positive.
        """
        network = cast(Any, language_model)
        hidden_size, rows = int(network.config.hidden_size), int(network.config.vocab_size)
        if prefix.config.hidden_size != hidden_size:
            raise ValueError(
                f"projection gives {prefix.config.hidden_size} features, language model takes {hidden_size}"
            )
        if rows < prompts.vocabulary_size:
            raise ValueError(
                f"the tokenizer has {prompts.vocabulary_size} tokens, the language model only {rows}"
            )
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be positive, got {max_new_tokens}")
        self.device = device
        self.prompts = prompts
        self.max_new_tokens = max_new_tokens
        self._prefix = prefix.to(device).eval()
        self._model = network.to(device).eval()
        # Nothing but text and the end of the turn may be written: no other control token, and no id
        # beyond the tokenizer (Phi-4's table has more rows than its tokenizer has tokens).
        forbidden = torch.ones(rows, dtype=torch.bool)
        forbidden[: prompts.vocabulary_size] = False
        forbidden[list(prompts.control_ids)] = True
        forbidden[list(prompts.stop_ids)] = False
        self._forbidden = forbidden.to(device)
        self._stops = torch.tensor(sorted(prompts.stop_ids), device=device)

    def write(self, requests: Sequence[ReportRequest], max_new_tokens: int | None = None) -> list[Draft]:
        """Write one draft for each request, greedily.

        Args:
            requests: Any number; where the device has no room, the batch is halved.
            max_new_tokens: Where to cut; the release's own limit if None. There is no minimum.

        Returns:
            Drafts in the order of the requests.

        Raises:
            OutOfDeviceMemory: If a single request does not fit.
            ValueError: If a request's sizes do not fit the networks.
        """
        limit = self.max_new_tokens if max_new_tokens is None else max_new_tokens
        if limit < 1:
            raise ValueError(f"max_new_tokens must be positive, got {limit}")
        layouts = [self.prompts.prompt(request.exemplar_report) for request in requests]
        by_length = sorted(range(len(requests)), key=lambda i: len(layouts[i].before_image), reverse=True)
        written = in_halves(
            by_length,
            lambda part: self._write([requests[i] for i in part], [layouts[i] for i in part], limit),
        )
        drafts = dict(zip(by_length, written, strict=True))
        return [drafts[i] for i in range(len(requests))]

    @torch.inference_mode()
    def embed_prompts(
        self, requests: Sequence[ReportRequest], layouts: Sequence[PromptTokens]
    ) -> tuple[Tensor, Tensor]:
        """Make the language model's input: the shared opening, then the rest, padded on its left.

        Returns:
            Embeddings ``(B, L, H)`` and mask ``(B, L)``, true where there is a token.
        """
        patch_tokens, disease_tokens = (
            torch.stack([torch.as_tensor(t) for t in tokens]).to(self.device, torch.float32)
            for tokens in ([r.patch_tokens for r in requests], [r.disease_tokens for r in requests])
        )
        visual_dtype = next(self._prefix.parameters()).dtype
        visual = self._prefix(patch_tokens.to(visual_dtype), disease_tokens.to(visual_dtype))
        P = len(self.prompts.opening)
        rows = embed_rows(self._model, layouts, visual)
        rest, mask = pad_left([row[P:] for row in rows])
        shared = torch.stack([row[:P] for row in rows])
        return torch.cat([shared, rest], dim=1), torch.cat([mask.new_ones(len(rows), P), mask], dim=1)

    def _write(
        self, requests: Sequence[ReportRequest], layouts: Sequence[PromptTokens], limit: int
    ) -> list[Draft]:
        embeddings, mask = self.embed_prompts(requests, layouts)
        return [self._draft(ids, limit) for ids in self._decode(embeddings, mask, limit)]

    @torch.inference_mode()
    def _decode(self, embeddings: Tensor, mask: Tensor, limit: int) -> list[list[int]]:
        """Greedy decoding with a cache; a finished row leaves once half of the rows have finished."""
        B, opening = embeddings.shape[0], self.prompts.opening
        written: list[list[int]] = [[] for _ in range(B)]
        rows = list(range(B))
        active = torch.ones(B, dtype=torch.bool, device=self.device)
        cache = self._read_opening(B)
        positions = positions_of(mask)[:, len(opening) :]
        inputs = embeddings[:, len(opening) :]
        for step in range(limit):
            chosen = self._next_tokens(inputs, mask, positions, cache)
            tokens = chosen.tolist()
            for row, token, running in zip(rows, tokens, active.tolist(), strict=True):
                if running:
                    written[row].append(token)
            active &= ~torch.isin(chosen, self._stops)
            running_rows = int(active.sum())
            if not running_rows or step + 1 == limit:
                break
            if running_rows <= len(rows) // 2:
                keep = active.nonzero().flatten()
                cache.batch_select_indices(keep)
                rows = [rows[i] for i in keep.tolist()]
                chosen, mask, positions, active = chosen[keep], mask[keep], positions[keep], active[keep]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            positions = positions[:, -1:] + 1
            inputs = self._model.get_input_embeddings()(chosen[:, None])
        return written

    def _read_opening(self, B: int) -> DynamicCache:
        """Keys and values of the text that all prompts begin with, for ``B`` rows; computed for one."""
        cache = DynamicCache(config=self._model.config)
        tokens = torch.tensor([self.prompts.opening], device=self.device)
        mask = torch.ones_like(tokens, dtype=torch.bool)
        self._hidden(self._model.get_input_embeddings()(tokens), mask, positions_of(mask), cache)
        cache.batch_repeat_interleave(B)
        return cache

    def _hidden(self, inputs: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        hidden: Tensor = self._model.model(
            inputs_embeds=inputs,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            **{_CACHE_ARGUMENT: cache},
        ).last_hidden_state
        return hidden

    def _next_tokens(self, inputs: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        hidden = self._hidden(inputs, mask, positions, cache)
        logits: Tensor = self._model.lm_head(hidden[:, -1])
        return logits.float().masked_fill(self._forbidden, float("-inf")).argmax(dim=-1)

    def _draft(self, ids: list[int], limit: int) -> Draft:
        text = self.prompts.decode(ids)
        findings, impression = split_sections(text)
        ended = bool(ids) and ids[-1] in self.prompts.stop_ids
        return Draft(
            text=text,
            findings=findings,
            impression=impression,
            generated_tokens=len(ids),
            finish="eos" if ended else "length",
        )


def embed_rows(
    language_model: nn.Module,
    layouts: Sequence[PromptTokens],
    visual: Tensor,
    targets: Sequence[Sequence[int]] | None = None,
) -> list[Tensor]:
    """Lay prompts out as embeddings: text, visual tokens, text and, in training, the report.

    Args:
        language_model: Gives the embedding table.
        layouts: One a study, ``B``.
        visual: Projected visual tokens, ``(B, N, H)``.
        targets: Ids of the reference reports, one list a study.

    Returns:
        ``B`` rows ``(L_i, H)`` in the language model's type; gradients reach ``visual``.
    """
    embed = cast(Any, language_model).get_input_embeddings()
    reports: Sequence[Sequence[int]] = [()] * len(layouts) if targets is None else targets
    rows = []
    for layout, tokens, report in zip(layouts, visual, reports, strict=True):
        before = torch.tensor(layout.before_image, device=tokens.device)
        after = torch.tensor([*layout.after_image, *report], device=tokens.device)
        rows.append(torch.cat([embed(before), tokens.to(embed.weight.dtype), embed(after)]))
    return rows


def pad_left(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack rows ``(L_i, H)`` into ``(B, L, H)`` with zeros in front, and say where the rows are."""
    longest = max(len(row) for row in rows)
    padded = torch.stack([functional.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows], device=padded.device)
    mask = torch.arange(longest, device=padded.device) >= (longest - lengths)[:, None]
    return padded, mask


def pad_right(rows: Sequence[Tensor], targets: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Stack rows that end in a report for training, with zeros behind.

    Behind, not in front: a causal model's real tokens never look at what follows them, so no mask is needed,
    and no query is without a key, for which CUDA's masked attention gives gradients that are not finite.

    Args:
        rows: Of ``embed_rows`` with targets, ``(L_i, H)``.
        targets: Ids of the reports that the rows end in.

    Returns:
        Embeddings ``(B, L, H)``, and the token at each place of a report ``(B, L)``, ``IGNORED`` elsewhere.
    """
    padded = pad_sequence(list(rows), batch_first=True)
    wanted = torch.full(padded.shape[:2], IGNORED, dtype=torch.long)
    for i, (row, report) in enumerate(zip(rows, targets, strict=True)):
        wanted[i, len(row) - len(report) : len(row)] = torch.tensor(report, dtype=torch.long)
    return padded, wanted.to(padded.device)


def positions_of(mask: Tensor) -> Tensor:
    """Position of each token among the real ones, ``(B, L)``; padding counts as position 0."""
    return (mask.long().cumsum(dim=-1) - 1).clamp(min=0)


def language_model_loss(language_model: nn.Module, embeddings: Tensor, targets: Tensor) -> Tensor:
    r"""Loss of writing the reference report (Eq. 9); prompt and visual positions carry none.

    .. math:: L_{LM} = -\sum_t \log p_\theta(r_t \mid P_{ret}, H_{vis}, r_{<t})

    Averaged over the target tokens, so that it does not grow with the batch. Only positions that
    predict a target go through the output head: with 100,352 words the rest would cost most.

    Args:
        language_model: A Phi-3-architecture causal model.
        embeddings: Prompt, visual tokens and report, padded behind (``pad_right``), ``(B, L, H)``.
        targets: Token at each place of the report, ``(B, L)``; ``IGNORED`` elsewhere.

    Raises:
        ValueError: If there is no target.
    """
    wanted = targets[:, 1:] != IGNORED
    if not wanted.any():
        raise ValueError("no position has a target token")
    network = cast(Any, language_model)
    hidden = network.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    logits = network.lm_head(hidden[:, :-1][wanted])
    return functional.cross_entropy(logits.float(), targets[:, 1:][wanted])
