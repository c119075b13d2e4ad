"""Pages of a query: options, cursors, the loop that reads one page, and its result.

A page is the range (cursor, end] of a query. Its end is where reading stopped, unless the caller
names it (`endCursor`) or an earlier run of the same live query did (the *journal*); then the whole
range is read, so pages of a list neither overlap nor leave gaps while rows come and go.

- A cursor is opaque, belongs to one query (its fingerprint), and is the same for the same position.
- Reading is limited by `numItems`, or by the rows and bytes the caller allows; a page always makes
  progress.
- What decides about a page is every row in its range, also those the filter drops (they move
  `splitCursor` and use up `maximumRowsRead`); so its read is remembered without the filter.

Source of facts: docs/reference/pagination.md; what Convex's npm client 1.48 sends and expects.
"""

from __future__ import annotations

import binascii
import math
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, NoReturn, NotRequired, TypedDict, Unpack, cast

from reactive_store.engine.interval import Interval, after
from reactive_store.engine.reads import Predicate
from reactive_store.engine.search_scan import SearchScan
from reactive_store.engine.transaction import Scan, Transaction
from reactive_store.errors import BadRequest
from reactive_store.functions.unawaited import Forgetful
from reactive_store.limits import Limits
from reactive_store.values.document import Document

__all__ = [
    "BREATH_ROWS",
    "CursorCodec",
    "Page",
    "PageRequest",
    "PageSource",
    "PaginationFields",
    "PaginationOpts",
    "ReadScope",
    "fingerprint",
    "parse_options",
    "read_page",
]

BREATH_ROWS: Final = 1000
"""A scan lets others run after so many rows."""

_SPLIT_RECOMMENDED: Final = "SplitRecommended"
_SPLIT_REQUIRED: Final = "SplitRequired"
_READ_LIMITS: Final = frozenset(("TooManyDocumentsRead", "TooManyBytesRead", "TooManyReads"))


class PaginationFields(TypedDict):
    """What a client sends to ask for a page, as it is on the wire."""

    numItems: int
    cursor: str | None  # null: from the beginning
    endCursor: NotRequired[str | None]
    id: NotRequired[float]  # tells apart equal requests of a client; means nothing here
    maximumRowsRead: NotRequired[int]
    maximumBytesRead: NotRequired[int]


class _AnySpelling(TypedDict, total=False):
    numItems: int
    num_items: int
    cursor: str | None
    endCursor: str | None
    end_cursor: str | None
    id: float
    maximumRowsRead: int
    maximum_rows_read: int
    maximumBytesRead: int
    maximum_bytes_read: int


_TO_WIRE: Final = {
    "num_items": "numItems",
    "end_cursor": "endCursor",
    "maximum_rows_read": "maximumRowsRead",
    "maximum_bytes_read": "maximumBytesRead",
}


class PaginationOpts(dict[str, Any]):
    """What a client sends to ask for a page; annotate an argument `pagination_opts` with it.

    In Python it is made as `PaginationOpts(num_items=20)`, or with the names of the wire, which are
    the ones it has as a mapping; without a cursor it asks for the first page.

    Raises   TypeError for another name, or one given in both spellings
    """

    def __init__(
        self, options: Mapping[str, Any] | None = None, /, **named: Unpack[_AnySpelling]
    ) -> None:
        super().__init__(cursor=None)
        given: set[str] = set()
        for name, value in (*(options or {}).items(), *named.items()):
            wire = _TO_WIRE.get(name, name)
            if wire not in PaginationFields.__annotations__:
                raise TypeError(f"PaginationOpts has no {name!r}")
            if wire in given:
                raise TypeError(f"PaginationOpts got {wire!r} twice")
            given.add(wire)
            self[wire] = value


@dataclass(frozen=True, slots=True, eq=False)
class Page(Mapping[str, Any]):
    """One page. As a mapping it has the names and values clients expect, so it can be returned.

    `page` holds the documents; `continue_cursor` is the next page's cursor, also when `is_done`.
    `split_cursor` divides the page in two, `page_status` says whether that is advised
    ("SplitRecommended") or needed ("SplitRequired": the page is shorter than asked).
    """

    page: list[Any]
    is_done: bool
    continue_cursor: str
    split_cursor: str | None = None
    page_status: str | None = None

    def to_value(self) -> dict[str, Any]:
        """The page as a plain dict in the official shape."""
        return {
            "page": self.page,
            "isDone": self.is_done,
            "continueCursor": self.continue_cursor,
            "splitCursor": self.split_cursor,
            "pageStatus": self.page_status,
        }

    def __getitem__(self, name: str) -> Any:
        return self.to_value()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(("page", "isDone", "continueCursor", "splitCursor", "pageStatus"))

    def __len__(self) -> int:
        return 5


