"""Draws the frontal film of a case and the masks of what it shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.pathologies import Pathology
from training.datasets.phantom import film
from training.datasets.phantom.anatomy import begin
from training.datasets.phantom.case import Case
from training.datasets.phantom.devices import draw_device
from training.datasets.phantom.geometry import Floats, resize
from training.datasets.phantom.lesions import draw_finding
from training.datasets.phantom.skeleton import draw_bones

LARGEST_WORK = 1024
"""Larger films are drawn at this size and enlarged before noise is added: 0.4 mm a pixel, the unsharpness
of a real tube, and four times fewer pixels for a 2,048 px film."""

_AIR = np.float32(0.40)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A film and the truth about it."""

    image: Floats
    """``(size, size)``, 0 black to 1 white, dense structures bright."""
    masks: dict[Pathology, NDArray[np.bool_]]
    """Where each drawn pathology is, ``(size, size)``. Lung Opacity is the union of its children."""


def draw_frontal(case: Case, size: int) -> Drawing:
    """Draw the frontal film of a case.

    Raises:
        ValueError: If the size is below 64 pixels.
    """
    if size < 64:
        raise ValueError(f"a film needs at least 64 pixels a side, not {size}")
    exposure = film.sample_exposure(case)
    work = min(size, LARGEST_WORK)
    frame = film.make_frame(exposure, work)
    chest = begin(case, frame)
    for finding in case.findings:
        draw_finding(chest, finding)
    draw_bones(chest)
    for device in case.devices:
        draw_device(chest, device)
    attenuation = chest.tissue - _AIR * chest.air + chest.vessels * chest.air + chest.bone + chest.extra
    attenuation = attenuation + 1.2 * film.marker(frame, case)
    image = film.expose(attenuation, chest.metal, exposure, chest.noise, size)
    image = film.collimate(image, exposure)
    masks = chest.masks
    if work != size:
        masks = {p: np.asarray(resize(mask.astype(np.uint8), size)) > 0 for p, mask in masks.items()}
    return Drawing(image=image, masks=masks)
