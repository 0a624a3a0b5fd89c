"""The table of stages in words and as a drawing: ``python -m orchestration.describe`` prints both.

``docs/architecture.md`` holds what this prints, between two marks, and a test keeps them equal.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from orchestration import pipeline
from workers.runtime import Unit

BEGIN, END = "<!-- begin: python -m orchestration.describe -->", "<!-- end -->"
_WORKERS = Path(__file__).resolve().parent.parent / "workers"


def purpose(stage: str) -> str:
    """What a stage is for: the first line of its module, which is read and not imported (torch is slow)."""
    document = ast.get_docstring(ast.parse((_WORKERS / f"{stage}.py").read_text(encoding="utf-8"))) or ""
    return document.partition("\n")[0].partition(": ")[2]


def describe() -> str:
    """The block between the marks, marks included."""
    return "\n".join([BEGIN, "", *_drawing(), "", *_stages(), "", *_ticks(), "", END])


def _drawing() -> Iterator[str]:
    yield from (
        "```mermaid",
        "flowchart TD",
        "    bucket[(bucket studies)] -- webhook --> receiver",
        "    bucket -- listing --> sweep",
    )
    yield f"    receiver -- object and step --> {pipeline.FIRST_OBJECT_STAGE}"
    yield f"    sweep -- object and step --> {pipeline.FIRST_OBJECT_STAGE}"
    yield f"    {pipeline.FIRST_OBJECT_STAGE} -- instance --> study([study in its quiet period])"
    yield f"    study -- settle makes a reading --> {pipeline.FIRST_READING_STAGE}"
    for stage in pipeline.STAGES:
        if stage.next:
            yield f"    {stage.name} --> {stage.next}"
    (last,) = (s for s in pipeline.STAGES if s.next is None and s.unit is Unit.READING)
    yield f"    {last.name} --> worklist[(worklist)]"
    yield f"    people([people and schedules]) -- job --> {pipeline.JOB_STAGE}"
    yield f"    {pipeline.JOB_STAGE} -- release and index version --> active[(active pair)]"
    yield "```"


def _stages() -> Iterator[str]:
    return _table(
        ("stage", "what it does", "a step is about", "batch", "lease", "limit", "accelerator", "next"),
        (
            (
                f"`{stage.name}`",
                purpose(stage.name),
                stage.unit,
                stage.batch,
                f"{stage.lease_s:g} s",
                _span(stage.time_limit_s),
                "yes" if stage.accelerator else "no",
                f"`{stage.next}`" if stage.next else "",
            )
            for stage in pipeline.STAGES
        ),
    )


def _span(seconds: int) -> str:
    days, rest = divmod(seconds, 24 * 3600)
    return f"{days} days" if days and not rest else f"{seconds} s"


def _ticks() -> Iterator[str]:
    return _table(
        ("tick", "what it does", "every"),
        ((f"`{tick.name}`", tick.purpose, f"{tick.every_s:g} s") for tick in pipeline.TICKS),
    )


def _table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    cells = list(head)
    yield f"| {' | '.join(map(str, cells))} |"
    yield f"|{'---|' * len(cells)}"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"


if __name__ == "__main__":
    print(describe())
