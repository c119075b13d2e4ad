from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactive_store.errors import BadRequest
from reactive_store.functions.pagination import (
    CursorCodec,
    Page,
    PageRequest,
    PaginationOpts,
    fingerprint,
    parse_options,
)
from reactive_store.functions.query_builder import Query
from reactive_store.limits import Limits
from reactive_store.values.document import Document
from reactive_store.values.value import normalize
from reactive_store.values.wire import dumps
from tests.functions.small_world import CODEC, SmallWorld

INVALID_CURSOR = {"isConvexSystemError": True, "paginationError": "InvalidCursor"}
ROW_BYTES = len(b'{"_creationTime":1750000000000.0002,"_id":"","n":0.0}') + 32
QUERY = fingerprint([b"a query"])


async def world_of(*numbers: float, limits: Limits | None = None) -> SmallWorld:
    world = await SmallWorld.open({"t": {"by_n": ["n"]}}, limits=limits)
    await world.insert("t", *({"n": n} for n in numbers))
    return world


def by_n(world: SmallWorld, **options: Any) -> Query:
    return world.reader(**options).query("t").with_index("by_n")


def numbers(page: Page) -> list[Any]:
    return [document["n"] for document in page.page]


async def refusal(call: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        await call
    return caught.value


# ---- cursors ----


@given(st.binary(max_size=200) | st.none())
def test_a_cursor_leads_back_to_its_position(position):
    cursor = CODEC.encode(QUERY, position)
    assert CODEC.decode(QUERY, cursor) == position
    assert CODEC.encode(QUERY, position) == cursor
    assert CursorCodec(b"a secret of the tests").encode(QUERY, position) == cursor


def test_a_cursor_does_not_show_what_it_holds():
    cursor = CODEC.encode(QUERY, b"some secret text" * 3)
    raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    assert b"secret" not in raw
    other = CODEC.encode(QUERY, b"some secret texu" * 3)
    assert cursor[30:50] != other[30:50]


def test_a_cursor_of_another_query_is_refused():
    with pytest.raises(BadRequest) as caught:
        CODEC.decode(fingerprint([b"another"]), CODEC.encode(QUERY, b"key"))
    assert caught.value.message == (
        "InvalidCursor: Tried to run a query starting from a cursor, but it looks like this "
        "cursor is from a different query."
    )
    assert caught.value.code == "InvalidCursor"
    assert caught.value.data == INVALID_CURSOR


@pytest.mark.parametrize("text", ["", "junk", "é", "AAAA", "=", "A" * 60, "a b", "\ud800"])
def test_text_that_is_no_cursor_is_refused(text):
    with pytest.raises(BadRequest) as caught:
        CODEC.decode(QUERY, text)
    assert caught.value.message == "InvalidCursor: Failed to parse cursor"
    assert caught.value.data == INVALID_CURSOR


@given(st.binary(min_size=1, max_size=40), st.integers(0, 10_000), st.sampled_from("AZaz09-_"))
def test_a_changed_cursor_is_refused(position, place, char):
    cursor = CODEC.encode(QUERY, position)
    place %= len(cursor) - 1  # the last character has spare bits
    if cursor[place] != char:
        with pytest.raises(BadRequest):
            CODEC.decode(QUERY, cursor[:place] + char + cursor[place + 1 :])


def test_a_cursor_of_another_deployment_is_refused():
    with pytest.raises(BadRequest):
        CursorCodec(b"another secret").decode(QUERY, CODEC.encode(QUERY, b"key"))


def test_fingerprints_keep_parts_apart():
    assert len(QUERY) == 8
    assert fingerprint([b"ab", b"c"]) != fingerprint([b"a", b"bc"])


# ---- options ----


def test_options_come_in_two_spellings():
    wire = {
        "numItems": 5.0, "cursor": "c", "endCursor": "e", "id": 7,
        "maximumRowsRead": 10, "maximumBytesRead": 20,
    }  # fmt: skip
    python = {
        "num_items": 5, "cursor": "c", "end_cursor": "e",
        "maximum_rows_read": 10, "maximum_bytes_read": 20,
    }  # fmt: skip
    expected = PageRequest(5, "c", "e", 10, 20)
    assert parse_options(wire, Limits()) == parse_options(python, Limits()) == expected
    assert parse_options({"numItems": 1}, Limits()) == PageRequest(1)


def test_options_are_made_in_python_with_either_spelling():
    made = PaginationOpts(num_items=5, end_cursor="e", maximum_rows_read=9, maximum_bytes_read=8)
    wire = {
        "numItems": 5, "cursor": None, "endCursor": "e",
        "maximumRowsRead": 9, "maximumBytesRead": 8,
    }  # fmt: skip
    assert made == wire
    assert PaginationOpts(wire) == PaginationOpts(**wire) == made
    assert PaginationOpts({"num_items": 5}, cursor="c", id=3) == {
        "numItems": 5, "cursor": "c", "id": 3,
    }  # fmt: skip
    assert normalize(made) == wire
    with pytest.raises(TypeError, match="has no 'limit'"):
        PaginationOpts(limit=5)
    with pytest.raises(TypeError, match="got 'numItems' twice"):
        PaginationOpts(num_items=5, numItems=5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"numItems": 0}, "Must request at least 1 document while paginating"),
        ({"numItems": -1}, "`options.numItems` must be a positive number. Received `-1`."),
        ({"numItems": "5"}, "`options.numItems` must be a positive number. Received `5`."),
        ({"numItems": 1.5}, "`options.numItems` must be a positive number. Received `1.5`."),
        ({"numItems": True}, "`options.numItems` must be a positive number. Received `True`."),
        (
            {"numItems": float("inf")},
            "`options.numItems` must be a positive number. Received `inf`.",
        ),
        ({}, "`options.numItems` must be a positive number. Received `undefined`."),
        ({"numItems": 32001}, "Requested too many items: 32001"),
        (
            {"numItems": 1, "maximumRowsRead": 0},
            "maximumRowsRead and maximumBytesRead must be greater than 0",
        ),
        (
            {"numItems": 1, "maximumBytesRead": -5},
            "maximumRowsRead and maximumBytesRead must be greater than 0",
        ),
        ({"numItems": 1, "cursor": 5}, "InvalidCursor: Failed to parse cursor"),
        ({"numItems": 1, "num_items": 1}, "paginate got both numItems and num_items"),
    ],
)
def test_options_that_make_no_page_are_refused(options, text):
    """V113."""
    with pytest.raises(BadRequest) as caught:
        parse_options(options, Limits())
    assert caught.value.message == text


