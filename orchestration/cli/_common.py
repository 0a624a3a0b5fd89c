"""What commands share: how they are run, how they speak, how they fail.

Data goes to stdout, everything else to stderr, so ``nightread worklist --json | jq`` always works.
"""

from __future__ import annotations

import difflib
import importlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from orchestration.cli import NOUNS, VERBS, module_of

if TYPE_CHECKING:
    from orchestration.settings import Settings

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
DEBUG = "NIGHTREAD_DEBUG"
# Errors whose message is one sentence with the next step. Looked up only where their module is loaded.
OUR_ERRORS = (
    ("orchestration.settings", "SettingsError"),
    ("orchestration.embedded.home", "EmbeddedError"),
    ("db.errors", "StoreError"),
    ("models.errors", "ModelError"),
)


class CommandError(Exception):
    """A command cannot do what was asked; the message is one sentence with the next step."""


def run(arguments: Sequence[str]) -> int:
    """Run the command that the first argument names; returns the exit code."""
    name = arguments[0]
    module = module_of(name)
    if module is None:
        near = difflib.get_close_matches(name, [n for n in (*VERBS, *NOUNS) if module_of(n)], n=1)
        hint = f"did you mean `nightread {near[0]}`?" if near else "see `nightread --help`."
        say(f"There is no command {name!r}; {hint}")
        return 2
    try:
        app: typer.Typer = importlib.import_module(f"orchestration.cli.{module}").app
        group = typer.main.get_group(app)
        _make_plain(group)
        noun = name in NOUNS
        result = group.main(
            args=list(arguments[1:] if noun else arguments),
            prog_name=f"nightread {name}" if noun else "nightread",
            standalone_mode=False,
        )
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output, for example `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        say("Interrupted.")
        return 130
    except Exception as error:
        return _explain(error)
    return result if isinstance(result, int) else 0


def _make_plain(command: Any) -> None:
    """Plain help text everywhere: drawing boxes imports a tenth of a second of code."""
    if hasattr(command, "rich_markup_mode"):
        command.rich_markup_mode = None
    for inner in getattr(command, "commands", {}).values():
        _make_plain(inner)


def _explain(error: Exception) -> int:
    """Say in one sentence what happened."""
    if hasattr(error, "exit_code") and hasattr(error, "show"):  # wrong usage, told by typer
        error.show()
        return int(error.exit_code)
    if type(error).__name__ == "Abort":
        say("Interrupted.")
        return 130
    if os.environ.get(DEBUG):
        raise error
    if isinstance(error, CommandError) or _is_ours(error):
        say(str(error))
        return 1
    from orchestration.logging import places

    # A message of another library may quote what must not be shown.
    where = places(error.__traceback__, limit=1)
    say(
        f"Unexpected {type(error).__name__} at {where[0] if where else 'an unknown place'}: "
        f"this is a fault of Nightread; set {DEBUG}=1 to see all of it."
    )
    return 1


def _is_ours(error: Exception) -> bool:
    for module, name in OUR_ERRORS:
        kind = getattr(sys.modules.get(module), name, None)
        if isinstance(kind, type) and isinstance(error, kind):
            return True
    return False


def say(message: str) -> None:
    """Tell a person something; never data."""
    print(message, file=sys.stderr, flush=True)


def fail(message: str) -> NoReturn:
    """End the command with one sentence and exit code 1."""
    raise CommandError(message)


def print_json(content: Any) -> None:
    """Print data for scripts; dates and ids as text."""
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print data for people: left-aligned columns."""
    lines = [list(headings), *([("" if cell is None else str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        padded = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write(padded.rstrip() + "\n")


def running_settings() -> Settings:
    """The settings with the running services, for commands that need them.

    Raises:
        SettingsError: If nothing runs and nothing is configured.
    """
    from orchestration.settings import load

    return load()