class CursorCodec:
    """Positions in a query ⇄ text that says nothing to its holder and cannot be made up.

    A position holds values of documents, perhaps of some that a filter kept from the reader. So it
    is sealed: the seal is a keyed hash of the content, and the content is masked with a stream
    derived from the seal. Equal positions give equal text, which keeps results comparable.

    Shapes   a position is the key of the last row passed, or None for the end of the query
    Cost     about 6 µs each way
    """

    __slots__ = ("_mask_key", "_seal_key")

    _VERSION = b"\x01"
    _SEAL_BYTES = 16
    _FINGERPRINT_BYTES = 8
    _AT_KEY, _AT_END = b"\x01", b"\x00"

    def __init__(self, secret: bytes) -> None:
        self._seal_key = blake2b(b"cursor seal" + secret, digest_size=32).digest()
        self._mask_key = blake2b(b"cursor mask" + secret, digest_size=32).digest()

    def encode(self, query: bytes, position: bytes | None) -> str:
        """The cursor for a position of the query with that fingerprint."""
        at = self._AT_END if position is None else self._AT_KEY + position
        content = self._VERSION + query + at
        seal = self._seal(content)
        return urlsafe_b64encode(seal + self._mask(seal, content)).rstrip(b"=").decode("ascii")

    def decode(self, query: bytes, cursor: str) -> bytes | None:
        """The position a cursor names.

        Raises   BadRequest[InvalidCursor] for a cursor of another query, or no cursor at all
        """
        try:
            text = cursor.encode("ascii").translate(bytes.maketrans(b"-_", b"+/"))
            sealed = binascii.a2b_base64(text + b"=" * (-len(text) % 4), strict_mode=True)
        except ValueError as error:
            raise _unreadable_cursor() from error
        seal = sealed[: self._SEAL_BYTES]
        content = self._mask(seal, sealed[self._SEAL_BYTES :])
        if self._seal(content) != seal or not content.startswith(self._VERSION):
            raise _unreadable_cursor()
        end = 1 + self._FINGERPRINT_BYTES
        if content[1:end] != query:
            raise _invalid_cursor(
                "Tried to run a query starting from a cursor, but it looks like this cursor is "
                "from a different query."
            )
        return content[end + 1 :] if content[end : end + 1] == self._AT_KEY else None

    def _seal(self, content: bytes) -> bytes:
        return blake2b(content, key=self._seal_key, digest_size=self._SEAL_BYTES).digest()

    def _mask(self, seal: bytes, content: bytes) -> bytes:
        size = len(content)
        stream = b"".join(
            blake2b(seal + block.to_bytes(4, "big"), key=self._mask_key).digest()
            for block in range(-(-size // 64))
        )
        masked = int.from_bytes(content, "big") ^ int.from_bytes(stream[:size], "big")
        return masked.to_bytes(size, "big")


def _invalid_cursor(reason: str) -> BadRequest:
    # Clients start a list anew when they see this data.
    return BadRequest(
        f"InvalidCursor: {reason}",
        code="InvalidCursor",
        data={"isConvexSystemError": True, "paginationError": "InvalidCursor"},
    )


def _unreadable_cursor() -> BadRequest:
    return _invalid_cursor("Failed to parse cursor")


def fingerprint(parts: Iterable[bytes]) -> bytes:
    """Eight bytes that stand for a query: equal for equal parts, in order."""
    digest = blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Checked options of one page."""

    num_items: int
    cursor: str | None = None  # None: from the beginning
    end_cursor: str | None = None
    maximum_rows: int | None = None
    maximum_bytes: int | None = None


_SPELLINGS: Final = {
    "numItems": "num_items",
    "cursor": "cursor",
    "endCursor": "end_cursor",
    "maximumRowsRead": "maximum_rows_read",
    "maximumBytesRead": "maximum_bytes_read",
}


def parse_options(options: object, limits: Limits) -> PageRequest:
    """Check what `paginate` was given.

    Shapes   the fields of PaginationOpts, in the client's or in Python's spelling
    Raises   BadRequest[InvalidPaginationOptions, NoDocumentsForPagination, PageSizeTooLarge,
             InvalidPaginationLimit, InvalidCursor]; TypeError when it is no mapping
    """
    if not isinstance(options, Mapping):
        raise TypeError(
            "paginate takes the pagination options the client sent, a mapping with numItems and "
            f"cursor, not {type(options).__name__}"
        )
    found: dict[str, Any] = {}
    for name, spelling in _SPELLINGS.items():
        if name in options and spelling in options and name != spelling:
            raise BadRequest(
                f"paginate got both {name} and {spelling}", code="InvalidPaginationOptions"
            )
        found[name] = options.get(name, options.get(spelling))
    num_items = _whole(found["numItems"])
    if num_items is None or num_items < 0:
        given = "undefined" if found["numItems"] is None else found["numItems"]
        raise BadRequest(
            f"`options.numItems` must be a positive number. Received `{given}`.",
            code="InvalidPaginationOptions",
        )
    if num_items == 0:
        raise BadRequest(
            "Must request at least 1 document while paginating", code="NoDocumentsForPagination"
        )
    if num_items > limits.page_items:
        raise BadRequest(f"Requested too many items: {num_items}", code="PageSizeTooLarge")
    return PageRequest(
        num_items,
        _cursor(found["cursor"]),
        _cursor(found["endCursor"]),
        _maximum(found["maximumRowsRead"]),
        _maximum(found["maximumBytesRead"]),
    )


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if value == int(value) else None


def _cursor(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise _unreadable_cursor()


def _maximum(value: Any) -> int | None:
    if value is None:
        return None
    count = _whole(value)
    if count is None or count <= 0:
        raise BadRequest(
            "maximumRowsRead and maximumBytesRead must be greater than 0",
            code="InvalidPaginationLimit",
        )
    return count


class ReadScope(Forgetful):
    """What all queries of one function call share."""

    __slots__ = ("cursors", "has_paginated", "journal_in", "journal_out", "pause", "tx")

    def __init__(
        self,
        tx: Transaction,
        pause: Callable[[], Awaitable[None]],
        cursors: CursorCodec,
        journal: str | None,
    ) -> None:
        super().__init__()
        self.tx = tx
        self.pause = pause  # awaited every BREATH_ROWS rows of a long scan
        self.cursors = cursors
        self.journal_in = journal  # where the page ended when this live query ran before
        self.journal_out: str | None = None  # where it ended now; None: nothing was paginated
        self.has_paginated = False

    def close(self) -> None:
        """The function call has returned: whatever still uses this is refused."""
        self.tx = _RETURNED


class _Returned:
    """In place of the transaction of a call that has returned."""

    __slots__ = ()

    def __getattr__(self, name: str) -> NoReturn:
        raise BadRequest(
            "ctx.db was used after the function had returned, when nothing can be read or written "
            "any more. Await every task that the function starts.",
            code="FunctionReturned",
        )


_RETURNED: Final = cast("Transaction", _Returned())


@dataclass(frozen=True, slots=True)
class PageSource:
    """The query a page is taken from."""

    table: str
    interval: Interval
    descending: bool
    predicate: Predicate | None
    fingerprint: bytes
    open: Callable[[Interval], Scan | SearchScan]
    # Ordered by relevance: its pages are not split, and numItems alone bounds them.
    is_ranked: bool = False

    def beyond(self, position: bytes) -> Interval:
        """What follows a position, in the order of the query."""
        start, end = self.interval
        if self.descending:
            return Interval(start, position if end is None else min(position, end))
        return Interval(max(start, after(position)), end)


def _until(interval: Interval, position: bytes, *, descending: bool) -> Interval:
    """What comes up to a position, inclusive."""
    start, end = interval
    if descending:
        return Interval(max(start, position), end)
    stop = after(position)
    return Interval(start, stop if end is None else min(stop, end))


async def read_page(scope: ReadScope, source: PageSource, request: PageRequest) -> Page:
    """Read one page and remember its end as the journal.

    Cost     the rows of the page and those its filter drops
    Raises   BadRequest[MultiplePaginatedDatabaseQueries, InvalidCursor], and as Scan.next when a
             limit is reached before the first row
    """
    if scope.has_paginated:
        raise BadRequest(
            "This query or mutation function ran multiple paginated queries. Convex only supports "
            "a single paginated query in each function.",
            code="MultiplePaginatedDatabaseQueries",
        )
    scope.has_paginated = True
    cursors, query = scope.cursors, source.fingerprint
    interval = source.interval
    if request.cursor is not None:
        position = cursors.decode(query, request.cursor)
        if position is None:
            scope.journal_out = request.cursor
            return Page([], True, request.cursor)
        interval = source.beyond(position)
    end_cursor = request.end_cursor if request.end_cursor is not None else scope.journal_in
    if end_cursor is None:
        reading = _Reading(request.num_items, request.maximum_rows, request.maximum_bytes)
        if source.is_ranked:
            reading = _Reading(request.num_items, None, None)
        end = None
    else:
        reading = _Reading(None, None, None)
        end = cursors.decode(query, end_cursor)
        if end is not None:
            interval = _until(interval, end, descending=source.descending)
    stopped_at = await reading.run(scope, source, interval)
    # A page that has to end at a row ends there, also when it could not be read to there: the next
    # page begins behind that row, and whoever splits this one must reach it.
    final = end if end is not None or stopped_at is None else stopped_at
    middle = None if source.is_ranked else reading.middle
    scope.journal_out = cursors.encode(query, final)
    return Page(
        reading.page,
        final is None,
        scope.journal_out,
        None if middle is None else cursors.encode(query, middle),
        reading.status(scope.tx.limits),
    )


class _Reading:
    """The rows of one page while they are read."""

    __slots__ = ("bytes_read", "is_cut", "keys", "most_bytes", "most_items", "most_rows", "page")

    def __init__(
        self, most_items: int | None, most_rows: int | None, most_bytes: int | None
    ) -> None:
        self.most_items = most_items  # None: no bound, the range is
        self.most_rows = most_rows
        self.most_bytes = most_bytes
        self.page: list[Document] = []
        self.keys: list[bytes] = []  # of every row read, also of those the filter dropped
        self.bytes_read = 0
        self.is_cut = False  # a read limit ended the page

    async def run(self, scope: ReadScope, source: PageSource, interval: Interval) -> bytes | None:
        """Read until a bound or the end; the last key where a bound ended it, else None."""
        scan = source.open(interval)
        table, predicate = source.table, source.predicate
        page, keys = self.page, self.keys
        most_items = self.most_items
        while len(page) != most_items:
            if keys and self._is_used_up():
                self.is_cut = True
                break
            try:
                row = scan.next()
            except BadRequest as error:
                if error.code not in _READ_LIMITS or not self._can_be_short:
                    raise
                self.is_cut = True
                break
            if row is None:
                return None
            keys.append(row.key)
            self.bytes_read += len(row.value)
            document = Document(row.value, table)
            if predicate is None or predicate(document):
                page.append(document)
            if len(keys) % BREATH_ROWS == 0:
                await scope.pause()
        return keys[-1]

    @property
    def _can_be_short(self) -> bool:
        """Whether a page of what was read is of use: it can go on behind that, or be split."""
        return bool(self.keys) if self.most_items is not None else self.middle is not None

    def _is_used_up(self) -> bool:
        return (self.most_rows is not None and len(self.keys) >= self.most_rows) or (
            self.most_bytes is not None and self.bytes_read >= self.most_bytes
        )

    @property
    def middle(self) -> bytes | None:
        """The key that halves the rows read; None when there are not enough to halve."""
        return self.keys[len(self.keys) // 2] if len(self.keys) > 2 else None

    def status(self, limits: Limits) -> str | None:
        """Whether the page should be, or has to be, split."""
        if self.is_cut:
            return _SPLIT_REQUIRED
        rows = min(self.most_rows or limits.read_documents, limits.read_documents)
        size = min(self.most_bytes or limits.read_bytes, limits.read_bytes)
        if (
            4 * len(self.keys) > 3 * rows
            or 4 * self.bytes_read > 3 * size
            or 4 * len(self.page) > 3 * limits.array_elements
        ):
            return _SPLIT_RECOMMENDED
        return None
