"""The naive oracle: documents in plain lists, every program run from scratch, nothing remembered.

It shares no code with the product but the types of values and the reading of ids. Besides the
answer it says what had to be looked at for it (`Read`), from which follows who may run again.

Source of facts: docs/architecture.md, "One live query"; docs/reference/queries.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from reactive_store.values.ids import decode_id
from reactive_store.values.value import UNSET, Int64
from tests.engine.search_model import Stored, find
from tests.trust.oracle.ordering import at_path, order_key
from tests.trust.oracle.worlds import Table

__all__ = [
    "END",
    "Answer",
    "Cursor",
    "Doc",
    "Fault",
    "Model",
    "Read",
    "State",
    "Written",
    "evaluate",
]

_LIMITS: dict[str, int | None] = {"collect": None, "first": 1, "unique": 2}
END = "the end"  # the position behind the last row of a query


class Doc:
    """One version of a document."""

    __slots__ = ("_keys", "created", "fields", "id", "internal")

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields
        self.id: str = fields["_id"]
        self.created: float = fields["_creationTime"]
        self.internal = decode_id(self.id).internal_id
        self._keys: dict[tuple[str, ...], tuple[Any, ...]] = {}

    def key(self, paths: tuple[str, ...]) -> tuple[Any, ...]:
        """Where an index of these paths holds it; a path "_id" stands for the raw id."""
        found = self._keys.get(paths)
        if found is None:
            found = self._keys[paths] = tuple(
                self.internal if path == "_id" else order_key(at_path(self.fields, path))
                for path in paths
            )
        return found


State = Mapping[str, Mapping[str, Doc]]
"""By table, by id, in order of creation. Never changed in place."""

Written = tuple[str, Doc | None, Doc | None]
"""Table, version before, version after."""


class Fault(Exception):
    """The program fails: `says` is part of the text, `data` what a ConvexError carries."""

    def __init__(self, says: str, data: Any = UNSET) -> None:
        super().__init__(says)
        self.says = says
        self.data = data


@dataclass(frozen=True)
class Cursor:
    """Stands for the text of a cursor: the query's shape and the key of the last row passed."""

    table: str
    shape: str
    position: Any


@dataclass(frozen=True)
class Read:
    """Rows of an index that an answer depends on."""

    table: str
    paths: tuple[str, ...]
    bounds: tuple[tuple[str, int, Any], ...] = ()
    conditions: tuple[Any, ...] = ()
    descending: bool = False
    beyond: Any = None  # only rows after this key, in the order of the query
    until: Any = None  # only rows up to this key, itself included

    def holds(self, doc: Doc) -> bool:
        """Whether the document lies in the rows, whatever the conditions say."""
        key = doc.key(self.paths)
        for comparator, position, value in self.bounds:
            if not _compares(comparator, key[position], value):
                return False
        if self.beyond is not None and not self._follows(key, self.beyond):
            return False
        return self.until is None or not self._follows(key, self.until)

    def _follows(self, key: Any, other: Any) -> bool:
        return key < other if self.descending else key > other

    def touched_by(self, changes: Iterable[Written]) -> bool:
        """Whether a version before or after lies in the rows and passes the conditions."""
        for table, *versions in changes:
            if table != self.table:
                continue
            for doc in versions:
                if doc is not None and self.holds(doc) and _passes_or_raises(self.conditions, doc):
                    return True
        return False


@dataclass(frozen=True)
class SearchRead:
    """A search that an answer depends on.

    Its order rests on statistics of the whole table, so whatever changes a text of the table may
    touch it; what leaves the texts alone does only where it is, or was, found.
    """

    table: str
    field: str
    text: str
    filters: tuple[tuple[str, Any], ...]

    def touched_by(self, changes: Iterable[Written]) -> bool:
        for table, old, new in changes:
            if table != self.table:
                continue
            texts = [None if doc is None else doc.fields.get(self.field) for doc in (old, new)]
            if texts[0] != texts[1] or any(
                doc is not None and self.finds(doc) for doc in (old, new)
            ):
                return True
        return False

    def finds(self, doc: Doc) -> bool:
        return bool(find([self.stored(doc)], self.text, self.wanted))

    def stored(self, doc: Doc) -> Stored:
        values = tuple(at_path(doc.fields, path) for path, _ in self.filters)
        return Stored(doc.internal, doc.created, doc.fields.get(self.field), values)

    @property
    def wanted(self) -> dict[int, Any]:
        return {position: value for position, (_, value) in enumerate(self.filters)}


