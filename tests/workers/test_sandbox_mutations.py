"""Damaged files, by the thousand: each gives a picture or a code, never another error."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from models.radiograph.reasons import REASONS, Refused
from tests.dicom_cases.files import CASES
from tests.dicom_cases.radiographs import drawn_chest, every_storage, store
from workers.sandbox import Sandbox

DAMAGE = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xfe\xff\x00\xe0", b"\xff\xff", b"\0\0\0\x80")
RENDERINGS = ("voi-v1", "voi-v1-j2k-reduced", "mimic-jpg-v1")


def small_files() -> list[bytes]:
    """Every ninth storage of a small picture, and every odd file."""
    picture = drawn_chest(0, 160, 150)
    stored = [store(picture, storage) for storage in list(every_storage())[::9]]
    return stored + [case.make() for case in CASES.values()]


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, removed, put in or copied, most often in the header."""
    file = bytearray(whole)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(min(len(file), rng.choice((300, 700, 1500, len(file)))))
        match rng.randrange(6):
            case 0:
                file[place] = rng.randrange(256)
            case 1:
                file[place : place + 4] = rng.choice(DAMAGE)
            case 2:
                del file[place : place + rng.randrange(1, 64)]
            case 3:
                file[place:place] = rng.randbytes(rng.randrange(1, 16))
            case 4:
                other = rng.randrange(len(file))
                file[place : place + 8] = file[other : other + 8]
            case _:
                del file[max(place, len(file) // 2) :]
    return bytes(file)


def outcomes(seed: int, count: int, path: Path) -> Counter[str]:
    rng, files, found = random.Random(seed), small_files(), Counter[str]()
    with Sandbox() as sandbox:
        for number in range(count):
            path.write_bytes(damaged(rng.choice(files), rng))
            try:
                sandbox.read_header(path)
                sandbox.render(path, RENDERINGS[number % 3])
                found["read"] += 1
            except Refused as refusal:
                found[refusal.code] += 1
    return found


def test_damaged_files_give_a_picture_or_a_code(tmp_path: Path) -> None:
    found = outcomes(0, 200, tmp_path / "damaged.dcm")
    assert set(found) <= {"read", *REASONS}
    assert len(found) > 5
    assert 20 < found["read"] < 180


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_thousands_of_damaged_files_give_a_picture_or_a_code(seed: int, tmp_path: Path) -> None:
    found = outcomes(seed, 1000, tmp_path / "damaged.dcm")
    assert set(found) <= {"read", *REASONS}
    assert found["sandbox_crashed"] + found["sandbox_timeout"] == 0
