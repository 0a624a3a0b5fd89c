"""The command line's front: the printed table is the truth, quick, and errors are one sentence."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import typer

from orchestration import cli
from orchestration.cli import GROUPS, NOUNS, VERBS, main, module_of

PRESENT_VERBS = [name for name in VERBS if module_of(name)]
PRESENT_NOUNS = [name for name in NOUNS if module_of(name)]


def _group(name: str) -> typer.core.TyperGroup:
    module = importlib.import_module(f"orchestration.cli.{module_of(name)}")
    return typer.main.get_group(module.app)


def test_every_command_stands_in_one_group_of_the_help() -> None:
    listed = [name for _, names in GROUPS for name in names]
    assert sorted(listed) == sorted([*VERBS, *NOUNS])


@pytest.mark.parametrize("verb", PRESENT_VERBS)
def test_the_help_says_of_a_verb_what_the_command_itself_says(verb: str) -> None:
    command = _group(verb).commands[verb]
    first_line = (command.help or "").strip().splitlines()[0]
    assert first_line.startswith(VERBS[verb][1].removesuffix("."))
    assert "Example:" in (command.help or "")


@pytest.mark.parametrize("noun", PRESENT_NOUNS)
def test_every_noun_of_the_help_has_commands_and_each_says_what_it_does(noun: str) -> None:
    group = _group(noun)
    assert (group.help or "").startswith(NOUNS[noun].removesuffix("."))
    commands = group.commands
    assert commands
    assert all(command.help for command in commands.values())


def test_every_module_of_commands_is_in_the_help() -> None:
    folder = Path(cli.__file__).parent
    modules = {file.stem for file in folder.glob("*.py") if not file.stem.startswith("_")}
    assert modules <= {*NOUNS, *(module for module, _ in VERBS.values())}


def test_the_whole_help_is_printed_from_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for name in [*PRESENT_VERBS, *PRESENT_NOUNS]:
        assert f"\n  {name} " in printed


def test_help_imports_nothing_heavy_and_takes_at_most_four_times_a_bare_python() -> None:
    script = (
        "import sys; from orchestration.cli import main; main(['--help']);"
        "heavy = {'typer', 'rich', 'torch', 'celery', 'sqlalchemy', 'pydantic', 'numpy'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)

    def best(*arguments: str) -> float:
        times = []
        for _ in range(7):
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            times.append(time.perf_counter() - started)
        return min(times)

    # The best of seven, taken in turns, so that another load hits both.
    assert best("-m", "orchestration.cli", "--help") < 4 * best("-c", "pass")


@pytest.mark.parametrize("name", [*PRESENT_VERBS, *PRESENT_NOUNS])
def test_the_help_of_a_command_imports_no_torch(name: str) -> None:
    script = (
        f"import sys; from orchestration.cli import main; code = main([{name!r}, '--help']);"
        "assert code == 0, code;"
        "sys.exit(', '.join({'torch', 'celery', 'sqlalchemy', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: nightread" in done.stdout


def test_a_misspelt_command_gets_the_nearest_one_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["statsu"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "There is no command 'statsu'; did you mean `nightread status`?\n"
    assert captured.out == ""


def test_wrong_usage_has_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--nonsense"]) == 2
    assert "No such option" in capsys.readouterr().err


def test_what_needs_services_says_how_to_start_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NIGHTREAD_HOME", str(tmp_path))
    assert main(["env", "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "Nothing is running: run `nightread up` first, or set NIGHTREAD_DATABASE__URL.\n"
    assert captured.out == ""


def test_a_home_where_nothing_runs_is_empty_json_and_a_hint(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NIGHTREAD_HOME", str(tmp_path))
    assert main(["status", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"
    assert main(["status"]) == 0
    assert capsys.readouterr().err == f"Nothing runs in {tmp_path}. `nightread up` starts it.\n"
    assert main(["down"]) == 0
    assert capsys.readouterr().err == "Nothing was running.\n"


def _command_that(body: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a command in place of ``phantom``."""
    module = ModuleType("orchestration.cli.phantom")
    app = typer.Typer()
    app.command("x")(body)  # type: ignore[type-var]
    app.command("y")(lambda: None)
    module.app = app  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "orchestration.cli.phantom", module)


def test_an_unexpected_error_names_type_and_place_and_hides_its_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def body() -> None:
        raise KeyError("DOE^JANE")

    _command_that(body, monkeypatch)
    assert main(["phantom", "x"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("Unexpected KeyError at ")
    assert "test_cli.py" in told
    assert "DOE" not in told
    monkeypatch.setenv("NIGHTREAD_DEBUG", "1")
    with pytest.raises(KeyError):
        main(["phantom", "x"])


def test_an_error_of_ours_is_its_own_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.errors import ModelError

    class NoSuchRelease(ModelError):
        pass

    def body() -> None:
        raise NoSuchRelease("There is no release 12; see `nightread release list`.")

    _command_that(body, monkeypatch)
    assert main(["phantom", "x"]) == 1
    assert capsys.readouterr().err == "There is no release 12; see `nightread release list`.\n"


def test_an_interrupt_and_a_chosen_exit_code_are_passed_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    _command_that(interrupted, monkeypatch)
    assert main(["phantom", "x"]) == 130

    def chosen() -> None:
        raise typer.Exit(3)

    _command_that(chosen, monkeypatch)
    assert main(["phantom", "x"]) == 3
    capsys.readouterr()
