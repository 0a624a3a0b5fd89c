"""The command ``nightread``: a table of commands, and nothing heavy until one of them is chosen.

``nightread --help`` prints this table and imports nothing, so that it takes little more than a bare Python
(typer alone takes three times that). A test compares the table with the real commands. Each module of this
package exposes ``app: typer.Typer``; a verb's module holds it as a command, a noun's module *is* the noun.

Exit codes: 0 done, 1 an error that is told in one sentence, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path

VERBS = {
    "up": ("services", "Start services, receiver, workers and clock, and keep them running."),
    "down": ("services", "Stop everything that runs in the data folder."),
    "status": ("services", "Show what runs."),
    "env": ("services", "Print live addresses and credentials as environment variables."),
    "worklist": ("night", "Print the worklist, what should be read first on top."),
    "drain": ("night", "Wait until no work is left."),
    "redrive": ("night", "Try again what failed for good."),
    "doctor": ("night", "Look for what is wrong with this installation."),
    "sql": ("sql", "Ask the documented views in SQL."),
}
NOUNS = {
    "study": "Submit studies, show one, find similar cases.",
    "object": "List stored objects and what became of them.",
    "exemplar": "Import the reported cases that may be retrieved; re-index.",
    "release": "Make, seal, promote and roll back releases of the networks.",
    "job": "Look at long work, cancel or resume it.",
    "model": "Summarise a recipe's networks; check an encoder.",
    "train": "Train both stages of a recipe.",
    "evaluate": "Measure labels, drafts and their correctness.",
    "dataset": "Verify a data set before training on it.",
    "phantom": "Draw chest radiographs with known findings.",
}
GROUPS = (
    ("The system", ("up", "down", "status", "env", "doctor")),
    ("The night", ("worklist", "drain", "redrive", "sql", "study", "object", "exemplar", "job")),
    ("The networks", ("release", "model", "train", "evaluate", "dataset", "phantom")),
)


def module_of(name: str) -> str | None:
    """The module of this package that holds a command, or ``None`` where this version has none."""
    if name not in VERBS and name not in NOUNS:
        return None
    module = VERBS[name][0] if name in VERBS else name
    return module if (Path(__file__).parent / f"{module}.py").exists() else None


def help_text() -> str:
    """What ``nightread --help`` prints."""
    lines = [
        "Usage: nightread COMMAND [OPTIONS]",
        "",
        "Reads chest radiographs overnight: predictions, a similar case and a draft report by morning.",
    ]
    for title, names in GROUPS:
        shown = [name for name in names if module_of(name)]
        if shown:
            lines += ["", f"{title}:"]
        for name in shown:
            lines.append(f"  {name:<10} {VERBS[name][1] if name in VERBS else NOUNS[name]}")
    lines += [
        "",
        "`nightread COMMAND --help` tells more and shows an example. Settings are NIGHTREAD_ variables.",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in {"--help", "-h", "help"}:
        sys.stdout.write(help_text())
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"nightread {version('nightread')}\n")
        return 0
    from orchestration.cache import keep_bytecode, keep_kernels

    keep_bytecode()
    keep_kernels()
    from orchestration.cli._common import run

    return run(arguments)