@dataclass
class Answer:
    """What a program comes to at one instant."""

    value: Any = None
    fault: Fault | None = None
    reads: list[Read | SearchRead] = field(default_factory=list)
    saw_identity: bool = False
    # Where its page ended, if it took one and the program did not fail.
    end: Any = None

    def touched_by(self, changes: Sequence[Written]) -> bool:
        return any(read.touched_by(changes) for read in self.reads)


def _compares(comparator: str, left: Any, right: Any) -> bool:
    match comparator:
        case "eq":
            return bool(left == right)
        case "neq":
            return bool(left != right)
        case "lt":
            return bool(left < right)
        case "lte":
            return bool(left <= right)
        case "gt":
            return bool(left > right)
        case _:
            return bool(left >= right)


def _test(condition: Any, fields: dict[str, Any]) -> bool:
    kind = condition[0]
    if kind == "and":
        return all(_test(part, fields) for part in condition[1:])
    if kind == "or":
        return any(_test(part, fields) for part in condition[1:])
    if kind == "not":
        return not _test(condition[1], fields)
    if kind == "is":
        value = at_path(fields, condition[1])
        if not isinstance(value, bool):
            raise Fault("Cannot use value")
        return value
    if kind == "paths":
        _, comparator, left, right = condition
        keys = [order_key(at_path(fields, path)) for path in (left, right)]
        return _compares(comparator, *keys)
    if kind == "sum":
        value = at_path(fields, condition[1])
        if isinstance(value, bool | Int64) or not isinstance(value, int | float):
            raise Fault("Cannot add")
        return bool(order_key(float(value) + condition[2]) > order_key(condition[3]))
    comparator, path, value, _style = condition
    return _compares(comparator, order_key(at_path(fields, path)), order_key(value))


def _passes_or_raises(conditions: Sequence[Any], doc: Doc) -> bool:
    try:
        return all(_test(condition, doc.fields) for condition in conditions)
    except Fault:
        return True


