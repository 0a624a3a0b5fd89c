"""Decides what is true of each study: who the patient is, what is found, which devices are in place.

The clinical pictures and their chances stand at the top; change them there to change the mix of studies.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterator

from models.pathologies import PATHOLOGIES, Pathology
from training.datasets.phantom.case import (
    BLOCK,
    IMPLIES_OPACITY,
    Case,
    Device,
    DeviceKind,
    Finding,
    Patient,
    Side,
    Zone,
    stream,
)

P = Pathology

_PARTITIONS = (
    (1, 1, 1, 1, 1, 1, 1, 1),
    (1, 2, 1, 1, 1, 1, 1),
    (1, 1, 1, 2, 1, 1, 1),
    (1, 3, 1, 1, 1, 1),
    (2, 1, 1, 1, 2, 1),
    (1, 1, 4, 1, 1),
    (1, 2, 3, 1, 1),
)
"""Ways to divide a block: the number of studies of each patient in turn."""


# Weight, then the probability of each finding given the clinical picture. The pictures make findings
# keep company as they do on a ward: oedema with a large heart and effusions, a chest tube with air.
_PICTURES: tuple[tuple[float, dict[Pathology, float]], ...] = (
    (0.27, {P.SUPPORT_DEVICES: 0.09}),
    (
        0.15,
        {
            P.CARDIOMEGALY: 1.0,
            P.EDEMA: 0.68,
            P.PLEURAL_EFFUSION: 0.55,
            P.ATELECTASIS: 0.2,
            P.SUPPORT_DEVICES: 0.3,
        },
    ),
    (0.13, {P.PNEUMONIA: 1.0, P.CONSOLIDATION: 0.5, P.PLEURAL_EFFUSION: 0.22, P.SUPPORT_DEVICES: 0.12}),
    (0.09, {P.FRACTURE: 1.0, P.PNEUMOTHORAX: 0.35, P.PLEURAL_EFFUSION: 0.15, P.LUNG_OPACITY: 0.12}),
    (
        0.09,
        {
            P.LUNG_LESION: 1.0,
            P.PLEURAL_EFFUSION: 0.2,
            P.ENLARGED_CARDIOMEDIASTINUM: 0.2,
            P.SUPPORT_DEVICES: 0.25,
        },
    ),
    (
        0.10,
        {
            P.SUPPORT_DEVICES: 1.0,
            P.ATELECTASIS: 0.5,
            P.PLEURAL_EFFUSION: 0.4,
            P.EDEMA: 0.25,
            P.CONSOLIDATION: 0.25,
            P.CARDIOMEGALY: 0.2,
            P.PNEUMOTHORAX: 0.15,
        },
    ),
    (0.06, {P.PNEUMOTHORAX: 1.0, P.SUPPORT_DEVICES: 0.5}),
    (0.06, {P.PLEURAL_OTHER: 1.0, P.FRACTURE: 0.15, P.PLEURAL_EFFUSION: 0.12}),
    (0.05, {P.ENLARGED_CARDIOMEDIASTINUM: 1.0, P.CARDIOMEGALY: 0.25, P.PLEURAL_EFFUSION: 0.2}),
)

# Chance companions of any sick picture, so that every pair of findings occurs.
_SPORADIC: dict[Pathology, float] = {
    P.FRACTURE: 0.035,
    P.LUNG_LESION: 0.04,
    P.PLEURAL_OTHER: 0.06,
    P.ENLARGED_CARDIOMEDIASTINUM: 0.045,
    P.ATELECTASIS: 0.08,
    P.LUNG_OPACITY: 0.05,
    P.CARDIOMEGALY: 0.05,
    P.CONSOLIDATION: 0.04,
    P.PNEUMOTHORAX: 0.02,
    P.SUPPORT_DEVICES: 0.06,
}

_FORMS: dict[Pathology, tuple[str, ...]] = {
    P.ENLARGED_CARDIOMEDIASTINUM: ("widened",),
    P.CARDIOMEGALY: ("enlarged",),
    P.LUNG_LESION: ("nodule", "nodule", "mass", "mass", "nodules"),
    P.LUNG_OPACITY: ("hazy",),
    P.EDEMA: ("interstitial", "alveolar"),
    P.CONSOLIDATION: ("dense",),
    P.PNEUMONIA: ("patchy",),
    P.ATELECTASIS: ("bands", "bands", "lobar"),
    P.PNEUMOTHORAX: ("apical", "lateral"),
    P.PLEURAL_EFFUSION: ("meniscus",),
    P.PLEURAL_OTHER: ("apical", "lateral", "plaque"),
    P.FRACTURE: ("rib", "rib", "rib", "clavicle"),
}

_HEDGED: dict[Pathology, float] = {
    P.PNEUMONIA: 0.3,
    P.ATELECTASIS: 0.2,
    P.CONSOLIDATION: 0.15,
    P.EDEMA: 0.15,
    P.LUNG_LESION: 0.12,
    P.PLEURAL_EFFUSION: 0.08,
    P.PLEURAL_OTHER: 0.1,
}


def _patient_of(seed: int, index: int) -> tuple[int, int, int]:
    """Block, patient within the block, and which of the patient's studies this is."""
    block, place = divmod(index, BLOCK)
    parts = list(stream(seed, block, "block").choice(_PARTITIONS))
    stream(seed, block, "order").shuffle(parts)
    for patient, studies in enumerate(parts):
        if place < studies:
            return block, patient, place
        place -= studies
    raise AssertionError("a partition of a block has fewer studies than the block")


