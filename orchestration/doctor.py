"""What ``nightread doctor`` looks at; each check says what it found and, where wrong, the next step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from orchestration.settings import Settings, SettingsError, load, unknown_names


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the examination."""

    mark: str
    """``ok``, ``note`` or ``wrong``."""
    what: str
    finding: str


def examine() -> list[Check]:
    """Look at everything that can be looked at; a part that fails does not hide the others."""
    checks = list(_names())
    try:
        site = load()
    except SettingsError as error:
        return [*checks, Check(mark="wrong", what="settings", finding=str(error))]
    parts: tuple[Callable[[Settings], Iterator[Check]], ...] = (
        _database,
        _broker,
        _objects,
        _release,
        _schedules,
        _computation,
    )
    for part in parts:
        try:
            checks += part(site)
        except Exception as error:  # an examination that breaks off at the first fault helps nobody
            checks.append(
                Check(
                    mark="wrong",
                    what=part.__name__.strip("_"),
                    finding=f"{type(error).__name__}: look at its log",
                )
            )
    return checks


def _names() -> Iterator[Check]:
    for name, nearest in unknown_names().items():
        hint = f"did you mean {nearest}?" if nearest else "it does nothing."
        yield Check(mark="wrong", what="settings", finding=f"{name} is no setting; {hint}")


def _database(site: Settings) -> Iterator[Check]:
    from sqlalchemy import text

    from db.engine import make_engine, transaction

    assert site.database.url is not None
    with transaction(make_engine(site.database.url.get_secret_value())) as session:
        version = session.scalar(text("SHOW server_version"))
        vector = session.scalar(text("SELECT extversion FROM pg_extension WHERE extname = 'vector'"))
    yield Check(mark="ok", what="database", finding=f"Postgres {version}, pgvector {vector}")
    if tuple(int(part) for part in str(vector).split(".")) < (0, 8, 4):
        yield Check(
            mark="note", what="database", finding="pgvector below 0.8.4 has known faults of its indexes"
        )


def _broker(site: Settings) -> Iterator[Check]:
    import redis

    assert site.broker.url is not None
    server = redis.Redis.from_url(site.broker.url.get_secret_value(), socket_timeout=5).info("server")
    yield Check(mark="ok", what="broker", finding=f"Redis {server['redis_version']}")


def _objects(site: Settings) -> Iterator[Check]:
    from db.objects import ObjectStore

    next(ObjectStore(site.objects).list_studies(), None)
    events = "events and sweep" if site.intake.events else "sweep alone"
    yield Check(mark="ok", what="object store", finding=f"answers; {events}")
    if not site.intake.events and site.intake.sweep_s == 0:
        yield Check(
            mark="wrong", what="object store", finding="neither events nor sweep: nothing will be found"
        )


def _release(site: Settings) -> Iterator[Check]:
    from db import exemplars, releases
    from db.engine import make_engine, transaction
    from db.errors import NoActiveRelease

    assert site.database.url is not None
    with transaction(make_engine(site.database.url.get_secret_value())) as session:
        try:
            pair = releases.active(session)
        except NoActiveRelease as error:
            yield Check(mark="wrong", what="release", finding=str(error))
            return
        count = exemplars.count(session)
    trained = "trained" if pair.release.trained else "UNTRAINED: random weights"
    yield Check(
        mark="ok" if pair.release.trained else "note",
        what="release",
        finding=f"{pair.release.name} {pair.release.digest[:12]}, {trained}",
    )
    yield Check(
        mark="ok" if pair.index_version else "note",
        what="exemplars",
        finding=f"{count} exemplars, index version {pair.index_version or 'none: drafts have no exemplar'}",
    )


def _schedules(site: Settings) -> Iterator[Check]:
    from datetime import UTC, datetime

    from db.engine import make_engine, transaction
    from orchestration import cron, schedules

    yield from _running_schedules(site)
    wanted = schedules.configured(site)
    if not wanted:
        yield Check(mark="ok", what="schedules", finding="none is set; training is started by hand")
        return
    assert site.database.url is not None
    zone, now = site.worklist.zone, datetime.now(UTC)
    with transaction(make_engine(site.database.url.get_secret_value())) as session:
        for name, expression in wanted.items():
            following = cron.parse(expression).next(now, zone).astimezone(zone)
            last = schedules.last_run(session, name)
            said = "has not run yet" if last is None else f"its last run, job {last.id}, is {last.state}"
            yield Check(
                mark="note" if last is not None and last.state == "failed" else "ok",
                what=f"schedule {name}",
                finding=f"{expression}, next at {following:%Y-%m-%d %H:%M %Z}; {said}",
            )


def _running_schedules(site: Settings) -> Iterator[Check]:
    """Whether the home that runs here will do what this command was told: it may have begun with less."""
    from orchestration.embedded import control, processes
    from orchestration.embedded.home import Home
    from orchestration.schedules import KINDS, configured

    home = Home(path=site.home)
    rows = {row.queue or row.role: row.state for row in control.status(home)}
    if not rows:
        return  # another machine or another supervisor runs it, and what it was told cannot be seen
    if configured(site):
        missing = [name for name in ("beat", "clock", "jobs") if rows.get(name) != "running"]
        if missing:
            yield Check(
                mark="wrong",
                what="schedules",
                finding=f"nothing is started: not running: {', '.join(missing)}; run `nightread up`",
            )
    _, specifications = processes.read_plan(home)
    clock = next((one.environment for one in specifications if one.queue == "clock"), None)
    if clock is None:
        return
    for name in KINDS:
        variable = f"NIGHTREAD_SCHEDULE__{name.upper()}"
        told, here = clock.get(variable) or None, getattr(site.schedule, name)
        if told != here:
            yield Check(
                mark="wrong",
                what=f"schedule {name}",
                finding=f"it is {here or 'not set'} here and {told or 'not set'} in the clock that runs; "
                "run `nightread up` again with the settings that you mean",
            )


def _computation(site: Settings) -> Iterator[Check]:
    import torch

    from models.selective_scan import available_forms, cache_folder

    found = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU, the CPU computes"
    wrong = site.model.device == "cuda" and not torch.cuda.is_available()
    yield Check(mark="wrong" if wrong else "ok", what="device", finding=found)
    for name, reason in available_forms().items():
        available = f"available, kept in {cache_folder()}" if name == "compiled" else "available"
        yield Check(
            mark="note" if reason else "ok", what=f"selective scan: {name}", finding=reason or available
        )
