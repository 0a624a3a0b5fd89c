"""Contact sheets: many films at a glance, each over its labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.pathologies import Pathology
from training.datasets.phantom.study import PhantomStudy, iterate

_CAPTION = 36


def _short(pathology: Pathology) -> str:
    words = pathology.label.split()
    return words[0][:9] if len(words) == 1 else words[0][:5] + " " + words[1][:7]


def _caption(study: PhantomStudy) -> tuple[str, str]:
    names = [_short(p) for p, present in study.labels.items() if present]
    half = (len(names) + 1) // 2 if len(names) > 3 else len(names)
    return ", ".join(names[:half]), ", ".join(names[half:])


def draw_sheet(out: Path, *, seed: int, n: int, size: int, columns: int, outlines: bool = False) -> None:
    """Write a PNG of the first ``n`` studies of a seed.

    Args:
        out: File to write; its folder must exist.
        seed: Seed of the studies.
        n: Number of films.
        size: Side of each film, pixels.
        columns: Films in a row.
        outlines: Draw the outline of each lesion mask in colour.

    Raises:
        ValueError: If the file cannot be written.
    """
    import cv2

    tiles = []
    for study in iterate(seed, n, size):
        grey = (study.image * 255).astype(np.uint8)
        tile = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
        if outlines:
            for pathology, mask in study.masks.items():
                if pathology is Pathology.LUNG_OPACITY:
                    continue  # the union of others
                found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
                cv2.drawContours(tile, found, -1, (0, 200, 255), 1, cv2.LINE_AA)
        bar = np.zeros((_CAPTION, size, 3), np.uint8)
        scale = 0.42 * min(1.0, size / 256)
        for row, text in enumerate(
            (f"{study.case.index} {study.case.projection} {_caption(study)[0]}", _caption(study)[1])
        ):
            cv2.putText(
                bar,
                text,
                (3, 13 + 15 * row),
                cv2.FONT_HERSHEY_SIMPLEX,
                scale,
                (235, 235, 235),
                1,
                cv2.LINE_AA,
            )
        tiles.append(np.concatenate((tile, bar)))
    while len(tiles) % columns:
        tiles.append(np.zeros_like(tiles[0]))
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    if not cv2.imwrite(str(out), np.concatenate(rows)):
        raise ValueError(f"cannot write an image to {out}; name a .png in a folder that exists")
