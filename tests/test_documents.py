"""What the documents say of the code is so."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration import pipeline
from orchestration.describe import BEGIN, END, describe, purpose
from orchestration.settings import OTHER_NAMES, known_names

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("orchestration", "workers", "training", "models", "db", "migrations", "tests")
OURS = (
    PROJECT / "docs" / "architecture.md",
    PROJECT / "docs" / "glossary.md",
    *sorted((PROJECT / "docs" / "decisions").glob("*.md")),
    *(PROJECT / name / "README.md" for name in PACKAGES),
)
NAMES = [str(path.relative_to(PROJECT)) for path in OURS]


@pytest.fixture(params=OURS, ids=NAMES)
def document(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def _in_backticks(text: str) -> Iterator[str]:
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))


def test_the_drawing_and_tables_of_the_architecture_are_those_of_the_pipeline() -> None:
    text = (PROJECT / "docs" / "architecture.md").read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    block = text[text.index(BEGIN) : text.index(END) + len(END)]
    assert block == describe(), "put the output of `python -m orchestration.describe` into architecture.md"


def test_the_drawing_goes_through_every_stage_once() -> None:
    drawing = describe().partition("```mermaid")[2].partition("```")[0]
    for stage in pipeline.STAGES:
        onward = [line for line in drawing.splitlines() if line.strip().startswith(f"{stage.name} -")]
        assert len(onward) == 1, stage.name
    assert " --> worklist[(worklist)]" in drawing


def test_every_stage_says_what_it_is_for() -> None:
    for stage in pipeline.STAGES:
        assert purpose(stage.name).endswith("."), stage.name


def test_every_package_opens_with_a_readme() -> None:
    for name in PACKAGES:
        assert (PROJECT / name / "README.md").read_text().startswith(f"# {name}\n")


def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        assert "://" in target or (document.parent / target).exists(), target


def test_every_file_that_is_named_exists(document: Path) -> None:
    # A name stands below the project, below the document's own folder, or is a module of orchestration.
    for name in _in_backticks(document.read_text()):
        if re.fullmatch(r"[\w./-]+(\.(py|sql|sh|yml|toml|txt)|/)", name):
            beside = [root / name for root in (PROJECT, document.parent, PROJECT / "orchestration")]
            assert any(path.exists() for path in beside), name


def test_every_variable_that_is_named_is_a_setting(document: Path) -> None:
    known = set(known_names()) | OTHER_NAMES
    for name in re.findall(r"NIGHTREAD_[A-Z_]+", document.read_text()):
        assert name in known, name


def test_every_readme_names_the_modules_of_its_package() -> None:
    # New modules find their place in the README with the commit that brings them.
    for package in ("orchestration", "workers", "db"):
        text = (PROJECT / package / "README.md").read_text()
        for module in sorted((PROJECT / package).glob("*.py")):
            if module.name != "__init__.py":
                assert f"`{module.name}`" in text, f"{package}/README.md lacks {module.name}"


def _celery_settings() -> set[str]:
    """Names of the settings that ``make_app`` gives to Celery and to its transport."""
    tree = ast.parse((PROJECT / "orchestration" / "app.py").read_text())
    found: set[str] = set()
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or ast.unparse(call.func) != "app.conf.update":
            continue
        for keyword in call.keywords:
            assert keyword.arg is not None
            found.add(keyword.arg)
            if keyword.arg == "broker_transport_options":
                assert isinstance(keyword.value, ast.Dict)
                found |= {ast.literal_eval(key) for key in keyword.value.keys if key is not None}
    return found


def test_the_record_about_celery_gives_a_reason_for_every_setting() -> None:
    told = set(_in_backticks((PROJECT / "docs" / "decisions" / "celery.md").read_text()))
    settings = _celery_settings()
    assert len(settings) > 20
    assert settings <= told, sorted(settings - told)


def test_the_record_about_dependencies_names_every_one() -> None:
    text = (PROJECT / "docs" / "decisions" / "dependencies.md").read_text()
    with (PROJECT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    small = {"numpy"}  # torch brings it
    needed = [re.split(r"[<>=\[; ]", one)[0] for one in project["dependencies"]]
    needed += [re.split(r"[<>=\[; ]", one)[0] for one in project["optional-dependencies"]["cuda"]]
    assert len(needed) > 25
    for name in needed:
        assert name in text or name in small, name


def test_glossary_words_are_explained_once() -> None:
    words = re.findall(r"^\| ([^|]+) \|", (PROJECT / "docs" / "glossary.md").read_text(), flags=re.M)
    assert len(words) == len(set(words)) > 30