def test_options_are_a_mapping():
    with pytest.raises(TypeError, match="a mapping with numItems and cursor, not int"):
        parse_options(20, Limits())


# ---- pages ----


async def test_a_page_has_the_official_shape():
    world = await world_of(1, 2)
    page = await by_n(world).paginate({"numItems": 2, "cursor": None})
    assert dict(page) == {
        "page": page.page,
        "isDone": False,
        "continueCursor": page.continue_cursor,
        "splitCursor": None,
        "pageStatus": None,
    }
    assert page["isDone"] is page.is_done
    assert len(page) == 5
    assert normalize(page) == normalize(page.to_value())
    encoded = [document.encoded for document in page.page]
    assert b'"page":[' + b",".join(encoded) + b"]" in dumps(page)
    assert {**page, "page": []}["continueCursor"] == page.continue_cursor


async def test_a_page_that_ends_on_the_last_document_is_not_done():
    world = await world_of(1, 2)
    page = await by_n(world).paginate({"numItems": 2, "cursor": None})
    assert (numbers(page), page.is_done) == ([1, 2], False)
    following = await by_n(world).paginate({"numItems": 2, "cursor": page.continue_cursor})
    assert (numbers(following), following.is_done) == ([], True)
    longer = await by_n(world).paginate({"numItems": 3, "cursor": None})
    assert (numbers(longer), longer.is_done) == ([1, 2], True)
    assert longer.continue_cursor == following.continue_cursor


async def test_after_the_end_there_is_an_empty_page():
    world = await world_of(1)
    end = (await by_n(world).paginate({"numItems": 9, "cursor": None})).continue_cursor
    await world.insert("t", {"n": 2})
    reader = world.reader()
    page = await reader.query("t").with_index("by_n").paginate({"numItems": 9, "cursor": end})
    assert page == Page([], True, end)
    assert reader.journal_out == end


