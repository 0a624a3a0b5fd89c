"""``nightread up | down | status | env``: the services and processes of a data folder."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from orchestration.cli._common import JsonOption, fail, print_json, print_table, say

if TYPE_CHECKING:
    from orchestration.embedded.control import Started

app = typer.Typer(help="The services and processes of a data folder.", add_completion=False)


@app.command()
def up(
    no_workers: Annotated[
        bool, typer.Option("--no-workers", help="The services alone: no receiver, worker or clock.")
    ] = False,
    without: Annotated[
        list[str] | None,
        typer.Option(help="Leave these out: receiver, beat or queues, for example `beat,report`."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until everything is ready.")] = 120.0,
) -> None:
    """Start services, receiver, workers and clock, and keep them running.

    Starts its own Postgres, Redis and object store under NIGHTREAD_HOME unless their addresses are
    configured, migrates the database, and starts one worker a queue. May be run again at any time.

    Example: nightread up --without report
    """
    from orchestration.embedded import control

    names = [name.strip() for part in without or [] for name in part.split(",") if name.strip()]
    try:
        started = control.up(without=names, workers=not no_workers, timeout_s=timeout, announce=say)
    except KeyboardInterrupt:
        say("What has been started is left running; `nightread down` stops it.")
        raise
    embedded, settings = started.embedded, started.settings
    say(f"Nightread is up after {started.seconds:.1f} s in {settings.home}.")
    for service, place in _places(started):
        say(f"  {service:<13} {place}")
    if embedded.objects_kind == "rclone":
        say(_without_events(settings.intake.sweep_s))
    roles = ", ".join(f"{row.role} {row.queue}" if row.queue else row.role for row in started.rows)
    say(f"Left running: {roles}. `nightread down` stops all of it.")


def _places(started: Started) -> list[tuple[str, str]]:
    """Where things are, without passwords."""
    embedded = started.embedded
    own = "127.0.0.1"
    kinds = {"minio": "MinIO", "rclone": "rclone"}
    return [
        (
            "Postgres",
            f"{own}:{embedded.postgres_port}, database nightread" if embedded.postgres_port else "configured",
        ),
        ("Redis", f"{own}:{embedded.redis_port}" if embedded.redis_port else "configured"),
        (
            "object store",
            f"http://{own}:{embedded.objects_port} ({kinds[embedded.objects_kind or 'minio']})"
            if embedded.objects_port
            else "configured",
        ),
        ("receiver", f"http://{started.settings.intake.host}:{embedded.receiver_port}/events"),
        ("logs", str(started.settings.log_folder)),
    ]


def _without_events(sweep_s: float) -> str:
    found = f"a sweep finds new objects every {sweep_s:g} s" if sweep_s else "and the sweep is off"
    return f"The object store is rclone, which tells of no events: {found}. Install Go or MinIO for events."


@app.command()
def down() -> None:
    """Stop everything that runs in the data folder.

    Workers finish what they are at; what does not end in time is killed. No data is removed.

    Example: nightread down
    """
    from orchestration.embedded import control

    stopped = control.down(control.default_home(), say)
    say(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Show what runs: role, queue, process, state and since when.

    States: running, starting, stopped (by SIGSTOP), dead.

    Example: nightread status --json
    """
    from orchestration.embedded import control

    home = control.default_home()
    rows = control.status(home)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    if not rows:
        say(f"Nothing runs in {home.path}. `nightread up` starts it.")
        return
    print_table(
        ["ROLE", "QUEUE", "PID", "PROCESSES", "STATE", "READY", "SINCE", "STARTS"],
        [
            [
                row.role,
                row.queue,
                row.pid,
                len(row.pids),
                row.state,
                "yes" if row.ready else "no",
                datetime.fromtimestamp(row.since, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if row.since else "",
                row.starts,
            ]
            for row in rows
        ],
    )
    if any(row.role == "rclone" for row in rows):
        from orchestration.settings import read_environment

        say(_without_events(read_environment().intake.sweep_s))
    if rows[0].role == "supervisor" and rows[0].state == "dead":
        say("The supervisor is dead: nothing is restarted. `nightread up` brings it back.")


@app.command()
def env(
    as_json: JsonOption = False,
    shell: Annotated[bool, typer.Option("--shell", help="Print `export` lines.")] = False,
) -> None:
    """Print live addresses and credentials as environment variables. They are secrets.

    Example: eval "$(nightread env --shell)"
    """
    from orchestration.settings import as_environment, load

    if as_json and shell:
        fail("Choose one of --json and --shell.")
    variables = as_environment(load(), owner=True)
    if as_json:
        print_json(variables)
        return
    for name, value in variables.items():
        sys.stdout.write(f"{'export ' if shell else ''}{name}={shlex.quote(value)}\n")