class _Evaluation:
    """One run of one program."""

    def __init__(
        self, tables: Mapping[str, Table], state: State, who: str, pin: Any, cursors: Any
    ) -> None:
        self._tables = tables
        self._state = state
        self._who = who
        self._pin = pin  # where the page ends since it was first taken; None: not taken yet
        self._cursors = cursors  # text → Cursor
        self.answer = Answer()

    def run(self, steps: Sequence[Any]) -> list[Any]:
        return [self._step(step) for step in steps]

    def _step(self, step: Any) -> Any:
        match step[0]:
            case "get":
                return None if step[1] is None else self._get(step[1])
            case "scan":
                return self._scan(step[1])
            case "join":
                docs = _as_list(self._scan(step[1]))
                return [
                    [doc, self._get(doc[step[2]]) if isinstance(doc[step[2]], str) else None]
                    for doc in docs
                ]
            case "if":
                return self.run(step[2] if _as_list(self._scan(step[1])) else step[3])
            case "refuse":
                found = _as_list(self._scan(step[1]))
                if found:
                    raise Fault("Uncaught ConvexError", {"found": len(found)})
                return None
            case "pause":
                return None
            case _:
                self.answer.saw_identity = True
                return None if self._who == "nobody" else self._who

    def _get(self, id: str) -> Any:
        internal = decode_id(id).internal_id
        for name, docs in self._state.items():
            if id in docs:
                self.answer.reads.append(Read(name, ("_id",), (("eq", 0, internal),)))
                return docs[id].fields
        # Deleted: whichever table it was of, nobody else has that id.
        for name in self._tables:
            self.answer.reads.append(Read(name, ("_id",), (("eq", 0, internal),)))
        return None

    def _scan(self, scan: Any) -> Any:
        table, index, bounds, conditions, order, ending = scan
        if isinstance(index, tuple):
            return self._search(scan)
        paths = self._paths(table, index)
        positioned = tuple(
            (
                comparator,
                paths.index(path),
                decode_id(value).internal_id if path == "_id" else order_key(value),
            )
            for comparator, path, value in bounds
        )
        read = Read(table, paths, positioned, conditions, order == "desc")
        if isinstance(ending, tuple) and ending[0] == "page":
            return self._page(read, scan)
        limit = _LIMITS[ending] if isinstance(ending, str) else ending[1]
        found, _, _ = self._walk(read, limit)
        return self._ended(found, ending, table)

    def _ended(self, found: list[Doc], ending: Any, table: str) -> Any:
        values = [doc.fields for doc in found]
        if ending == "unique" and len(values) > 1:
            raise Fault(
                f"unique() query returned more than one result from table {table}:\n "
                f"[{found[0].id}, {found[1].id}, ...]"
            )
        if ending in ("first", "unique"):
            return values[0] if values else None
        return values

    def _search(self, scan: Any) -> Any:
        table, _, links, conditions, _, ending = scan
        (asked,) = [(path, text) for kind, path, text in links if kind == "search"]
        filters = tuple((path, value) for kind, path, value in links if kind == "eq")
        read = SearchRead(table, *asked, filters)
        self.answer.reads.append(read)
        docs = {doc.internal: doc for doc in self._state.get(table, {}).values()}
        ranks = find([read.stored(doc) for doc in docs.values()], read.text, read.wanted)
        rows = [
            ((-score, -docs[name].created, _inverted(name)), docs[name]) for score, name in ranks
        ]
        is_page = isinstance(ending, tuple) and ending[0] == "page"
        if is_page:
            return self._search_page(rows, scan)
        limit = _LIMITS[ending] if isinstance(ending, str) else ending[1]
        found: list[Doc] = []
        for _, doc in rows:
            if len(found) == limit:
                break
            if all(_test(condition, doc.fields) for condition in conditions):
                found.append(doc)
        return self._ended(found, ending, table)

    def _search_page(self, rows: list[tuple[Any, Doc]], scan: Any) -> dict[str, Any]:
        table, _, _, conditions, _, (_, size, start, given) = scan
        shape = repr(scan[:5])
        if start is not None:
            position = self._cursors[start].position
            if position == END:
                self.answer.end = Cursor(table, shape, END)
                return _page_value([], True, self.answer.end, None)
            rows = [row for row in rows if row[0] > position]
        pin = self._pin if given is None else self._cursors[given].position
        if pin is not None:
            rows, size = [row for row in rows if pin == END or row[0] <= pin], len(rows) + 1
        found: list[Any] = []
        end: Any = END if pin is None else pin
        for key, doc in rows:
            if all(_test(condition, doc.fields) for condition in conditions):
                found.append(doc.fields)
            if len(found) == size:
                end = key
                break
        self.answer.end = Cursor(table, shape, end)
        return _page_value(found, end == END, self.answer.end, None)

    def _paths(self, table: str, index: str | None) -> tuple[str, ...]:
        if index == "by_id":
            return ("_id",)
        declared: tuple[str, ...] = ()
        if index not in (None, "by_creation_time"):
            declared = self._tables[table].indexes[index]
        return (*declared, "_creationTime", "_id")

    def _rows(self, read: Read) -> Iterator[Doc]:
        docs = [doc for doc in self._state.get(read.table, {}).values() if read.holds(doc)]
        docs.sort(key=lambda doc: doc.key(read.paths), reverse=read.descending)
        return iter(docs)

    def _walk(self, read: Read, limit: int | None) -> tuple[list[Doc], list[Any], bool]:
        """The documents found, the keys of all rows looked at, whether the rows ended."""
        found: list[Doc] = []
        keys: list[Any] = []
        if limit == 0:
            return found, keys, False
        for doc in self._rows(read):
            keys.append(doc.key(read.paths))
            try:
                passes = all(_test(condition, doc.fields) for condition in read.conditions)
            except Fault:
                self.answer.reads.append(replace(read, until=keys[-1]))
                raise
            if passes:
                found.append(doc)
                if len(found) == limit:
                    self.answer.reads.append(replace(read, until=keys[-1]))
                    return found, keys, False
        self.answer.reads.append(read)
        return found, keys, True

    def _page(self, read: Read, scan: Any) -> dict[str, Any]:
        _, size, start, end = scan[5]
        shape = repr(scan[:5])
        if start is not None:
            position = self._cursors[start].position
            if position == END:
                self.answer.end = Cursor(read.table, shape, END)
                return _page_value([], True, self.answer.end, None)
            read = replace(read, beyond=position)
        # Where a page may be split counts all rows looked at, so they all matter to its answer.
        first = len(self.answer.reads)
        try:
            return self._page_of(read, shape, size, end)
        finally:
            page_reads = self.answer.reads[first:]
            self.answer.reads[first:] = [replace(each, conditions=()) for each in page_reads]

    def _page_of(self, read: Read, shape: str, size: int, given: str | None) -> dict[str, Any]:
        pin = self._pin if given is None else self._cursors[given].position
        if pin is None:
            found, keys, ended = self._walk(read, size)
            end = END if ended else keys[-1]
        else:
            if pin != END:
                read = replace(read, until=pin)
            found, keys, _ = self._walk(read, None)
            end = pin
        middle = Cursor(read.table, shape, keys[len(keys) // 2]) if len(keys) > 2 else None
        self.answer.end = Cursor(read.table, shape, end)
        return _page_value([doc.fields for doc in found], end == END, self.answer.end, middle)


def _inverted(name: bytes) -> bytes:
    return bytes(255 - byte for byte in name)


def _page_value(page: list[Any], is_done: bool, cursor: Cursor, middle: Cursor | None) -> Any:
    return {
        "page": page,
        "isDone": is_done,
        "continueCursor": cursor,
        "splitCursor": middle,
        "pageStatus": None,
    }


def _as_list(found: Any) -> list[Any]:
    if found is None:
        return []
    return found if isinstance(found, list) else [found]


def evaluate(
    tables: Mapping[str, Table],
    state: State,
    program: Sequence[Any],
    *,
    who: str,
    pin: Any,
    cursors: Mapping[str, Cursor],
) -> Answer:
    """Run a program, with every reference in it resolved, against a state."""
    evaluation = _Evaluation(tables, state, who, pin, cursors)
    answer = evaluation.answer
    try:
        answer.value = evaluation.run(program)
    except Fault as fault:
        answer.fault, answer.end = fault, None
    return answer


class Model:
    """The documents over time: `states` by commit timestamp, the newest last."""

    def __init__(self, ts: int) -> None:
        self.states: dict[int, State] = {ts: {}}
        self.ts = ts
        self.state: State = {}

    def at(self, ts: int) -> State:
        """The state at a timestamp."""
        return self.states[max(known for known in self.states if known <= ts)]

    def commit(self, ts: int, writes: Sequence[Any], told: list[Any]) -> list[Written]:
        """Apply a mutation that has committed. `told`: id and creation time of each insert."""
        applied = _Applied({table: dict(docs) for table, docs in self.state.items()}, told)
        applied.apply(writes)
        changes: list[Written] = []
        for table, name in applied.written:
            old = self.state.get(table, {}).get(name)
            new = applied.draft.get(table, {}).get(name)
            if old is not None or new is not None:
                changes.append((table, old, new))
        if applied.written:
            assert ts > self.ts, f"a commit at {ts}, after one at {self.ts}"
            self.ts, self.state = ts, applied.draft
            self.states[ts] = applied.draft
        return changes


class _Applied:
    """The writes of one mutation, laid over a state."""

    def __init__(self, draft: dict[str, dict[str, Doc]], told: list[Any]) -> None:
        self.draft = draft
        self.written: dict[tuple[str, str], None] = {}
        self._told = told
        self._inserts = 0

    def apply(self, writes: Sequence[Any]) -> None:
        for write in writes:
            match write:
                case ("nested", inner, True):
                    self._inserts += count_inserts(inner)
                case ("nested", inner, _):
                    self.apply(inner)
                case ("insert", table, fields):
                    self._insert(table, fields)
                case (kind, table, target, *rest):
                    name = target if isinstance(target, str) else self._told[target[1]]["id"]
                    self._change(kind, table, self.draft[table][name], *rest)

    def _change(self, kind: str, table: str, doc: Doc, fields: Any = None) -> None:
        match kind:
            case "again":
                self._put(table, doc.id, None)
                self._insert(table, _own(doc.fields))
            case "delete":
                self._put(table, doc.id, None)
            case "patch":
                self._overwrite(table, doc, {**_own(doc.fields), **fields})
            case "replace":
                self._overwrite(table, doc, fields)

    def _overwrite(self, table: str, doc: Doc, own: dict[str, Any]) -> None:
        kept = {name: value for name, value in own.items() if value is not UNSET}
        fields = {**kept, "_id": doc.id, "_creationTime": doc.created}
        if order_key(fields) != order_key(doc.fields):
            self._put(table, doc.id, Doc(fields))

    def _insert(self, table: str, fields: dict[str, Any]) -> None:
        told = self._told[self._inserts]
        self._inserts += 1
        self._put(
            table, told["id"], Doc({**fields, "_id": told["id"], "_creationTime": told["born"]})
        )

    def _put(self, table: str, id: str, doc: Doc | None) -> None:
        self.written[table, id] = None
        docs = self.draft.setdefault(table, {})
        if doc is None:
            del docs[id]
        else:
            docs[id] = doc


def _own(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name[0] != "_"}


def count_inserts(writes: Sequence[Any]) -> int:
    """How many documents a list of writes adds, those it takes away again included."""
    return sum(
        count_inserts(write[1]) if write[0] == "nested" else write[0] in ("insert", "again")
        for write in writes
    )
