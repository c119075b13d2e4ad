"""Work that happens again and again: what an app's `functions/crons.py` defines as `crons`.

A registration is checked where it stands; the function it names, when the app is loaded. Times are
UTC. Crons that run by the clock have a small offset of their own, the same for ever, so that those
of one minute, or of one hour when no minute is given, do not all run at once. `scheduling.crons`
runs them.

Source of facts: docs/guide/scheduling.md; the checks and texts of Convex's npm client 1.48 and open
server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, Protocol

from cronsim import CronSim, CronSimError

from reactive_store.errors import BadRequest
from reactive_store.values.size import format_size, size_of
from reactive_store.values.value import normalize

__all__ = ["Cron", "CronTarget", "Crons", "Schedule", "cron_targets"]

_DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_ARGUMENT_BYTES: Final = 1024 * 1024
_FIELDS: Final = 5
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE_S, _HOUR_S = 60, 3600


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a cron runs. Compares by content; `to_json` is the official form."""

    kind: str  # interval, hourly, daily, weekly, monthly, cron
    seconds: int | None = None
    minute: int | None = None
    hour: int | None = None
    day_of_week: str | None = None
    day: int | None = None
    spec: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The form Convex's tools know: `{"type": "daily", "hourUTC": 0, "minuteUTC": 30}`."""
        named = {
            "type": self.kind,
            "seconds": self.seconds,
            "minuteUTC": self.minute,
            "hourUTC": self.hour,
            "dayOfWeek": self.day_of_week,
            "day": self.day,
            "cron": self.spec,
        }
        return {name: value for name, value in named.items() if value is not None}

    @staticmethod
    def from_json(form: Mapping[str, Any]) -> Schedule:
        """The schedule that `to_json` gave."""
        return Schedule(
            form["type"],
            form.get("seconds"),
            form.get("minuteUTC"),
            form.get("hourUTC"),
            form.get("dayOfWeek"),
            form.get("day"),
            form.get("cron"),
        )

    def next_ms(self, identifier: str, after_ms: float) -> float:
        """When it runs next after an instant; an interval counts from that instant.

        Units    Unix milliseconds, UTC
        """
        if self.seconds is not None:
            return after_ms + self.seconds * 1000.0
        # What `minute` leaves open, and seconds: spread by the name, stable over restarts.
        spread = _HOUR_S if self.minute is None and self.spec is None else _MINUTE_S
        offset_s = _hash(identifier) % spread
        after = _EPOCH + timedelta(seconds=after_ms // 1000 - offset_s)
        return (self._next(after) - _EPOCH).total_seconds() * 1000.0 + offset_s * 1000.0

    def _next(self, after: datetime) -> datetime:
        """The first matching minute later than `after`."""
        if self.spec is not None:
            return next(CronSim(self.spec, after))
        minute = self.minute or 0
        if self.kind == "hourly":
            found = after.replace(minute=minute, second=0)
            return found if found > after else found + timedelta(hours=1)
        found = after.replace(hour=self.hour or 0, minute=minute, second=0)
        if self.kind == "monthly":
            return self._next_month(found.replace(day=1), after)
        if self.day_of_week is not None:
            found += timedelta(days=(_DAYS.index(self.day_of_week) - found.weekday()) % 7)
            return found if found > after else found + timedelta(days=7)
        return found if found > after else found + timedelta(days=1)

    def _next_month(self, first: datetime, after: datetime) -> datetime:
        """On the day of the month; a month that lacks it is left out."""
        assert self.day is not None
        while True:
            found = first + timedelta(days=self.day - 1)
            if found.month == first.month and found > after:
                return found
            first = (first + timedelta(days=31)).replace(day=1)


@dataclass(frozen=True, slots=True)
class Cron:
    """One registration."""

    identifier: str
    schedule: Schedule
    function: object  # a reference, resolved when the app is whole
    args: Mapping[str, Any]


class Crons:
    """The registry of an app's crons: `crons = Crons()` in `functions/crons.py`.

    Every method takes a name that is unique in the app, when to run, a mutation or action, and its
    arguments as a mapping.
    """

    def __init__(self) -> None:
        self._crons: dict[str, Cron] = {}

    def __iter__(self) -> Iterator[Cron]:
        """In the order of registration."""
        return iter(self._crons.values())

    def __len__(self) -> int:
        return len(self._crons)

    def interval(
        self,
        identifier: str,
        every: timedelta,
        function: object,
        args: Mapping[str, Any] | None = None,
    ) -> None:
        """Run when deployed, and then again whenever so much time has passed.

        Shapes   every: whole seconds
        Raises   BadRequest[InvalidCron]
        """
        if not isinstance(every, timedelta):
            raise _invalid(
                "Must specify one of seconds, minutes, or hours: the interval is a timedelta such "
                f"as timedelta(minutes=5), not {every!r}"
            )
        seconds, rest = divmod(every, timedelta(seconds=1))
        if seconds <= 0 or rest:
            raise _invalid("Interval must be an integer greater than 0")
        self._add(identifier, Schedule("interval", seconds=seconds), function, args)

    def hourly(
        self,
        identifier: str,
        function: object = None,
        args: Mapping[str, Any] | None = None,
        *,
        minute_utc: int | None = None,
    ) -> None:
        """Run once an hour, in that minute; without one, in a minute of the cron's own.

        Raises   BadRequest[InvalidCron]
        """
        schedule = Schedule("hourly", minute=_minute(minute_utc))
        self._add(identifier, schedule, function, args)

    def daily(
        self,
        identifier: str,
        function: object = None,
        args: Mapping[str, Any] | None = None,
        *,
        hour_utc: int,
        minute_utc: int | None = None,
    ) -> None:
        """Run once a day.

        Raises   BadRequest[InvalidCron]
        """
        schedule = Schedule("daily", hour=_hour(hour_utc), minute=_minute(minute_utc))
        self._add(identifier, schedule, function, args)

    def weekly(
        self,
        identifier: str,
        function: object = None,
        args: Mapping[str, Any] | None = None,
        *,
        day_of_week: str,
        hour_utc: int,
        minute_utc: int | None = None,
    ) -> None:
        """Run once a week, on a day called `"monday"` to `"sunday"`.

        Raises   BadRequest[InvalidCron]
        """
        if day_of_week not in _DAYS:
            raise _invalid('Day of week must be a string like "monday".')
        hour, minute = _hour(hour_utc), _minute(minute_utc)
        schedule = Schedule("weekly", day_of_week=day_of_week, hour=hour, minute=minute)
        self._add(identifier, schedule, function, args)

    def monthly(
        self,
        identifier: str,
        function: object = None,
        args: Mapping[str, Any] | None = None,
        *,
        day: int,
        hour_utc: int,
        minute_utc: int | None = None,
    ) -> None:
        """Run once a month, on that day; months without it are left out.

        Raises   BadRequest[InvalidCron]
        """
        _check_integer(day, 1, 31, "Day of month")
        hour, minute = _hour(hour_utc), _minute(minute_utc)
        schedule = Schedule("monthly", day=day, hour=hour, minute=minute)
        self._add(identifier, schedule, function, args)

    def cron(
        self,
        identifier: str,
        spec: str,
        function: object,
        args: Mapping[str, Any] | None = None,
    ) -> None:
        """Run whenever the clock matches five fields: minute, hour, day, month, day of week.

        Raises   BadRequest[InvalidCron]
        """
        _check_spec(spec)
        self._add(identifier, Schedule("cron", spec=spec), function, args)

    def _add(
        self,
        identifier: str,
        schedule: Schedule,
        function: object,
        args: Mapping[str, Any] | None,
    ) -> None:
        if not _is_identifier(identifier):
            raise _invalid(
                f"Invalid cron identifier {identifier}: use ASCII letters that are not control "
                "characters"
            )
        if identifier in self._crons:
            raise _invalid(f"Cron identifier registered twice: {identifier}")
        if function is None:
            raise _invalid(f"The cron {identifier!r} names no function to run")
        if not isinstance(args, Mapping | None):
            raise _invalid(f"The arguments of the cron {identifier!r} are no mapping: {args!r}")
        given = normalize(dict(args or {}))
        assert isinstance(given, dict)
        if (size := size_of(given)) >= _ARGUMENT_BYTES:
            raise _invalid(
                f"The arguments of the cron {identifier!r} are too large ({format_size(size)}; "
                f"they have to be below {format_size(_ARGUMENT_BYTES)})"
            )
        self._crons[identifier] = Cron(identifier, schedule, function, given)


class _Function(Protocol):
    @property
    def kind(self) -> Any: ...

    def canonical_args(self, args: Mapping[str, Any]) -> Mapping[str, Any]: ...


class _Functions(Protocol):
    """The part of an App that crons ask: which functions there are."""

    @property
    def crons(self) -> Crons | None: ...

    def resolve(self, reference: object) -> str: ...

    def find(self, path: str) -> _Function | None: ...


@dataclass(frozen=True, slots=True)
class CronTarget:
    """A cron of a whole app."""

    name: str
    path: str  # canonical
    args: Mapping[str, Any]  # under their names on the wire
    schedule: Schedule


def cron_targets(app: _Functions) -> list[CronTarget]:
    """The app's crons with the functions they run.

    Raises   BadRequest[InvalidCron] naming a cron whose function does not exist, or is neither a
             mutation nor an action
    """
    targets = []
    for cron in app.crons or ():
        try:
            path = app.resolve(cron.function)
        except BadRequest as error:
            raise _invalid(f"The cron {cron.identifier!r} names no function: {error}") from error
        function = app.find(path)
        if function is None:
            raise _invalid(
                f"The cron {cron.identifier!r} names a function that does not exist: {path}"
            )
        if function.kind.value not in ("Mutation", "Action"):
            raise _invalid(
                f"The cron {cron.identifier!r} names {path}, which is a {function.kind.value}. "
                "Only a Mutation or an Action can run as a cron."
            )
        args = function.canonical_args(cron.args)
        targets.append(CronTarget(cron.identifier, path, args, cron.schedule))
    return targets


def _invalid(message: str) -> BadRequest:
    return BadRequest(message, code="InvalidCron")


def _is_identifier(text: object) -> bool:
    return isinstance(text, str) and text != "" and text.isascii() and text.isprintable()


def _check_integer(value: object, least: int, most: int, what: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _invalid(f"{what} must be an integer from {least} to {most}")


def _minute(value: int | None) -> int | None:
    if value is not None:
        _check_integer(value, 0, 59, "Minute of hour")
    return value


def _hour(value: int) -> int:
    _check_integer(value, 0, 23, "Hour of day")
    return value


def _check_spec(spec: object) -> None:
    if not isinstance(spec, str):
        raise _invalid(f"The cron spec must be a string such as '5 * * * *', not {spec!r}")
    fields = spec.split()
    if len(fields) != _FIELDS:
        raise _invalid(
            f'The cron spec "{spec}" has {len(fields)} fields instead of five: minute, hour, day '
            "of month, month, day of week"
        )
    try:
        next(CronSim(spec, _EPOCH))
    except StopIteration as error:
        raise _never(spec) from error
    except CronSimError as error:
        minute, hour, day, month, weekday = fields
        # The parser also refuses the 30th of February, which is well-formed.
        if _parses(f"{minute} {hour} {day} * {weekday}") and _parses(f"0 0 1 {month} *"):
            raise _never(spec) from error
        raise _invalid(f'The cron spec "{spec}" cannot be read: {error}') from error


def _parses(spec: str) -> bool:
    try:
        CronSim(spec, _EPOCH)
    except CronSimError:
        return False
    return True


def _never(spec: str) -> BadRequest:
    return _invalid(f'The cron spec "{spec}" will never match any time')


@lru_cache(maxsize=1024)
def _hash(identifier: str) -> int:
    digest = blake2b(identifier.encode(), digest_size=8, person=b"cron offset")
    return int.from_bytes(digest.digest(), "big")
