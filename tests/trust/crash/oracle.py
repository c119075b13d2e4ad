"""Whether a disk holds what it must: the judge of every image and of every directory after a fault.

`History` is made of the marks of a tape. It knows every commit ever handed in, so the state after
any number of them is computed, not remembered. A disk is right when its newest timestamp is that of
a commit handed in (or none), is not below the newest acknowledged one, and everything it holds, now
and at an earlier readable time, by table and by every index, is the state after exactly the commits
up to there; when the files are sound by the store's own check; and when it takes another commit
that is there after opening it again.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.persistence.contract import (
    Commit,
    DocumentWrite,
    IndexId,
    IndexWrite,
    TableNumber,
    Timestamp,
)
from reactive_store.persistence.sqlite import SqlitePersistence
from tests.trust.crash.recording_vfs import Event, Mark
from tests.trust.crash.workload import (
    DATA,
    Answer,
    Ask,
    Durable,
    Global,
    Submitted,
    Trimming,
    ask,
    live,
)

__all__ = [
    "ACKNOWLEDGED",
    "History",
    "Required",
    "difference",
    "problems_of",
    "problems_of_requests",
]

ACKNOWLEDGED = "acknowledged"  # begins every problem that is a loss and nothing worse

_TABLE, _INDEX = TableNumber(999_999), IndexId(999_999)
_LIMITS = Limits(page_cache_bytes=1 << 20)

State = tuple[dict[tuple[int, bytes], tuple[int, bytes]], dict[tuple[int, bytes], bytes]]


@dataclass(slots=True)
class Required:
    """What must hold at one point of the stream."""

    durable_ts: int = 0
    readable_ts: int = 0  # nothing before it has to be
    globals: dict[str, bytes] = field(default_factory=dict)
    asked: dict[Ask, Answer | None] = field(default_factory=dict)

    def hear(self, said: Any) -> None:
        match said:
            case Durable():
                self.durable_ts = max(self.durable_ts, said.ts)
            case Trimming():
                self.readable_ts = max(self.readable_ts, said.ts)
            case Global():
                self.globals[said.name] = said.value
            case Answer():
                self.asked[said.ask] = said
            case Ask():
                self.asked.setdefault(said, None)


class History:
    """Every commit handed in, in order, and the state after each."""

    def __init__(self, events: Sequence[Event]) -> None:
        commits: dict[int, Commit] = {}
        for event in events:
            if isinstance(event, Mark) and isinstance(event.value, Submitted):
                for commit in event.value.commits:
                    commits[commit.ts] = commit
        # After a crash a timestamp may be given anew; the workload's clock does not do so.
        self.commits = [commits[ts] for ts in sorted(commits)]
        self.timestamps = [commit.ts for commit in self.commits]
        self._states: list[State] = [({}, {})]

    def state_at(self, ts: int) -> State:
        count = bisect_right(self.timestamps, ts)
        while len(self._states) <= count:
            documents, entries = (dict(part) for part in self._states[-1])
            commit = self.commits[len(self._states) - 1]
            for write in commit.documents:
                if write.value is None:
                    documents.pop((write.table, write.id), None)
                else:
                    documents[write.table, write.id] = (commit.ts, write.value)
            for entry in sorted(commit.entries, key=lambda each: each.present):
                if entry.present:
                    entries[entry.index, entry.key] = entry.id
                elif entries.get((entry.index, entry.key)) == entry.id:
                    del entries[entry.index, entry.key]
            self._states.append((documents, entries))
        return self._states[count]

    def spaces(self) -> tuple[set[int], set[tuple[int, int]]]:
        """Every table, and every index with its table."""
        tables = {write.table for commit in self.commits for write in commit.documents}
        indexes = {(e.index, e.table) for commit in self.commits for e in commit.entries}
        return tables, indexes


def difference(store: SqlitePersistence, history: History, ts: int) -> str | None:
    """What the store shows at a timestamp beside what it should; None: the same."""
    documents, entries = history.state_at(ts)
    tables, indexes = history.spaces()
    at = Timestamp(ts)
    for table in sorted(tables):
        page = store.scan_table(
            TableNumber(table), b"", None, at, descending=False, limit=1_000_000
        )
        found = {row.id: (row.ts, row.value) for row in page.rows}
        wanted = {key[1]: value for key, value in documents.items() if key[0] == table}
        if found != wanted:
            return f"at {ts}, table {table}: {_told(found, wanted)}"
    for index, table in sorted(indexes):
        page = store.scan(IndexId(index), b"", None, at, descending=False, limit=1_000_000)
        got = {row.key: (row.id, row.ts, row.value) for row in page.rows}
        want = {
            key: (name, *documents[table, name])
            for (number, key), name in entries.items()
            if number == index
        }
        if got != want or [row.key for row in page.rows] != sorted(got):
            return f"at {ts}, index {index}: {_told(got, want)}"
    return None


def _told(found: dict[bytes, Any], wanted: dict[bytes, Any]) -> str:
    missing = [key.hex()[:16] for key in wanted.keys() - found.keys()]
    extra = [key.hex()[:16] for key in found.keys() - wanted.keys()]
    both = wanted.keys() & found.keys()
    differing = [key.hex()[:16] for key in both if wanted[key] != found[key]]
    return f"missing {missing[:3]}, nobody wrote {extra[:3]}, differing {differing[:3]}"


async def problems_of(
    directory: Path,
    history: History,
    required: Required,
    *,
    seed: int,
    reopen: bool = False,
    append: bool = True,
) -> list[str]:
    """What is wrong with the store in a directory; empty when it is as it must be.

    `append`: it has to take another commit; `reopen`: and that has to be there afterwards.

    Cost     a few milliseconds; `reopen` adds half of it
    """
    try:
        store = await SqlitePersistence.open(directory / DATA, limits=_LIMITS)
    except BadRequest as error:
        return [f"it does not open: {error.message}"]
    try:
        return await _judge(
            store, directory, history, required, random.Random(seed), reopen, append
        )
    finally:
        await store.close()


async def _judge(
    store: SqlitePersistence,
    directory: Path,
    history: History,
    required: Required,
    rng: random.Random,
    reopen: bool,
    append: bool,
) -> list[str]:
    last = store.last_ts
    problems = []
    if last < required.durable_ts:
        problems.append(f"{ACKNOWLEDGED} {required.durable_ts}, there is only {last}")
    if last and last not in history.timestamps:
        problems.append(f"its newest timestamp {last} was never handed in")
    readable = [ts for ts in history.timestamps if required.readable_ts <= ts < last]
    moments = [last, *rng.sample(readable, min(1, len(readable)))]
    problems += filter(None, (difference(store, history, ts) for ts in moments))
    for name, value in required.globals.items():
        if store.get_global(name) != value:
            problems.append(f"{ACKNOWLEDGED} global {name}, it is not there")
    problems += store.check()
    if problems or not append:
        return problems
    ts = Timestamp(max(last, required.durable_ts) + 1)
    name = ts.to_bytes(16, "big")
    fresh = Commit(
        ts,
        (DocumentWrite(_TABLE, name, b"{}", True),),
        (IndexWrite(_INDEX, b"k", _TABLE, name, True),),
    )
    await store.append([fresh])
    if not reopen:
        return _holds(store, ts)
    await store.close()
    again = await SqlitePersistence.open(directory / DATA, limits=_LIMITS)
    try:
        before = difference(again, history, last)
        return [*_holds(again, ts), *([before] if before else []), *again.check()]
    finally:
        await again.close()


def _holds(store: SqlitePersistence, ts: int) -> list[str]:
    page = store.scan(_INDEX, b"", None, Timestamp(ts), descending=False, limit=9)
    found = [row.ts for row in page.rows]
    return [] if found == [ts] and store.last_ts == ts else [f"a new commit {ts} reads as {found}"]


async def problems_of_requests(directory: Path, required: Required, *, seed: int) -> list[str]:
    """Ask every request again under its own session and number, as a client does that was cut off.

    One that was answered is answered the same, at the same timestamp, without effect; one that was
    not takes effect once. After that the app's own data say how often each did.
    """
    problems: list[str] = []
    async with live(directory, None, seed=seed + 500_000) as backend:
        for what, answer in required.asked.items():
            now = await ask(backend, what)
            if answer is not None and (now.value, now.ts) != (answer.value, answer.ts):
                problems.append(
                    f"{what.path} {what.request} answered {now.value!r} at {now.ts}, "
                    f"before {answer.value!r} at {answer.ts}"
                )
        asks = list(required.asked)
        for name in "xy":
            wanted = sum(dict(each.args).get("name") == name for each in asks)
            found = await backend.query("counters:value", name=name)
            if found != wanted:
                problems.append(f"counter {name} is {found} after {wanted} increments")
        owners = sum(each.path == "accounts:openAccount" for each in asks)
        total = await backend.query("accounts:total")
        if total != owners * 2 * 10_000:
            problems.append(f"{owners} accounts hold {total} cents")
        entries = [e.split("/")[0] for e in await backend.query("ledger:survey", way="by_key")]
        wanted_keys = sorted(dict(e.args)["key"] for e in asks if e.path == "ledger:record")
        if entries != wanted_keys:
            problems.append(f"the ledger holds {entries}, asked were {wanted_keys}")
        sent = sum(each.path == "messages:send" for each in asks)
        bodies = [await backend.query("messages:bodies", channel=name) for name in "pq"]
        if sum(map(len, bodies)) != sent:
            problems.append(f"{sum(map(len, bodies))} messages after {sent} were sent")
    return problems