_GIVEN_F = ("Ada", "Bea", "Cleo", "Dora", "Edda", "Fern", "Gwen", "Hilda", "Iris", "Juno", "Kaia", "Lena")
_GIVEN_M = ("Abel", "Bert", "Cyril", "Dov", "Egon", "Finn", "Gus", "Hugo", "Ivo", "Jory", "Kit", "Leif")
_FAMILY = (
    "Gauze",
    "Lantern",
    "Plumb",
    "Tinfoil",
    "Papier",
    "Wicker",
    "Beeswax",
    "Celluloid",
    "Cork",
    "Balsa",
)


def _sample_patient(seed: int, block: int, number: int) -> Patient:
    rng = stream(seed, block * BLOCK + number, "patient")
    sex = rng.choice(("F", "M"))
    given = rng.choice(_GIVEN_F if sex == "F" else _GIVEN_M)
    born = datetime.date(1933, 1, 1) + datetime.timedelta(days=rng.randrange(365 * 70))
    return Patient(
        patient_id=f"PH{seed}-{block:05d}{number}",
        name=f"Phantom-{rng.choice(_FAMILY)}^{given}",
        sex=sex,
        birth_date=born,
        habitus=rng.betavariate(2.2, 2.2),
        seed=rng.getrandbits(48),
    )


def _choose(rng: random.Random) -> tuple[int, set[Pathology]]:
    picture = rng.choices(range(len(_PICTURES)), weights=[weight for weight, _ in _PICTURES])[0]
    chances = _PICTURES[picture][1]
    present = {p for p in PATHOLOGIES if rng.random() < chances.get(p, 0.0)}
    if picture:
        present |= {p for p, chance in _SPORADIC.items() if rng.random() < chance}
    if present & set(IMPLIES_OPACITY):
        present.discard(P.LUNG_OPACITY)  # implied by the children; a finding of its own only when alone
    return picture, present


def _free_side(rng: random.Random, air: Side | None, used: frozenset[Side] | set[Side] = frozenset()) -> Side:
    """A side without air in the pleura, and without an earlier opacity where there is a choice."""
    allowed = [side for side in (Side.RIGHT, Side.LEFT) if side is not air]
    return rng.choice([side for side in allowed if side not in used] or allowed)


def _sample_finding(rng: random.Random, pathology: Pathology, air: Side | None, used: set[Side]) -> Finding:
    """Draw side, place and size of a finding.

    Args:
        air: The side of a pneumothorax. Other findings of the lung and the pleura avoid it, because a
            collapsed lung shows them differently.
        used: Sides of focal opacities already placed; a second kind prefers the other lung, so that two
            labels rarely share one shadow.
    """
    form = rng.choice(_FORMS[pathology])
    severity = rng.random()
    zone = rng.choice((Zone.UPPER, Zone.MIDDLE, Zone.LOWER, Zone.LOWER))
    side = rng.choice((Side.RIGHT, Side.LEFT))
    size_mm = 0.0
    ribs: tuple[int, ...] = ()
    match pathology:
        case P.EDEMA:
            side = Side.BOTH
            form = "alveolar" if severity > 0.55 else "interstitial"
        case P.CARDIOMEGALY | P.ENLARGED_CARDIOMEDIASTINUM:
            side = Side.BOTH
        case P.PLEURAL_EFFUSION:
            side = Side.BOTH if air is None and rng.random() < 0.3 else _free_side(rng, air)
            zone = Zone.LOWER
        case P.PLEURAL_OTHER:
            zone = {"apical": Zone.UPPER, "lateral": Zone.MIDDLE}.get(form, Zone.LOWER)
            both = form == "apical" and air is None and rng.random() < 0.4
            side = Side.BOTH if both else _free_side(rng, air)
        case P.LUNG_LESION:
            side = Side.BOTH if form == "nodules" and air is None else _free_side(rng, air)
            form = "nodule" if form == "nodules" and air is not None else form
            size_mm = round(34 + 36 * severity) if form == "mass" else round(14 + 14 * severity)
        case P.ATELECTASIS:
            both = form == "bands" and air is None and rng.random() < 0.35
            side = Side.BOTH if both else _free_side(rng, air, used)
            zone = Zone.LOWER if form == "bands" else rng.choice((Zone.UPPER, Zone.LOWER, Zone.LOWER))
        case P.CONSOLIDATION | P.PNEUMONIA | P.LUNG_OPACITY:
            side = _free_side(rng, air, used)
        case P.FRACTURE:
            if form == "rib":
                first = rng.randint(3, 7)
                ribs = tuple(range(first, first + rng.choice((1, 1, 2, 3))))
        case P.PNEUMOTHORAX:
            zone = Zone.UPPER
            form = "lateral" if severity > 0.45 else "apical"
    hedge = _HEDGED.get(pathology, 0.0) * (1.6 if severity < 0.35 else 0.7)
    return Finding(
        pathology=pathology,
        form=form,
        side=side,
        zone=zone,
        severity=severity,
        uncertain=rng.random() < hedge,
        size_mm=size_mm,
        ribs=ribs,
        seed=rng.getrandbits(48),
    )


