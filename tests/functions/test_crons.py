"""Registering crons: every form, every mistake, and when each runs next."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.errors import BadRequest
from reactive_store.functions.crons import Crons, Schedule, cron_targets
from reactive_store.functions.loader import load_app
from reactive_store.functions.references import internal
from tests.scheduling.conftest import write_app

REF = internal.notes.add
HOUR = timedelta(hours=1)

MISTAKES: list[tuple[Callable[[Crons], None], str]] = [
    (
        lambda crons: crons.interval("x", 5, REF),  # type: ignore[arg-type]
        "Must specify one of seconds, minutes, or hours",
    ),
    (
        lambda crons: crons.interval("x", timedelta(0), REF),
        "Interval must be an integer greater than 0",
    ),
    (
        lambda crons: crons.interval("x", timedelta(seconds=-1), REF),
        "Interval must be an integer greater than 0",
    ),
    (
        lambda crons: crons.interval("x", timedelta(seconds=1.5), REF),
        "Interval must be an integer greater than 0",
    ),
    (
        lambda crons: crons.hourly("x", REF, minute_utc=60),
        "Minute of hour must be an integer from 0 to 59",
    ),
    (
        lambda crons: crons.hourly("x", REF, minute_utc=True),
        "Minute of hour must be an integer from 0 to 59",
    ),
    (
        lambda crons: crons.daily("x", REF, hour_utc=24),
        "Hour of day must be an integer from 0 to 23",
    ),
    (
        lambda crons: crons.daily("x", REF, hour_utc=1.5),  # type: ignore[arg-type]
        "Hour of day must be an integer from 0 to 23",
    ),
    (
        lambda crons: crons.weekly("x", REF, day_of_week="Monday", hour_utc=1),
        'Day of week must be a string like "monday".',
    ),
    (
        lambda crons: crons.monthly("x", REF, day=0, hour_utc=1),
        "Day of month must be an integer from 1 to 31",
    ),
    (
        lambda crons: crons.cron("x", 5, REF),  # type: ignore[arg-type]
        "The cron spec must be a string such as '5 * * * *', not 5",
    ),
    (
        lambda crons: crons.cron("x", "0 0 30 2 *", REF),
        'The cron spec "0 0 30 2 *" will never match any time',
    ),
    (
        lambda crons: crons.cron("x", "0 0 31 4,6,9,11 *", REF),
        'The cron spec "0 0 31 4,6,9,11 *" will never match any time',
    ),
    (
        lambda crons: crons.cron("x", "0 0 * *", REF),
        'The cron spec "0 0 * *" has 4 fields instead of five',
    ),
    (
        lambda crons: crons.cron("x", "61 0 * * *", REF),
        'The cron spec "61 0 * * *" cannot be read: Bad minute',
    ),
    (
        lambda crons: crons.interval("tick\n", HOUR, REF),
        "Invalid cron identifier tick\n: use ASCII letters that are not control characters",
    ),
    (
        lambda crons: crons.interval("größe", HOUR, REF),
        "Invalid cron identifier größe: use ASCII letters that are not control characters",
    ),
    (
        lambda crons: (crons.interval("x", HOUR, REF), crons.hourly("x", REF))[-1],
        "Cron identifier registered twice: x",
    ),
    (lambda crons: crons.hourly("x"), "The cron 'x' names no function to run"),
    (
        lambda crons: crons.hourly("x", REF, "text"),  # type: ignore[arg-type]
        "The arguments of the cron 'x' are no mapping: 'text'",
    ),
    (
        lambda crons: crons.hourly("x", REF, {"text": "x" * 2**20}),
        "The arguments of the cron 'x' are too large (1.00 MiB; they have to be below 1 MiB)",
    ),
]


@pytest.mark.parametrize(("register", "text"), MISTAKES, ids=[text for _, text in MISTAKES])
def test_a_mistake_is_refused_where_it_stands(register: Callable[[Crons], Any], text: str):
    """F139."""
    with pytest.raises(BadRequest) as refused:
        register(Crons())
    assert refused.value.message.startswith(text)
    assert refused.value.code == "InvalidCron"


def test_every_form_has_the_official_json():
    crons = Crons()
    crons.interval("a", timedelta(minutes=2), REF)
    crons.hourly("b", REF)
    crons.hourly("c", minute_utc=5, function=REF)
    crons.daily("d", hour_utc=3, minute_utc=0, function=REF, args={"text": "x"})
    crons.weekly("e", REF, {"text": "y"}, day_of_week="friday", hour_utc=4)
    crons.monthly("f", day=31, hour_utc=0, minute_utc=59, function=REF)
    crons.cron("g", "*/5 * * * 1-5", REF, {"text": "z"})
    forms = {cron.identifier: cron.schedule.to_json() for cron in crons}
    assert forms == {
        "a": {"type": "interval", "seconds": 120},
        "b": {"type": "hourly"},
        "c": {"type": "hourly", "minuteUTC": 5},
        "d": {"type": "daily", "hourUTC": 3, "minuteUTC": 0},
        "e": {"type": "weekly", "dayOfWeek": "friday", "hourUTC": 4},
        "f": {"type": "monthly", "day": 31, "hourUTC": 0, "minuteUTC": 59},
        "g": {"type": "cron", "cron": "*/5 * * * 1-5"},
    }
    assert [cron.schedule for cron in crons] == [
        Schedule.from_json(cron.schedule.to_json()) for cron in crons
    ]
    assert [dict(cron.args) for cron in crons][3:5] == [{"text": "x"}, {"text": "y"}]
    assert len(crons) == 7


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000


def times(schedule: Schedule, after: str, count: int, name: str = "x") -> list[str]:
    """The next runs, cut to the minute the schedule names."""
    found, instant = [], at(after)
    for _ in range(count):
        instant = schedule.next_ms(name, instant)
        found.append(datetime.fromtimestamp(instant / 1000, UTC).isoformat()[:16])
    return found


def test_clock_schedules_match_in_utc():
    daily = Schedule("daily", hour=3, minute=30)
    assert times(daily, "2025-01-01T04:00", 2) == ["2025-01-02T03:30", "2025-01-03T03:30"]
    weekly = Schedule("weekly", day_of_week="sunday", hour=0, minute=0)
    assert times(weekly, "2025-01-01", 2) == ["2025-01-05T00:00", "2025-01-12T00:00"]
    hourly = Schedule("hourly", minute=15)
    assert times(hourly, "2025-01-01T23:59", 2) == ["2025-01-02T00:15", "2025-01-02T01:15"]
    spec = Schedule("cron", spec="0 12 * * MON")
    assert times(spec, "2025-01-01", 2) == ["2025-01-06T12:00", "2025-01-13T12:00"]
    leap = Schedule("cron", spec="0 0 29 2 *")
    assert times(leap, "2025-01-01", 2) == ["2028-02-29T00:00", "2032-02-29T00:00"]


def test_a_day_that_a_month_lacks_leaves_the_month_out():
    """F142."""
    monthly = Schedule("monthly", day=31, hour=0, minute=0)
    assert times(monthly, "2025-01-31T12:00", 4) == [
        "2025-03-31T00:00", "2025-05-31T00:00", "2025-07-31T00:00", "2025-08-31T00:00",
    ]  # fmt: skip
    thirtieth = Schedule("monthly", day=30, hour=0, minute=0)
    assert times(thirtieth, "2025-01-30T12:00", 2) == ["2025-03-30T00:00", "2025-04-30T00:00"]


_names = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20)
_schedules = st.one_of(
    st.builds(lambda m: Schedule("hourly", minute=m), st.none() | st.integers(0, 59)),
    st.builds(
        lambda h, m: Schedule("daily", hour=h, minute=m),
        st.integers(0, 23),
        st.none() | st.integers(0, 59),
    ),
    st.builds(
        lambda d, h: Schedule("weekly", day_of_week=d, hour=h, minute=7),
        st.sampled_from(["monday", "thursday", "sunday"]),
        st.integers(0, 23),
    ),
    st.builds(
        lambda d, h: Schedule("monthly", day=d, hour=h, minute=7),
        st.integers(1, 31),
        st.integers(0, 23),
    ),
    st.sampled_from(["*/7 * * * *", "0 0 * * 0", "30 4 1,15 * *"]).map(
        lambda spec: Schedule("cron", spec=spec)
    ),
)


@given(_schedules, _names, st.integers(1_600_000_000_000, 1_900_000_000_000))
def test_the_next_time_is_later_stable_and_the_first_that_matches(
    schedule: Schedule, name: str, after: int
):
    following = schedule.next_ms(name, after)
    assert following > after
    assert following == schedule.next_ms(name, after)
    # Nothing lies between: from just before it, it is still the next one.
    assert schedule.next_ms(name, following - 1) == following
    found = datetime.fromtimestamp(following / 1000, UTC)
    if schedule.minute is not None:
        assert found.minute == schedule.minute
    if schedule.hour is not None:
        assert found.hour == schedule.hour
    if schedule.day is not None:
        assert found.day == schedule.day


def test_crons_of_one_minute_are_spread_over_it_and_of_one_hour_over_that():
    fixed, free = Schedule("hourly", minute=0), Schedule("hourly")
    start = at("2025-01-01T00:59")
    names = [f"cron {n}" for n in range(300)]
    # Of those whose time in the hour from one o'clock on it is.
    seconds = {fixed.next_ms(name, start) / 1000 % 3600 for name in names}
    assert seconds <= set(range(60))
    assert len(seconds) > 50
    minutes = {free.next_ms(name, start) // 60_000 % 60 for name in names}
    assert len(minutes) > 50


def test_an_interval_counts_from_the_time_before():
    assert Schedule("interval", seconds=90).next_ms("x", 1000.0) == 91_000.0


TARGETS = [
    ("crons.hourly('x', internal.notes.nowhere)", "names a function that does not exist: notes.js"),
    ("crons.hourly('x', internal.notes.texts)", "which is a Query. Only a Mutation or an Action"),
    ("crons.hourly('x', internal.notes)", "names no function: API path is expected"),
    ("crons.hourly('x', 5)", "names no function: 5 is not a functionReference"),
]


@pytest.mark.parametrize(("line", "text"), TARGETS, ids=[line for line, _ in TARGETS])
def test_the_function_must_be_there_when_the_app_is_loaded(tmp_path: Path, line: str, text: str):
    with pytest.raises(BadRequest) as refused:
        load_app(write_app(tmp_path, crons=line))
    assert text in refused.value.message
    assert refused.value.message.startswith(str(tmp_path / "functions" / "crons.py"))


def test_a_mistake_in_the_file_is_told_with_its_line(tmp_path: Path):
    with pytest.raises(BadRequest, match=r"crons\.py:8: .*Interval must be an integer"):
        load_app(
            write_app(tmp_path, crons="\ncrons.interval('x', timedelta(0), internal.notes.add)")
        )


def test_functions_are_named_as_everywhere_and_arguments_go_by_their_wire_names(tmp_path: Path):
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "jobs.py").write_text(
        "from reactive_store import *\n"
        "@internal_mutation\n"
        "async def tidy_up(ctx: MutationCtx, how_many: int = 1) -> None: ...\n"
    )
    app = load_app(
        write_app(
            tmp_path,
            crons="""
            from functions.jobs import tidy_up
            crons.hourly("object", tidy_up, {"how_many": 2})
            crons.hourly("path", "jobs:tidyUp", {"howMany": 2})
            crons.hourly("name", internal.jobs.tidy_up, {"how_many": 2})
            """,
        )
    )
    found = [(target.path, dict(target.args)) for target in cron_targets(app)]
    assert found == [("jobs.js:tidyUp", {"howMany": 2})] * 3
