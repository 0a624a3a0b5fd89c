"""Every notebook of docs/notebooks runs from top to bottom against a filled database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from tests.filled import Filled

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "docs" / "notebooks").glob("*.ipynb"))


@pytest.fixture
def _no_screen() -> Iterator[None]:
    import matplotlib.pyplot as plt

    before = mpl.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(before)


def _cells(notebook: Path) -> list[dict[str, Any]]:
    stored = json.loads(notebook.read_text())
    assert (stored["nbformat"], stored["nbformat_minor"]) == (4, 5)
    return list(stored["cells"])


@pytest.mark.usefixtures("_no_screen")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_and_answers(filled: Filled, notebook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt

    monkeypatch.setenv("NIGHTREAD_DATABASE__ANALYST_URL", filled.analyst_url)
    names: dict[str, Any] = {}
    for number, cell in enumerate(_cells(notebook)):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{notebook.name}:cell {number}", "exec"), names)
    names["engine"].dispose()
    assert len(plt.get_fignums()) == 3
    assert names["states"]["studies"].sum() == filled.filling.studies
    assert set(names["states"]["lane"]) == {"stat", "routine", "backfill"}
    assert ((names["share"] > 0) & (names["share"] < 1)).all()
    assert names["correlation"].shape == (14, 14)
    assert names["correlation"].loc["lung_opacity", "no_finding"] < 0
    assert list(names["similar"]["rank"]) == [1, 2, 3, 4, 5]


def test_there_is_a_notebook_and_none_is_stored_with_outputs() -> None:
    assert NOTEBOOKS
    for notebook in NOTEBOOKS:
        cells = _cells(notebook)
        assert len({cell["id"] for cell in cells}) == len(cells)
        for cell in cells:
            assert cell.get("outputs", []) == []
            assert cell.get("execution_count") is None