def _sample_devices(rng: random.Random, picture: int, air: Side | None) -> tuple[Device, ...]:
    D = DeviceKind
    if air is not None and rng.random() < 0.75:
        kinds = {D.CHEST_TUBE}
    elif picture == 5:
        kinds = {
            D.ENDOTRACHEAL_TUBE,
            *rng.sample((D.ENTERIC_TUBE, D.JUGULAR_LINE, D.PICC), rng.randint(1, 2)),
        }
        if rng.random() < 0.3:
            kinds.discard(D.ENDOTRACHEAL_TUBE)
    elif picture == 1:
        kinds = {rng.choice((D.PACEMAKER, D.PACEMAKER, D.VALVE, D.JUGULAR_LINE))}
    elif picture == 4:
        kinds = {rng.choice((D.PORT, D.PORT, D.PICC))}
    else:
        kinds = {rng.choice((D.PACEMAKER, D.PORT, D.PICC, D.JUGULAR_LINE, D.VALVE))}
    devices = []
    for kind in D:
        if kind not in kinds:
            continue
        side = rng.choice((Side.RIGHT, Side.RIGHT, Side.LEFT))
        if kind is D.PACEMAKER:
            side = rng.choice((Side.LEFT, Side.LEFT, Side.LEFT, Side.RIGHT))
        if kind is D.CHEST_TUBE and air is not None:
            side = air
        tip = float(rng.randint(20, 65)) if kind is D.ENDOTRACHEAL_TUBE else 0.0
        devices.append(Device(kind=kind, side=side, tip_mm=tip, seed=rng.getrandbits(48)))
    return tuple(devices)


def _label(findings: tuple[Finding, ...], devices: tuple[Device, ...]) -> dict[Pathology, int]:
    labels = {p: int(any(f.pathology == p for f in findings)) for p in PATHOLOGIES}
    labels[P.SUPPORT_DEVICES] = int(bool(devices))
    labels[P.LUNG_OPACITY] |= int(any(labels[p] for p in IMPLIES_OPACITY))
    labels[P.NO_FINDING] = int(not findings)
    return labels


def sample_case(seed: int, index: int) -> Case:
    """Decide what is true of study ``index`` of ``seed``.

    Raises:
        ValueError: If the index is negative.
    """
    if index < 0:
        raise ValueError(f"a study index starts at 0, not {index}")
    block, number, visit = _patient_of(seed, index)
    patient = _sample_patient(seed, block, number)
    rng = stream(seed, index, "case")
    picture, present = _choose(rng)
    air: Side | None = None
    used: set[Side] = set()
    findings: list[Finding] = []
    # The pneumothorax is placed first, because the others give way to it.
    for pathology in sorted(present - {P.SUPPORT_DEVICES}, key=lambda p: (p != P.PNEUMOTHORAX, p.value)):
        finding = _sample_finding(rng, pathology, air, used)
        findings.append(finding)
        if pathology is P.PNEUMOTHORAX:
            air = finding.side
        if pathology in (P.CONSOLIDATION, P.ATELECTASIS, P.PNEUMONIA, P.LUNG_OPACITY):
            used.add(finding.side)
    devices = _sample_devices(rng, picture, air) if P.SUPPORT_DEVICES in present else ()
    bedside = 0.75 if picture == 5 else 0.25
    first_visit = datetime.date(2024, 1, 1) + datetime.timedelta(days=patient.seed % 500)
    ordered = tuple(sorted(findings, key=lambda f: PATHOLOGIES.index(f.pathology)))
    projection = "AP" if rng.random() < bedside else "PA"
    return Case(
        seed=seed,
        index=index,
        patient=patient,
        study_date=first_visit + datetime.timedelta(days=visit * 41 + rng.randrange(30)),
        study_time=datetime.time(rng.randrange(24), rng.randrange(60), rng.randrange(60)),
        projection=projection,
        has_lateral=projection == "PA" and rng.random() < 0.3,
        findings=ordered,
        devices=devices,
        labels=_label(ordered, devices),
    )


def cases(seed: int, n: int) -> Iterator[Case]:
    """The first ``n`` cases of a seed."""
    return (sample_case(seed, index) for index in range(n))
