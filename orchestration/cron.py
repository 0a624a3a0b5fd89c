"""Cron expressions in the site's time zone: when a schedule fired last, and when it will next.

Five fields as everywhere: minute, hour, day of the month, month, day of the week (0 or 7 is Sunday; names
as well). Where both days are restricted, either is enough. Each time of day of the site's clock fires once:
one that a change to summer time leaves out fires an hour later, one that comes twice fires the first time.
A schedule of every hour (``*``) counts hours as they pass, so it fires in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

_LONGEST_DAYS = 9 * 366
"""29 February comes again after eight years at the latest."""

_FIELDS = (
    ("minute", 60, 0, r"[\d*/,\-]+"),
    ("hour", 24, 0, r"[\d*/,\-]+"),
    ("day of the month", 31, 1, r"[\d*/,\-]+"),
    ("month", 12, 1, r"[\d*/,\-a-z]+"),
    ("day of the week", 7, 0, r"[\d*/,\-a-z]+"),
)
_PLACES = ("first", "second", "third", "fourth", "fifth")


class BadCron(ValueError):
    """It is no cron expression; the message says which field, and never what stands there."""


@dataclass(frozen=True, kw_only=True)
class Cron:
    """A parsed expression."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""
    either_day: bool
    """Both days are restricted, and one of them is enough."""

    def last(self, now: datetime, zone: ZoneInfo) -> datetime:
        """The latest moment up to ``now`` at which it fires, in UTC."""
        return next(moment for moment in self._around(now, zone, step=-1) if moment <= now)

    def next(self, now: datetime, zone: ZoneInfo) -> datetime:
        """The first moment after ``now`` at which it fires, in UTC."""
        return next(moment for moment in self._around(now, zone, step=1) if moment > now)

    def _around(self, now: datetime, zone: ZoneInfo, *, step: int) -> Iterator[datetime]:
        # A day beside the first one, because a time that was left out is moved past its own hour.
        day = now.astimezone(zone).date() - timedelta(days=step)
        for _ in range(_LONGEST_DAYS):
            if self._has(day):
                # A set, because a time that was left out falls on one that was not.
                moments = {
                    datetime.combine(day, time(hour, minute, fold=fold), zone).astimezone(UTC)
                    for hour in self.hours
                    for minute in self.minutes
                    for fold in ((0, 1) if len(self.hours) == 24 else (0,))
                }
                yield from sorted(moments, reverse=step < 0)
            day += timedelta(days=step)

    def _has(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_date, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_date or by_weekday if self.either_day else by_date and by_weekday


def parse(expression: str) -> Cron:
    """Read an expression.

    Raises:
        BadCron: If it is none, or never fires.
    """
    from celery.schedules import ParseException, crontab_parser

    words = expression.lower().split()
    if len(words) != len(_FIELDS):
        raise BadCron("must have the five fields of cron, for example 0 2 * * 6")
    values: list[frozenset[int]] = []
    for place, (word, (name, count, first, allowed)) in enumerate(zip(words, _FIELDS, strict=True)):
        if name == "day of the week":
            word = re.sub(r"(?<![/\d])7(?!\d)", "0", word)
        try:
            if not re.fullmatch(allowed, word):
                raise ValueError(name)
            values.append(frozenset(crontab_parser(count, first).parse(word)))
        except (ParseException, ValueError, IndexError):
            raise BadCron(
                f"must be a cron expression; its {_PLACES[place]} field, the {name}, is none "
                f"(numbers from {first} to {first + count - 1}, and * , - /)"
            ) from None
    minutes, hours, days, months, weekdays = values
    cron = Cron(
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=weekdays,
        either_day="*" not in (words[2][0], words[4][0]),
    )
    try:
        cron.next(datetime(2025, 1, 1, tzinfo=UTC), ZoneInfo("UTC"))
    except StopIteration:
        raise BadCron("must fire on some day; the month it names has no such day") from None
    return cron
