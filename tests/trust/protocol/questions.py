"""The app of the simulated runs, as plain functions of a state: what every answer has to be.

Mutations leave one document per effect, named by the caller's token, so that whatever was lost or
done twice can be counted. `app/functions/app.py` is the same app for the real backend.

    value {name}   sum of the effects on a name
    both {}        all sums, and padding: long enough to come in pieces
    mine {name}    who asks, and the sum
    odd {name}     fails while the sum is odd
    page {…}       two tokens a page, in their order; a page keeps the end it got first
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = [
    "NAMES",
    "PAGE_SIZE",
    "QUESTIONS",
    "UNPINNED",
    "Effect",
    "History",
    "State",
    "Violation",
    "answer",
    "mutation_args",
]

NAMES: Final = ("a", "b", "c")
PAGE_SIZE: Final = 2
UNPINNED: Final = object()
_PAGE_ARGS: Final = {"paginationOpts": {"cursor": None, "numItems": PAGE_SIZE}}

QUESTIONS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("app:value", {"name": "a"}),
    ("app:value", {"name": "b"}),
    ("app:value", {"name": "c"}),
    ("app:both", {}),
    ("app:mine", {"name": "a"}),
    ("app:odd", {"name": "b"}),
    ("app:page", _PAGE_ARGS),
)

MUTATIONS: Final = ("app:add", "app:add", "app:add", "app:move", "app:refuse")


class Violation(AssertionError):
    """A promise was broken."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One document that a mutation left."""

    token: str
    name: str
    by: int
    who: str | None


class State:
    """Everything that is stored at one time."""

    __slots__ = ("counts", "effects")

    def __init__(self, effects: tuple[Effect, ...] = ()) -> None:
        self.effects = effects
        self.counts = dict.fromkeys(NAMES, 0)
        for effect in effects:
            self.counts[effect.name] += effect.by

    def with_effects(self, effects: tuple[Effect, ...]) -> State:
        """The state one commit later."""
        after = State.__new__(State)
        after.effects = self.effects + effects
        after.counts = dict(self.counts)
        for effect in effects:
            after.counts[effect.name] += effect.by
        return after


@dataclass(slots=True)
class History:
    """Every durable state, in order of time."""

    times: list[int] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    commits: dict[str, int] = field(default_factory=dict)  # by token; more than one: see `doubled`
    doubled: list[str] = field(default_factory=list)

    def append(self, ts: int, state: State, effects: tuple[Effect, ...]) -> None:
        """A commit is durable."""
        self.times.append(ts)
        self.states.append(state)
        for effect in effects:
            if effect.token in self.commits:
                self.doubled.append(effect.token)
            self.commits[effect.token] = ts

    @property
    def latest_ts(self) -> int:
        return self.times[-1] if self.times else 0

    def at(self, ts: int) -> State:
        """The state as of a time."""
        place = bisect_right(self.times, ts)
        return self.states[place - 1] if place else State()


def answer(
    path: str, args: dict[str, Any], who: str | None, state: State, end: object
) -> tuple[str, Any]:
    """("value", …) or ("failed", error data). `end`: where a page ends, or UNPINNED."""
    match path:
        case "app:value":
            return "value", state.counts[args["name"]]
        case "app:both":
            return "value", {**state.counts, "padding": "ä€𝄞" * 60}
        case "app:mine":
            return "value", [who, state.counts[args["name"]]]
        case "app:odd":
            count = state.counts[args["name"]]
            return ("failed", {"odd": count}) if count % 2 else ("value", count)
        case _:
            tokens = sorted(effect.token for effect in state.effects)
            if end is UNPINNED:
                end = page_end(state)
            return "value", tokens if end is None else [t for t in tokens if t <= str(end)]


def page_end(state: State) -> str | None:
    """Where a page that is asked for now ends: the token of its last row, None for no end."""
    tokens = sorted(effect.token for effect in state.effects)
    return tokens[PAGE_SIZE - 1] if len(tokens) >= PAGE_SIZE else None


def mutation_args(what: int, token: str) -> tuple[str, dict[str, Any]]:
    """The call that a number stands for."""
    path = MUTATIONS[what % len(MUTATIONS)]
    name = NAMES[what // len(MUTATIONS) % len(NAMES)]
    if path == "app:move":
        return path, {"source": name, "target": NAMES[(NAMES.index(name) + 1) % 3], "token": token}
    return path, {"name": name, "token": token}


def effects_of(path: str, args: dict[str, Any], who: str | None) -> tuple[Effect, ...]:
    """What a mutation leaves."""
    token = args["token"]
    if path == "app:move":
        return (
            Effect(f"{token}-", args["source"], -1, who),
            Effect(f"{token}+", args["target"], 1, who),
        )
    return (Effect(token, args["name"], 1, who),)


def marks_of(path: str, token: str) -> tuple[str, ...]:
    """The tokens of what a mutation leaves."""
    return (f"{token}-", f"{token}+") if path == "app:move" else (token,)
