"""Start a program with secrets from files in its settings.

A variable may hold ``{secret:NAME}``; it becomes the content of ``/run/secrets/NAME``, percent-encoded where
the variable is a URL. So docker-compose.yml shows every address in full and no password, and each secret
stands in one file. ``NIGHTREAD_`` variables alone are looked at.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

SECRETS = Path("/run/secrets")
_PLACE = re.compile(r"\{secret:([a-z0-9_]+)\}")


def with_secrets(environment: Mapping[str, str], folder: Path = SECRETS) -> dict[str, str]:
    """The environment with every secret filled in.

    Raises:
        OSError: If a secret's file is missing or may not be read.
        ValueError: If it is empty. The message names the secret, never its value.
    """

    def read(name: str, *, encode: bool) -> str:
        secret = (folder / name).read_text().strip()
        if not secret:
            raise ValueError(f"the secret {name} is empty")
        return quote(secret, safe="") if encode else secret

    def fill(text: str) -> str:
        return _PLACE.sub(lambda found: read(found[1], encode="://" in text), text)

    return {
        name: fill(value) if name.startswith("NIGHTREAD_") else value for name, value in environment.items()
    }


def main(arguments: list[str]) -> None:
    """Become the program that the arguments name."""
    if not arguments:
        sys.exit("usage: entrypoint.py PROGRAM [ARGUMENT ...]")
    try:
        environment = with_secrets(os.environ)
    except (OSError, ValueError) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        sys.exit(f"A secret cannot be read ({reason}); make it with deploy/make-secrets.sh.")
    os.execvpe(arguments[0], arguments, environment)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