@settings(max_examples=80)
@given(
    st.lists(st.integers(0, 9), max_size=20),
    st.integers(1, 6),
    st.booleans(),
    st.none() | st.integers(1, 9),
    st.none() | st.integers(1, 4),
    st.none() | st.integers(0, 5),
)
def test_pages_and_their_halves_join_to_the_whole(values, size, descending, limit, rows, above):
    async def run() -> None:
        world = await world_of(*values)

        def query() -> Query:
            found = by_n(world).order("desc" if descending else "asc")
            if above is not None:
                found = found.filter(lambda f: f.field("n") > above)
            return found if limit is None else found.filter(lambda f: f.field("n") < limit)

        whole = [d["_id"] for d in await query().collect()]
        seen: list[str] = []
        cursor = None
        while True:
            options: dict[str, Any] = {"numItems": size, "cursor": cursor}
            page = await query().paginate(
                options if rows is None else {**options, "maximumRowsRead": rows}
            )
            ids = [d["_id"] for d in page.page]
            seen += ids
            again = await query().paginate({**options, "endCursor": page.continue_cursor})
            assert [d["_id"] for d in again.page] == ids
            assert again.continue_cursor == page.continue_cursor
            assert again.is_done == page.is_done
            if page.split_cursor is not None:
                left = await query().paginate({**options, "endCursor": page.split_cursor})
                right = await query().paginate(
                    {
                        **options,
                        "cursor": page.split_cursor,
                        "endCursor": page.continue_cursor,
                    }
                )
                assert [d["_id"] for d in [*left.page, *right.page]] == ids
                assert not left.is_done
            if page.is_done:
                break
            assert (page.page_status == "SplitRequired") == (len(ids) < size)
            cursor = page.continue_cursor
        assert seen == whole

    asyncio.run(run())


async def test_pages_stay_within_the_range_of_the_query():
    world = await world_of(*range(10))

    def query(order: Any) -> Query:
        return world.reader().query("t").with_index(
            "by_n", lambda r: r.gt("n", 2).lte("n", 6)
        ).order(order)  # fmt: skip

    for order, expected in (("asc", [[3, 4, 5], [6]]), ("desc", [[6, 5, 4], [3]])):
        first = await query(order).paginate({"numItems": 3, "cursor": None})
        rest = await query(order).paginate({"numItems": 3, "cursor": first.continue_cursor})
        assert [numbers(first), numbers(rest)] == expected
        assert rest.is_done


async def test_filters_apply_before_counting():
    world = await world_of(*range(10))
    query = by_n(world).filter(lambda f: f.field("n") % 2 == 0)
    page = await query.paginate({"numItems": 3, "cursor": None})
    assert (numbers(page), page.is_done, page.page_status) == ([0, 2, 4], False, None)


async def test_a_limit_of_rows_makes_a_short_page_that_can_go_on():
    world = await world_of(*range(10))

    async def page(cursor: str | None) -> Page:
        query = by_n(world).filter(lambda f: f.field("n") == 5)
        return await query.paginate({"numItems": 2, "cursor": cursor, "maximumRowsRead": 4})

    first = await page(None)
    assert (numbers(first), first.is_done, first.page_status) == ([], False, "SplitRequired")
    assert first.split_cursor is not None
    second = await page(first.continue_cursor)
    assert (numbers(second), second.page_status) == ([5], "SplitRequired")
    third = await page(second.continue_cursor)
    assert (numbers(third), third.is_done, third.page_status) == ([], True, None)


async def test_a_limit_of_bytes_lets_one_row_through():
    world = await world_of(*range(3))
    page = await by_n(world).paginate({"numItems": 3, "cursor": None, "maximumBytesRead": 1})
    assert (numbers(page), page.page_status) == ([0], "SplitRequired")


async def test_the_limit_of_a_transaction_ends_a_page_early():
    world = await world_of(*range(6), limits=Limits(read_documents=4))
    page = await by_n(world).paginate({"numItems": 6, "cursor": None})
    assert (numbers(page), page.is_done, page.page_status) == ([0, 1, 2, 3], False, "SplitRequired")
    reader = world.reader()
    await reader.query("t").take(4)
    error = await refusal(
        reader.query("t").with_index("by_n").paginate({"numItems": 6, "cursor": None})
    )
    assert error.code == "TooManyDocumentsRead"


async def test_a_range_with_an_end_ignores_the_limits_of_the_request():
    world = await world_of(*range(8))
    whole = await by_n(world).paginate({"numItems": 6, "cursor": None})
    page = await by_n(world).paginate(
        {
            "numItems": 1, "cursor": None, "endCursor": whole.continue_cursor,
            "maximumRowsRead": 1, "maximumBytesRead": 1,
        }
    )  # fmt: skip
    assert (numbers(page), page.page_status) == ([0, 1, 2, 3, 4, 5], None)
    assert page.continue_cursor == whole.continue_cursor


