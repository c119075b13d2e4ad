"""Has this history a serial order? A checker in the manner of Elle.

Lists tell the order of their versions themselves: every read is a prefix of the final list, or
something is wrong at once. Registers do not; there the order is that of commit timestamps where
all writers' are known, else what follows from transactions that read before they wrote and from
writes that were over before others began. From both come the dependencies, a graph, and its
cycles. A transaction that nobody heard the end of counts as committed once somebody saw a write of
it, and as never run otherwise.

Besides cycles, found without a graph:

    internal              a transaction contradicts itself
    G1a                   a read of what a failed transaction wrote
    G1b                   a read of a value its writer overwrote
    incompatible-order    two reads of a list of which none is the beginning of the other
    duplicate             an element twice
    garbage               a value nobody wrote
    lost-update           two transactions that changed what both had read
    cyclic-versions       the versions of a register in no order
    timestamp-reuse       two commits of one timestamp

Cost     about 100 µs per transaction, mostly for the edges
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tests.trust.history.cycles import RT, RW, SS, TS, WR, WW, Graph
from tests.trust.history.record import FAIL, NEVER_ASKED, NO_ANSWER, OK, UNKNOWN, Txn, as_text

__all__ = ["Anomaly", "check", "described"]


@dataclass(frozen=True, slots=True)
class Anomaly:
    """What is wrong, in words, with the transactions it takes to see it."""

    name: str
    text: str
    ids: tuple[int, ...]


def check(history: Sequence[Txn]) -> list[Anomaly]:
    """Everything that no serial order, equal to timestamp and real-time order, explains.

    Shapes   history: as `numbered` gives it
    """
    checker = _Checker(history)
    checker.find_internal()
    checker.find_versions()
    checker.find_lost_updates()
    checker.find_reused_timestamps()
    checker.order_sessions()
    checker.order_realtime()
    checker.order_timestamps()
    anomalies = checker.anomalies
    anomalies += [Anomaly(each.name, str(each), each.ids) for each in checker.graph.cycles()]
    return anomalies


def described(history: Sequence[Txn], anomalies: Iterable[Anomaly], most: int = 3) -> str:
    """The first anomalies, each with its transactions, for a failing test."""
    parts = []
    for number, anomaly in enumerate(anomalies):
        if number == most:
            parts.append("… and more")
            break
        parts.append(f"{anomaly.name}\n{anomaly.text}\n{as_text(history, anomaly.ids)}")
    return "\n".join(parts)


class _Checker:
    def __init__(self, history: Sequence[Txn]) -> None:
        self.history = history
        self.graph = Graph(len(history))
        self.anomalies: list[Anomaly] = []
        # key → value → its writer, and the last write of each writer.
        self.writers: dict[Any, dict[Any, Txn]] = defaultdict(dict)
        self.last_writes: dict[Any, dict[int, Any]] = defaultdict(dict)
        self.lists: set[Any] = set()
        for txn in history:
            for kind, key, value in txn.ops:
                if kind in ("append", "write"):
                    self.writers[key][value] = txn
                    self.last_writes[key][txn.id] = value
                if kind in ("append", "read"):
                    self.lists.add(key)
        # Reads that came from outside the transaction: key → (reader, value), first ones only.
        self.reads: dict[Any, list[tuple[Txn, Any]]] = defaultdict(list)
        self.seen: set[int] = set()  # transactions whose writes somebody saw

    def found(self, name: str, text: str, *transactions: Txn) -> None:
        self.anomalies.append(Anomaly(name, f"  {text}", tuple(txn.id for txn in transactions)))

    # Inside one transaction.

    def find_internal(self) -> None:
        for txn in self.history:
            if txn.status != OK:
                continue
            known: dict[Any, Any] = {}  # what a key must hold now, once it was read or written
            appended: dict[Any, list[Any]] = {}  # to lists that were not read before
            for kind, key, value in txn.ops:
                if kind == "append":
                    if key in known:
                        known[key] = [*known[key], value]
                    else:
                        appended.setdefault(key, []).append(value)
                elif kind == "write":
                    known[key] = value
                else:
                    self._check_read(txn, key, value, known, appended)

    def _check_read(
        self,
        txn: Txn,
        key: Any,
        value: Any,
        known: dict[Any, Any],
        appended: dict[Any, list[Any]],
    ) -> None:
        if key in known:
            if known[key] != value:
                self.found("internal", f"read {value} of {key}, had to be {known[key]}", txn)
            known[key] = value
            return
        own = appended.pop(key, [])
        known[key] = value
        if own and value[-len(own) :] != own:
            self.found("internal", f"read {value} of {key} after appending {own}", txn)
            return
        outside = value[: len(value) - len(own)] if own else value
        self.reads[key].append((txn, outside))

    # Versions and dependencies.

    def find_versions(self) -> None:
        for key, reads in self.reads.items():
            for reader, value in reads:
                for each in value if key in self.lists else (value,):
                    if each is not None:
                        self._check_source(reader, key, each)
        for key in self.writers.keys() | self.reads.keys():
            if key in self.lists:
                self._order_list(key)
            else:
                self._order_register(key)

    def _check_source(self, reader: Txn, key: Any, value: Any) -> None:
        writer = self.writers[key].get(value)
        if writer is None:
            self.found("garbage", f"read {value} of {key}, which nobody wrote", reader)
            return
        if writer is reader:
            self.found("internal", f"read {value} of {key} before writing it", reader)
            return
        self.seen.add(writer.id)
        if writer.status == FAIL:
            self.found("G1a", f"read {value} of {key} of a failed transaction", reader, writer)

    def _is_committed(self, txn: Txn) -> bool:
        return txn.status == OK or (txn.status == UNKNOWN and txn.id in self.seen)

    def _order_list(self, key: Any) -> None:
        reads = self.reads[key]
        writers = self.writers[key]
        longest: Sequence[Any] = max((value for _, value in reads), key=len, default=[])
        if len(set(longest)) < len(longest):
            reader = next(txn for txn, value in reads if value == longest)
            self.found("duplicate", f"{key} held an element twice: {longest}", reader)
            return
        fitting = []
        is_torn = False
        for reader, value in reads:
            if value != longest[: len(value)] and is_torn:
                continue  # one is enough
            if value != longest[: len(value)]:
                is_torn = True
                other = next(txn for txn, each in reads if each == longest)
                text = f"{key} was {value} and {longest}"
                self.found("incompatible-order", text, reader, other)
            else:
                fitting.append((reader, len(value)))
        versions = [writers.get(value) for value in longest]
        add = self.graph.add
        for older, newer, old, new in zip(
            versions, versions[1:], longest, longest[1:], strict=False
        ):
            if older is not None and newer is not None:
                add(older.id, newer.id, WW, f"appended {{}} then {{}} to {key}", old, new)
        present = set(longest)
        unseen = [
            (txn, value)
            for value, txn in writers.items()
            if txn.status == OK and value not in present
        ]
        if versions and versions[-1] is not None:
            for txn, value in unseen:
                last = versions[-1]
                add(last.id, txn.id, WW, f"appended {{}}, and {{}} unseen, to {key}", value)
        self._check_intermediate(key, fitting, longest, versions)
        for reader, length in fitting:
            source = versions[length - 1] if length else None
            if source is not None:
                why = f"appended {{}} to {key}, which the other saw"
                add(source.id, reader.id, WR, why, longest[length - 1])
            if length < len(longest):
                following = versions[length]
                if following is not None:
                    why = f"did not see {{}}, appended to {key} by the other"
                    add(reader.id, following.id, RW, why, longest[length])
                    continue
            for txn, value in unseen if length == len(longest) else ():
                add(reader.id, txn.id, RW, f"did not see {{}}, appended to {key}", value)

    def _check_intermediate(
        self,
        key: Any,
        reads: list[tuple[Txn, int]],
        longest: Sequence[Any],
        versions: list[Txn | None],
    ) -> None:
        last = self.last_writes[key]
        for reader, length in reads:
            writer = versions[length - 1] if length else None
            if writer is not None and writer is not reader:
                value = longest[length - 1]
                if last[writer.id] != value:
                    text = f"read {key} up to {value}, its writer had not finished"
                    self.found("G1b", text, reader, writer)

    def _order_register(self, key: Any) -> None:
        last = self.last_writes[key]
        final = {  # what committed transactions left, by value
            value: writer
            for value, writer in self.writers[key].items()
            if last[writer.id] == value and self._is_committed(writer)
        }
        add = self.graph.add
        readers: dict[Any, list[Txn]] = defaultdict(list)
        for reader, value in self.reads[key]:
            writer = self.writers[key].get(value)
            readers[value].append(reader)
            if writer is None or writer is reader:
                continue
            if last[writer.id] != value:
                text = f"read {value} of {key}, which its writer overwrote"
                self.found("G1b", text, reader, writer)
            add(writer.id, reader.id, WR, f"wrote {{}} to {key}, which the other saw", value)
        following = self._successors(key, final)
        for value, successors in following.items():
            for each in successors:
                newer = final[each]
                if value is not None:
                    older = final[value]
                    add(older.id, newer.id, WW, f"wrote {{}} then {{}} to {key}", value, each)
                for reader in readers[value]:
                    why = f"saw {{}} of {key}, before {{}}"
                    add(reader.id, newer.id, RW, why, value, each)

    def _successors(self, key: Any, final: dict[Any, Txn]) -> dict[Any, set[Any]]:
        """Version → versions that are known to have come later, the nearest ones."""
        following: dict[Any, set[Any]] = defaultdict(set)
        if final and all(writer.ts is not None for writer in final.values()):
            order = [None, *sorted(final, key=lambda value: final[value].ts or 0)]
            for older, newer in pairwise(order):
                following[older].add(newer)
            return following
        # Reading tells what a writer replaced.
        for reader, value in self.reads[key]:
            own = self.last_writes[key].get(reader.id)
            if own in final and own != value:
                following[value].add(own)
        by_writer = {writer.id: value for value, writer in final.items()}
        for older_id, newer_id in _realtime_edges(final.values()):
            following[by_writer[older_id]].add(by_writer[newer_id])
        knot = _cyclic(following)
        if knot:
            text = f"versions of {key} lie in a circle: {knot}"
            involved = [final[value] for value in knot if value in final]
            self.found("cyclic-versions", text, *involved)
            return {}
        kept = {old: new for old, new in following.items() if old is None or old in final}
        # The initial version comes before everything else; the first after it are enough.
        kept[None] = kept.get(None, set()) | (final.keys() - set().union(*kept.values()))
        return kept

    def find_lost_updates(self) -> None:
        for key, reads in self.reads.items():
            changed: dict[Any, list[Txn]] = defaultdict(list)
            for reader, value in reads:
                if self._is_committed(reader) and reader.id in self.last_writes[key]:
                    changed[len(value) if key in self.lists else value].append(reader)
            for value, updaters in changed.items():
                if len(updaters) > 1:
                    version = f"version {value}" if key in self.lists else f"the value {value}"
                    text = f"both changed {key} from {version}"
                    self.found("lost-update", text, *updaters[:2])

    # Orders that are not in the data.

    def find_reused_timestamps(self) -> None:
        by_ts: dict[int, Txn] = {}
        for txn in self.history:
            if txn.status == OK and txn.ts is not None and txn.writes:
                other = by_ts.setdefault(txn.ts, txn)
                if other is not txn:
                    self.found("timestamp-reuse", f"two commits at {txn.ts}", other, txn)

    def order_sessions(self) -> None:
        sessions: dict[str, list[Txn]] = defaultdict(list)
        for txn in self.history:
            if txn.session is not None and txn.status == OK:
                sessions[txn.session].append(txn)
        for session, members in sessions.items():
            members.sort(key=lambda txn: txn.place)
            for older, newer in pairwise(members):
                self.graph.add(older.id, newer.id, SS, f"session {session}")

    def order_realtime(self) -> None:
        told = [txn for txn in self.history if self._is_committed(txn)]
        for older, newer in _realtime_edges(told):
            self.graph.add(older, newer, RT, "was over before the other was asked")

    def order_timestamps(self) -> None:
        told = [txn for txn in self.history if txn.status == OK and txn.ts is not None]
        told.sort(key=lambda txn: (txn.ts, not txn.writes))
        # Readers between two commits are in no order among themselves.
        writer: Txn | None = None
        readers: list[Txn] = []
        for txn in told:
            if not txn.writes:
                readers.append(txn)
                if writer is not None:
                    self._add_timestamp(writer, txn)
                continue
            for reader in readers:
                self._add_timestamp(reader, txn)
            if writer is not None:
                self._add_timestamp(writer, txn)
            writer, readers = txn, []

    def _add_timestamp(self, older: Txn, newer: Txn) -> None:
        self.graph.add(older.id, newer.id, TS, "timestamps {} and {}", older.ts, newer.ts)


def _realtime_edges(transactions: Iterable[Txn]) -> Iterable[tuple[int, int]]:
    """(older, newer): older was over before newer was asked, and nothing known lies between.

    At most as many per transaction as ran at once.
    """
    events: list[tuple[float, int, Txn]] = []
    for txn in transactions:
        if txn.invoke != NEVER_ASKED:
            events.append((txn.invoke, 0, txn))  # of one instant, asking counts as first
        if txn.complete != NO_ANSWER and txn.status == OK:
            events.append((txn.complete, 1, txn))
    events.sort(key=lambda event: event[:2])
    frontier: set[int] = set()
    before: dict[int, set[int]] = {}
    for _, is_end, txn in events:
        if not is_end:
            before[txn.id] = set(frontier)
            for older in frontier:
                yield older, txn.id
        else:
            frontier -= before.pop(txn.id, set())
            frontier.add(txn.id)


def _cyclic(following: dict[Any, set[Any]]) -> list[Any]:
    """The values of some circle, or nothing."""
    values = list(following.keys() | {each for new in following.values() for each in new})
    numbers = {value: number for number, value in enumerate(values)}
    graph = Graph(len(values))
    for old, new in following.items():
        for each in new:
            graph.add(numbers[old], numbers[each], WW)
    for cycle in graph.cycles():
        return [values[number] for number in cycle.ids]
    return []
