"""The query set over a socket: what is asked for, what is told, and what ends the conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest

from tests.conformance.wire import Wire, WireServer, add, serving
from tests.e2e.sync_socket import timestamp

ZERO = {"querySet": 0, "identity": 0, "ts": "AAAAAAAAAAA="}


@pytest.fixture
async def server() -> AsyncIterator[WireServer]:
    async with serving() as running:
        yield running


@pytest.fixture
async def socket(server: WireServer) -> Wire:
    socket = await server.socket()
    await socket.connect()
    return socket


@pytest.fixture
async def writer(server: WireServer) -> Wire:
    """Somebody else, who writes."""
    socket = await server.socket()
    await socket.connect()
    return socket


async def written(writer: Wire, request_id: int, path: str = "messages:send", **args: Any) -> int:
    """Have something written, from elsewhere; gives the commit's time."""
    given = {"body": f"m{request_id}"} if path == "messages:send" else {}
    await writer.mutate(request_id, path, **{**given, **args})
    response = await writer.hear()
    assert response["success"], response
    await writer.transition()
    return timestamp(response["ts"])


async def test_the_first_change_is_answered_though_it_is_empty(socket: Wire):
    """C10."""
    await socket.modify()
    told = await socket.transition()
    assert told["startVersion"] == ZERO
    assert (told["endVersion"]["querySet"], told["endVersion"]["identity"]) == (1, 0)
    assert timestamp(told["endVersion"]["ts"]) > 0
    assert told["modifications"] == []


async def test_each_transition_starts_where_the_one_before_ended(socket: Wire, writer: Wire):
    """C11."""
    told = []
    await socket.modify(add(0))
    told.append(await socket.transition())
    for number in range(3):
        await written(writer, number)
        told.append(await socket.transition())
    await socket.say(type="Authenticate", tokenType="None", baseVersion=0)
    told.append(await socket.transition())
    await socket.modify({"type": "Remove", "queryId": 0})
    told.append(await socket.transition())
    assert told[0]["startVersion"] == ZERO
    for earlier, later in pairwise(told):
        assert later["startVersion"] == earlier["endVersion"]
        assert timestamp(later["endVersion"]["ts"]) >= timestamp(earlier["endVersion"]["ts"])


async def test_quick_changes_end_at_the_newest(socket: Wire):
    """C12."""
    for number in range(5):
        await socket.modify(add(number))
    seen: dict[int, Any] = {}
    version = 0
    while version < 5:
        told = await socket.transition()
        assert version < told["endVersion"]["querySet"] <= 5
        version = told["endVersion"]["querySet"]
        seen.update({change["queryId"]: change["value"] for change in told["modifications"]})
    assert seen == {number: [] for number in range(5)}
    assert await socket.hears_nothing()


async def test_each_added_query_is_answered_once_with_lines_and_journal(socket: Wire):
    """C13."""
    page = add(2, "messages:page", args=[{"paginationOpts": {"numItems": 3, "cursor": None}}])
    await socket.modify(add(0), add(1, "messages:loud"), page, add(3, "messages:nothing"))
    told = await socket.transition()
    assert [change["queryId"] for change in told["modifications"]] == [0, 1, 2, 3]
    kinds = [change["type"] for change in told["modifications"]]
    assert kinds == ["QueryUpdated"] * 3 + ["QueryFailed"]
    lines = [change["logLines"] for change in told["modifications"]]
    assert [len(of_query) for of_query in lines] == [0, 1, 0, 0]
    journals = [change["journal"] for change in told["modifications"]]
    assert [type(journal) for journal in journals] == [type(None), type(None), str, type(None)]
    assert await socket.hears_nothing()


async def test_a_removed_query_is_told_once_and_never_again(socket: Wire, writer: Wire):
    """C14."""
    await socket.modify(add(0), add(1))
    await socket.transition()
    await socket.modify({"type": "Remove", "queryId": 0})
    told = await socket.transition()
    assert told["modifications"] == [{"type": "QueryRemoved", "queryId": 0}]
    for number in range(3):
        await written(writer, number)
        told = await socket.transition()
        assert [change["queryId"] for change in told["modifications"]] == [1]


async def test_one_question_under_two_ids_has_two_answers(socket: Wire, writer: Wire):
    """C15."""
    await socket.modify(add(4), add(9))
    told = await socket.transition()
    assert [change["queryId"] for change in told["modifications"]] == [4, 9]
    await socket.modify({"type": "Remove", "queryId": 4})
    await socket.transition()
    await written(writer, 0)
    (change,) = (await socket.transition())["modifications"]
    assert (change["queryId"], change["value"]) == (9, ["m0"])