async def test_a_range_with_an_end_that_cannot_be_read_whole_keeps_its_end_and_is_split():
    """The next page begins behind that end: to stop short of it would leave a gap."""
    world = await world_of(*range(9), limits=Limits(read_documents=5))
    options: dict[str, Any] = {"numItems": 4, "cursor": None}
    first = await by_n(world).paginate(options)
    assert (numbers(first), first.page_status) == ([0, 1, 2, 3], "SplitRecommended")
    await world.insert("t", *({"n": n} for n in (0.5, 1.5, 2.5)))
    grown = await by_n(world).paginate({**options, "endCursor": first.continue_cursor})
    assert (numbers(grown), grown.page_status) == ([0, 0.5, 1, 1.5, 2], "SplitRequired")
    assert grown.continue_cursor == first.continue_cursor
    end = grown.split_cursor
    left = await by_n(world).paginate({**options, "endCursor": end})
    right = await by_n(world).paginate(
        {**options, "cursor": end, "endCursor": grown.continue_cursor}
    )
    assert numbers(left) + numbers(right) == [0, 0.5, 1, 1.5, 2, 2.5, 3]

    reader = world.reader()
    await reader.query("t").take(3)
    query = reader.query("t").with_index("by_n")
    error = await refusal(query.paginate({**options, "endCursor": first.continue_cursor}))
    assert error.code == "TooManyDocumentsRead"  # two rows cannot be halved


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ({"maximumRowsRead": 5}, Limits()),
        ({"maximumBytesRead": 5 * ROW_BYTES}, Limits()),
        ({}, Limits(read_documents=5)),
        ({}, Limits(read_bytes=5 * ROW_BYTES)),
        ({}, Limits(array_elements=5)),
    ],
)
async def test_a_page_beyond_three_quarters_of_a_limit_should_be_split(options, limits):
    """V113."""
    world = await world_of(*range(5), limits=limits)
    for items, status in ((3, None), (4, "SplitRecommended")):
        page = await by_n(world).paginate({"numItems": items, "cursor": None, **options})
        assert (len(page.page), page.page_status) == (items, status)


@pytest.mark.parametrize(("read", "left"), [(3, [0, 1]), (4, [0, 1, 2]), (9, [0, 1, 2, 3, 4])])
async def test_the_split_is_in_the_middle_of_the_rows_read(read, left):
    world = await world_of(*range(9))
    options = {"numItems": 9, "cursor": None}
    for dropped in (-1, 3):
        query = by_n(world).filter(lambda f, n=dropped: f.field("n") != n)
        page = await query.paginate({**options, "maximumRowsRead": read})
        half = by_n(world).filter(lambda f, n=dropped: f.field("n") != n)
        found = await half.paginate({**options, "endCursor": page.split_cursor})
        assert numbers(found) == [n for n in left if n != dropped]


@pytest.mark.parametrize("read", [1, 2])
async def test_two_rows_are_not_worth_a_split(read):
    world = await world_of(*range(9))
    page = await by_n(world).paginate({"numItems": read, "cursor": None})
    assert page.split_cursor is None


# ---- cursors of queries ----


async def test_cursors_belong_to_one_query():
    world = await world_of(*range(4))
    cursor = (await by_n(world).paginate({"numItems": 2, "cursor": None})).continue_cursor
    reader = world.reader
    for other in (
        reader().query("t"),
        reader().query("u"),
        reader().query("t").with_index("by_n").order("desc"),
        reader().query("t").with_index("by_n", n=1),
        reader().query("t").with_index("by_n").filter(lambda f: True),
    ):
        error = await refusal(other.paginate({"numItems": 2, "cursor": cursor}))
        assert error.message.startswith("InvalidCursor: Tried to run a query starting from")
        assert error.data == INVALID_CURSOR
    same = reader().query("t").with_index("by_n").order("asc")
    assert numbers(await same.paginate({"numItems": 2, "cursor": cursor})) == [2, 3]


async def test_junk_cursors_are_refused_wherever_they_stand():
    world = await world_of(1)
    for options, journal in (
        ({"cursor": "junk"}, None),
        ({"cursor": None, "endCursor": "junk"}, None),
        ({"cursor": None}, "junk"),
    ):
        query = by_n(world, journal=journal)
        error = await refusal(query.paginate({"numItems": 2, **options}))
        assert error.message == "InvalidCursor: Failed to parse cursor"


async def test_one_function_takes_one_page():
    reader = (await world_of(1)).reader()
    await reader.query("t").paginate({"numItems": 2, "cursor": None})
    for query in (reader.query("t"), reader.system.query("_storage")):
        error = await refusal(query.paginate({"numItems": 2, "cursor": None}))
        assert error.message == (
            "This query or mutation function ran multiple paginated queries. Convex only supports "
            "a single paginated query in each function."
        )
        assert error.code == "MultiplePaginatedDatabaseQueries"
    assert await reader.query("t").collect()


