"""Figure 3: the configurations' drafts beside the reference, with the phrases that match it word for word."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.ablation import RESULT
from training.datasets.common import DatasetError, Item
from training.datasets.images import Images

SHORTEST_PHRASE = 3
"""Words; a shorter match is chance."""

_WORD = re.compile(r"[A-Za-z0-9.]*[A-Za-z0-9]")
_STYLE = (
    "body{font:15px/1.45 sans-serif;margin:2rem;max-width:75rem}"
    "section{border-top:1px solid #bbb;padding:1rem 0}"
    "img{float:right;width:14rem;margin-left:1rem;background:#000}mark{background:#bde5b8}dt{font-weight:600}"
    "dd{margin:0 0 .6rem}"
)


def matched_spans(draft: str, reference: str, shortest: int = SHORTEST_PHRASE) -> list[tuple[int, int]]:
    """Where a draft repeats phrases of the reference word for word, case aside; character spans, in order."""
    found = list(_WORD.finditer(draft))
    words = [match.group().lower() for match in found]
    wanted = [match.group().lower() for match in _WORD.finditer(reference)]
    phrases = {tuple(wanted[i : i + shortest]) for i in range(len(wanted) - shortest + 1)}
    is_matched = [False] * len(words)
    for i in range(len(words) - shortest + 1):
        if tuple(words[i : i + shortest]) in phrases:
            is_matched[i : i + shortest] = [True] * shortest
    spans: list[tuple[int, int]] = []
    for i, matched in enumerate(is_matched):
        if matched and i and is_matched[i - 1]:
            spans[-1] = (spans[-1][0], found[i].end())
        elif matched:
            spans.append(found[i].span())
    return spans


def marked(draft: str, reference: str) -> str:
    """The draft as HTML with its matching phrases in ``<mark>``."""
    parts, end = [], 0
    for start, stop in matched_spans(draft, reference):
        parts += [html.escape(draft[end:start]), "<mark>", html.escape(draft[start:stop]), "</mark>"]
        end = stop
    return "".join([*parts, html.escape(draft[end:])])


def read_drafts(folder: Path, seed: int = 0) -> dict[str, dict[str, str]]:
    """Drafts of an ablation by configuration and study.

    Raises:
        DatasetError: If the folder holds no finished configuration of that seed.
    """
    drafts = {}
    for file in sorted(folder.glob(f"*-{seed}/{RESULT}")):
        content = json.loads(file.read_text(encoding="utf-8"))
        drafts[content["row"]] = {line["id"]: line["draft"] for line in content["drafts"]}
    if not drafts:
        raise DatasetError(
            f"{folder} holds no finished ablation of seed {seed}; run `nightread train ablation`"
        )
    return drafts


def figure_html(
    items: Sequence[Item], images: Images | None, drafts: Mapping[str, Mapping[str, str]], note: str = ""
) -> str:
    """One section a study: image, reference, and each configuration's draft."""
    sections = []
    for place, item in enumerate(items):
        picture = "" if images is None else f'<img alt="" src="data:image/png;base64,{_png(images[place])}">'
        rows = "".join(
            f"<dt>{html.escape(name)}</dt><dd>{marked(texts[item.id], item.report)}</dd>"
            for name, texts in drafts.items()
            if item.id in texts
        )
        sections.append(
            f"<section>{picture}<dl><dt>reference</dt><dd>{html.escape(item.report)}</dd>{rows}</dl></section>"
        )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Drafts by configuration</title>'
        f"<style>{_STYLE}</style><h1>Drafts by configuration</h1><p>Marked: at least {SHORTEST_PHRASE} words "
        f"in a row as in the reference. {html.escape(note)}</p>{''.join(sections)}</html>\n"
    )


def _png(image: Images) -> str:
    import cv2

    _, encoded = cv2.imencode(".png", image)
    return base64.b64encode(encoded.tobytes()).decode()