async def test_three_spellings_are_one_function(socket: Wire, writer: Wire):
    """C16."""
    await written(writer, 0)
    await socket.modify(
        add(0, "messages"), add(1, "messages:default"), add(2, "messages.js:default")
    )
    told = await socket.transition()
    assert [change["value"] for change in told["modifications"]] == [["m0"]] * 3


@pytest.mark.parametrize("base", [0, 2, 7])
async def test_a_wrong_base_version_is_fatal(socket: Wire, base: int):
    """C17."""
    await socket.modify()
    await socket.transition()
    await socket.say(type="ModifyQuerySet", baseVersion=base, newVersion=base + 1, modifications=[])
    said, code, _ = await socket.end()
    text = f"Base version {base} passed up doesn't match the current version 1"
    assert said == [{"type": "FatalError", "error": text}]
    assert code == 1000


@pytest.mark.parametrize(
    "text", ["{", "nonsense", "[]", '{"type":"Unheard"}', '{"type":"Connect"}']
)
async def test_what_is_no_message_is_fatal(socket: Wire, text: str):
    """C18."""
    await socket.connection.send(text)
    (fatal,), code, _ = await socket.end()
    assert fatal["type"] == "FatalError"
    assert fatal["error"].startswith("Received Invalid JSON on websocket: ")
    assert code == 1000


@pytest.mark.parametrize(
    "changes",
    [[{"type": "Remove", "queryId": 7}], [add(0)], [add(1), add(1)]],
    ids=["unknown removed", "added again", "added twice"],
)
async def test_a_query_set_that_cannot_be_ends_the_socket(socket: Wire, changes: list[Any]):
    """C19."""
    await socket.modify(add(0))
    await socket.transition()
    await socket.modify(*changes)
    said, code, reason = await socket.end()
    assert (said, code, reason) == ([], 1011, "InternalServerError")


async def test_a_write_elsewhere_says_nothing_of_a_query(socket: Wire, writer: Wire):
    """C20."""
    await socket.modify(add(0))
    await socket.transition()
    await written(writer, 0, "messages:elsewhere")
    assert await socket.hears_nothing()
    # Also for the socket that wrote: its transition moves the time and nothing else.
    await socket.mutate(1, "messages:elsewhere")
    assert (await socket.hear())["success"]
    assert (await socket.transition())["modifications"] == []


async def test_an_equal_answer_is_not_repeated_and_another_line_is_told(socket: Wire, writer: Wire):
    """C21."""
    await socket.modify(add(0, "messages:parity"), add(1, "messages:loud"))
    first = await socket.transition()
    # Two more: both queries run again, one of them only prints something else.
    await written(writer, 0, "messages:sendPair")
    told = await socket.transition()
    (change,) = told["modifications"]
    assert (change["queryId"], change["value"]) == (1, None)
    assert change["logLines"] != first["modifications"][1]["logLines"]
    await written(writer, 1)
    changes = (await socket.transition())["modifications"]
    assert [(change["queryId"], change["value"]) for change in changes] == [(0, 1), (1, None)]


async def test_all_of_a_transition_is_of_one_instant(socket: Wire, writer: Wire):
    """C22."""
    await socket.modify(add(0, "messages:bodies"), add(1, "messages:copies"))
    held: dict[int, Any] = {}
    for number in range(50):
        await writer.mutate(number, "messages:send", body=str(number))
    while held.get(0) != [str(number) for number in range(50)]:
        for change in (await socket.transition())["modifications"]:
            held[change["queryId"]] = change["value"]
        assert held[0] == held[1]


async def test_an_unknown_function_fails_its_query_alone(socket: Wire, writer: Wire):
    """C23."""
    await socket.modify(add(0, "messages:nothing"), add(1, "messages:hidden"), add(2))
    told = await socket.transition()
    for change, name in zip(told["modifications"], ["nothing", "hidden"], strict=False):
        assert change["type"] == "QueryFailed"
        assert f"Could not find public function for 'messages:{name}'." in change["errorMessage"]
        assert "errorData" not in change
    assert told["modifications"][2]["value"] == []
    await written(writer, 0)
    assert (await socket.transition())["modifications"][0]["value"] == ["m0"]


async def test_events_produce_nothing(socket: Wire):
    """C24."""
    for event in ({"timeSavedMs": 3}, [{"name": "x", "startTime": 1.5}], None, "text"):
        await socket.say(type="Event", eventType="ClientConnect", event=event)
    assert await socket.hears_nothing()
    await socket.modify()
    assert (await socket.transition())["endVersion"]["querySet"] == 1