async def test_a_table_that_does_not_exist_has_one_empty_page():
    world = await world_of()
    page = await world.reader().query("nowhere").paginate({"numItems": 2, "cursor": None})
    assert (page.page, page.is_done) == ([], True)


async def test_long_pages_let_others_run():
    world = await world_of(*range(1001))
    await by_n(world).paginate({"numItems": 1001, "cursor": None})
    assert world.pauses == 1


# ---- the journal ----


async def rerun(world: SmallWorld, journal: str | None, **options: Any) -> tuple[Page, str | None]:
    reader = world.reader(journal=journal)
    assert reader.journal_in == journal
    query = reader.query("t").with_index("by_n")
    page = await query.paginate({"numItems": 3, "cursor": None, **options})
    return page, reader.journal_out


async def test_without_pagination_there_is_no_journal():
    reader = (await world_of(1)).reader()
    await reader.query("t").collect()
    assert reader.journal_out is None


async def test_the_journal_pins_the_end_of_a_page():
    world = await world_of(10, 20, 30, 40, 50)
    first, journal = await rerun(world, None)
    assert numbers(first) == [10, 20, 30]
    await world.insert("t", {"n": 15}, {"n": 35})
    again, same = await rerun(world, journal)
    assert numbers(again) == [10, 15, 20, 30]
    assert same == journal
    assert again.continue_cursor == first.continue_cursor
    afresh, _ = await rerun(world, None)
    assert numbers(afresh) == [10, 15, 20]


async def test_a_journal_at_the_end_lets_the_last_page_grow():
    world = await world_of(10)
    first, journal = await rerun(world, None)
    assert first.is_done
    await world.insert("t", *({"n": n} for n in (20, 30, 40, 50)))
    again, same = await rerun(world, journal)
    assert (numbers(again), again.is_done) == ([10, 20, 30, 40, 50], True)
    assert same == journal


async def test_an_end_cursor_of_the_request_precedes_the_journal():
    world = await world_of(*range(6))
    long, _ = await rerun(world, None, numItems=5)
    _, journal = await rerun(world, None, numItems=2)
    page, kept = await rerun(world, journal, endCursor=long.continue_cursor)
    assert numbers(page) == [0, 1, 2, 3, 4]
    assert kept == long.continue_cursor


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 30), max_size=10),
    st.lists(st.integers(0, 30), max_size=10),
    st.lists(st.integers(0, 9), max_size=5),
    st.integers(1, 4),
)
def test_pinned_pages_have_no_gaps_and_no_overlaps_after_any_change(values, added, removed, size):
    async def run() -> None:
        world = await world_of(*values)
        cursors: list[str | None] = [None]
        journals: list[str | None] = []
        while True:
            reader = world.reader()
            query = reader.query("t").with_index("by_n")
            page = await query.paginate({"numItems": size, "cursor": cursors[-1]})
            journals.append(reader.journal_out)
            if page.is_done:
                break
            cursors.append(page.continue_cursor)
        tx = world.database.begin_mutation()
        writer = world.writer(tx)
        stored = await writer.query("t").collect()
        for n in added:
            await writer.insert("t", {"n": n})
        for index in set(removed):
            if index < len(stored):
                await writer.delete(stored[index]["_id"])
        await world.database.commit(tx)
        joined: list[Document] = []
        for cursor, journal in zip(cursors, journals, strict=True):
            page, kept = await rerun(world, journal, numItems=size, cursor=cursor)
            assert kept == journal
            joined += page.page
        assert joined == await by_n(world).collect()

    asyncio.run(run())


# ---- what counts as read ----


async def test_a_page_watches_its_range_and_no_further():
    world = await world_of(10, 20, 30)
    tx = world.database.begin()
    page = await by_n(world, tx=tx).paginate({"numItems": 2, "cursor": None})
    assert not await world.is_touched(tx, ("insert", "t", {"n": 25}))
    assert await world.is_touched(tx, ("insert", "t", {"n": 15}))
    tx = world.database.begin()
    query = by_n(world, tx=tx)
    await query.paginate({"numItems": 9, "cursor": None, "endCursor": page.continue_cursor})
    assert not await world.is_touched(tx, ("insert", "t", {"n": 26}))
    assert await world.is_touched(tx, ("insert", "t", {"n": 12}))


async def test_a_filtered_page_watches_every_row_that_moves_its_middle():
    world = await world_of(10, 20, 30)
    tx = world.database.begin()
    query = by_n(world, tx=tx).filter(lambda f: f.field("n") > 15)
    await query.paginate({"numItems": 9, "cursor": None})
    assert await world.is_touched(tx, ("insert", "t", {"n": 5}))
