"""Cron expressions: which moments they name, across changes of the clock, and what is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from orchestration.cron import BadCron, parse

BERLIN, NEW_YORK, ZULU = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("UTC")


def at(text: str, zone: ZoneInfo = ZULU) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC)


@pytest.mark.parametrize(
    ("expression", "now", "last", "following"),
    [
        ("* * * * *", "2026-11-24 20:00:30", "2026-11-24 20:00", "2026-11-24 20:01"),
        ("*/15 * * * *", "2026-11-24 20:14:59", "2026-11-24 20:00", "2026-11-24 20:15"),
        ("0 2 * * *", "2026-11-24 02:00:00", "2026-11-24 02:00", "2026-11-25 02:00"),
        ("0 2 * * *", "2026-11-24 01:59:59", "2026-11-23 02:00", "2026-11-24 02:00"),
        ("30 1 * * 6", "2026-11-24 12:00", "2026-11-21 01:30", "2026-11-28 01:30"),
        ("0 3 * * sun", "2026-11-24 12:00", "2026-11-22 03:00", "2026-11-29 03:00"),
        ("0 3 * * 7", "2026-11-24 12:00", "2026-11-22 03:00", "2026-11-29 03:00"),
        ("0 3 * * 5-7", "2026-11-24 12:00", "2026-11-22 03:00", "2026-11-27 03:00"),
        ("0 0 1 * *", "2026-11-24 12:00", "2026-11-01 00:00", "2026-12-01 00:00"),
        ("0 0 1 jan *", "2026-11-24 12:00", "2026-01-01 00:00", "2027-01-01 00:00"),
        ("0 0 29 2 *", "2026-11-24 12:00", "2024-02-29 00:00", "2028-02-29 00:00"),
        # Where both days are restricted, either is enough: the 13th, and every Friday.
        ("0 0 13 * 5", "2026-11-24 12:00", "2026-11-20 00:00", "2026-11-27 00:00"),
        ("0 0 13 * 5", "2026-12-12 12:00", "2026-12-11 00:00", "2026-12-13 00:00"),
    ],
)
def test_an_expression_names_its_moments(expression: str, now: str, last: str, following: str) -> None:
    cron = parse(expression)
    assert cron.last(at(now), ZULU) == at(last)
    assert cron.next(at(now), ZULU) == at(following)


def test_times_are_those_of_the_sites_clock() -> None:
    cron = parse("0 2 * * *")
    assert cron.last(at("2026-11-24 12:00"), BERLIN) == at("2026-11-24 02:00", BERLIN)
    assert cron.last(at("2026-11-24 12:00"), BERLIN) == at("2026-11-24 01:00")
    assert cron.last(at("2026-07-24 12:00"), BERLIN) == at("2026-07-24 00:00")


def test_a_time_that_summer_time_leaves_out_fires_once_an_hour_later() -> None:
    # 2026-03-29 in Berlin: 02:00 to 03:00 is left out.
    cron = parse("30 2 * * *")
    fired = _fires(cron, at("2026-03-28 00:00"), at("2026-03-30 23:00"), BERLIN)
    assert fired == [at("2026-03-28 01:30"), at("2026-03-29 01:30"), at("2026-03-30 00:30")]


def test_a_time_that_comes_twice_fires_once() -> None:
    # 2026-10-25 in Berlin: 02:00 to 03:00 comes twice; 2026-11-01 in New York: 01:00 to 02:00.
    fired = _fires(parse("30 2 * * *"), at("2026-10-24 12:00"), at("2026-10-26 00:00"), BERLIN)
    assert fired == [at("2026-10-25 00:30")]
    fired = _fires(parse("30 1 * * *"), at("2026-10-31 12:00"), at("2026-11-02 00:00"), NEW_YORK)
    assert fired == [at("2026-11-01 05:30")]


def test_a_schedule_of_every_hour_fires_every_hour_whatever_the_clock_does() -> None:
    for begin in ("2026-03-28 20:10", "2026-10-24 20:10"):
        fired = _fires(parse("30 * * * *"), at(begin), at(begin) + timedelta(hours=12), BERLIN)
        assert len(fired) == 12
        assert {b - a for a, b in pairwise(fired)} == {timedelta(hours=1)}


def test_last_and_next_agree_minute_by_minute() -> None:
    cron = parse("7,37 */6 * * 1-5")
    moment = at("2026-03-27 00:00")
    for _ in range(300):
        moment += timedelta(minutes=23, seconds=1)
        following = cron.next(moment, BERLIN)
        assert cron.last(moment, BERLIN) <= moment < following
        assert cron.last(following - timedelta(seconds=1), BERLIN) == cron.last(moment, BERLIN)
        assert cron.last(following, BERLIN) == following


def _fires(cron: object, begin: datetime, end: datetime, zone: ZoneInfo) -> list[datetime]:
    fired = []
    while (begin := cron.next(begin, zone)) <= end:  # type: ignore[attr-defined]
        fired.append(begin)
    return fired


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        ("0 2 * *", "five fields"),
        ("@daily", "five fields"),
        ("60 2 * * *", "first field, the minute"),
        ("jan 2 * * *", "first field, the minute"),
        ("0 24 * * *", "second field, the hour"),
        ("0 2 0 * *", "third field, the day of the month"),
        ("0 2 * 13 *", "fourth field, the month"),
        ("0 2 * * 8", "fifth field, the day of the week"),
        ("0 2 * * funday", "fifth field, the day of the week"),
        ("*/0 2 * * *", "first field, the minute"),
        ("0, 2 * * *", "first field, the minute"),
        ("0 2 30 2 *", "must fire on some day"),
    ],
)
def test_what_is_no_cron_expression_is_told_by_field(expression: str, what: str) -> None:
    with pytest.raises(BadCron, match=what):
        parse(expression)
