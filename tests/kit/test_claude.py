"""Claude's provider against a server on loopback that speaks the Messages API's streaming form."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from reactive_store.kit.chat import ChatError
from reactive_store.kit.claude import DEFAULT_MODEL, ClaudeChat

KEY = "sk-test-not-a-real-key"


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def _head() -> bytes:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 1},
    }
    block = {"type": "text", "text": ""}
    return (
        _event("message_start", message=message)
        + _event("content_block_start", index=0, content_block=block)
        + _event("ping")
    )


def _text(piece: str) -> bytes:
    return _event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})


def _tail(stop_reason: str = "end_turn") -> bytes:
    return (
        _event("content_block_stop", index=0)
        + _event(
            "message_delta",
            delta={"stop_reason": stop_reason, "stop_sequence": None},
            usage={"output_tokens": 7},
        )
        + _event("message_stop")
    )


def _streamed(*pieces: str, stop_reason: str = "end_turn") -> Response:
    return _sse(_head(), *map(_text, pieces), _tail(stop_reason))


def _sse(*chunks: bytes) -> Response:
    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk
            await asyncio.sleep(0)

    return StreamingResponse(body(), media_type="text/event-stream")


def _error(status: int, kind: str, **headers: str) -> Response:
    body = {"type": "error", "error": {"type": kind, "message": f"says {KEY}"}}
    return JSONResponse(body, status_code=status, headers=headers)


def _overloaded_midway() -> Response:
    body = {"type": "overloaded_error", "message": "Overloaded"}
    return _sse(_head(), _text("Half an "), _event("error", error=body))


@dataclass
class Claude:
    """The server: answers in the order given, repeats the last, remembers what it was asked."""

    url: str
    answers: list[Callable[[], Response]]
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    async def messages(self, request: Request) -> Response:
        self.asked.append(await request.json())
        # Which of the two headers carries the key is the client library's choice.
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.keys.append(request.headers.get("x-api-key", bearer))
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        return answer()

    def chat(self, **options: Any) -> ClaudeChat:
        return ClaudeChat(api_key=KEY, base_url=self.url, **options)


@asynccontextmanager
async def _claude(*answers: Callable[[], Response]) -> AsyncIterator[Claude]:
    listener = socket.create_server(("127.0.0.1", 0))
    claude = Claude(f"http://127.0.0.1:{listener.getsockname()[1]}", list(answers))
    routes = [Route("/v1/messages", claude.messages, methods=["POST"])]
    config = uvicorn.Config(
        Starlette(routes=routes), log_level="critical", lifespan="off", ws="none"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            await asyncio.sleep(0.005)
        yield claude
    finally:
        server.should_exit = True
        await serving
        listener.close()


async def test_pieces_arrive_as_they_are_written():
    async with _claude(lambda: _streamed("Good ", "mor", "ning")) as claude, claude.chat() as chat:
        assert [piece async for piece in chat.stream("Be brief.", "Hello")] == [
            "Good ",
            "mor",
            "ning",
        ]


async def test_the_question_is_sent_with_key_model_and_system_prompt():
    async with _claude(lambda: _streamed("ok")) as claude, claude.chat(max_tokens=99) as chat:
        assert await chat.reply("You are Ada.", "Thoughts?") == "ok"
    (asked,) = claude.asked
    assert claude.keys == [KEY]
    assert asked["model"] == DEFAULT_MODEL
    assert asked["max_tokens"] == 99
    assert asked["stream"] is True
    assert asked["system"] == "You are Ada."
    assert asked["messages"] == [{"role": "user", "content": "Thoughts?"}]


async def test_a_rate_limit_is_waited_out():
    limited = lambda: _error(429, "rate_limit_error", **{"retry-after-ms": "10"})  # noqa: E731
    async with _claude(limited, lambda: _streamed("fine")) as claude, claude.chat() as chat:
        assert await chat.reply("s", "p") == "fine"
        assert len(claude.asked) == 2


async def test_a_rate_limit_that_stays_is_a_failure_worth_retrying():
    limited = lambda: _error(429, "rate_limit_error", **{"retry-after-ms": "1"})  # noqa: E731
    async with _claude(limited) as claude, claude.chat(attempts=2) as chat:
        with pytest.raises(ChatError) as caught:
            await chat.reply("s", "p")
        assert len(claude.asked) == 2
    assert (caught.value.reason, caught.value.may_retry) == ("rate_limited", True)


async def test_overload_midway_is_asked_again_by_reply():
    answers = (_overloaded_midway, lambda: _streamed("Whole"))
    async with _claude(*answers) as claude, claude.chat() as chat:
        assert await chat.reply("s", "p") == "Whole"
        assert len(claude.asked) == 2


async def test_overload_that_stays_ends_after_the_attempts():
    async with _claude(_overloaded_midway) as claude, claude.chat(attempts=3) as chat:
        with pytest.raises(ChatError) as caught:
            await chat.reply("s", "p")
        assert len(claude.asked) == 3
    assert (caught.value.reason, caught.value.may_retry) == ("overloaded", True)


async def test_overload_midway_ends_a_stream_after_its_pieces():
    async with _claude(_overloaded_midway) as claude, claude.chat() as chat:
        pieces: list[str] = []

        async def read() -> None:
            async for piece in chat.stream("s", "p"):
                pieces.append(piece)  # noqa: PERF401 - what came before the failure is kept

        with pytest.raises(ChatError) as caught:
            await read()
        assert len(claude.asked) == 1
    assert pieces == ["Half an "]
    assert caught.value.reason == "overloaded"


@pytest.mark.parametrize(
    "chunks",
    [(), (_head(),), (_head(), _text("Half"))],
    ids=["nothing", "head", "half"],
)
async def test_a_stream_that_stops_early_is_interrupted(chunks: tuple[bytes, ...]):
    async with _claude(lambda: _sse(*chunks)) as claude, claude.chat(attempts=1) as chat:
        with pytest.raises(ChatError) as caught:
            await chat.reply("s", "p")
    assert (caught.value.reason, caught.value.may_retry) == ("interrupted", True)


async def test_a_connection_cut_midway_is_interrupted():
    async def half_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        for chunk in (_head(), _text("Half")):
            writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(half_answer, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with ClaudeChat(api_key=KEY, base_url=url, attempts=1) as chat:
            with pytest.raises(ChatError) as caught:
                await chat.reply("s", "p")
    assert caught.value.reason == "interrupted"


async def test_a_refused_connection_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with ClaudeChat(api_key=KEY, base_url=url, attempts=1) as chat:
        with pytest.raises(ChatError) as caught:
            await chat.reply("s", "p")
    assert (caught.value.reason, caught.value.may_retry) == ("unreachable", True)


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (401, "authentication_error", "not_authorized"),
        (403, "permission_error", "not_authorized"),
        (400, "invalid_request_error", "bad_request"),
        (404, "not_found_error", "bad_request"),
    ],
)
async def test_what_cannot_succeed_is_asked_once_and_never_shows_the_key(
    status: int, kind: str, reason: str
):
    async with _claude(lambda: _error(status, kind)) as claude, claude.chat() as chat:
        with pytest.raises(ChatError) as caught:
            await chat.reply("s", "p")
        assert len(claude.asked) == 1
    assert (caught.value.reason, caught.value.may_retry) == (reason, False)
    assert KEY not in str(caught.value)


async def test_an_error_body_of_another_shape_is_the_providers_error():
    html = lambda: Response("<h1>Bad gateway</h1>", status_code=502)  # noqa: E731
    async with _claude(html) as claude, claude.chat(attempts=1) as chat:
        with pytest.raises(ChatError) as caught:
            await chat.reply("s", "p")
    assert (caught.value.reason, caught.value.may_retry) == ("provider_error", True)


async def test_a_refusal_is_a_failure_that_stays():
    refusal = lambda: _streamed("I", stop_reason="refusal")  # noqa: E731
    async with _claude(refusal) as claude, claude.chat() as chat:
        with pytest.raises(ChatError) as caught:
            await chat.reply("s", "p")
        assert len(claude.asked) == 1
    assert (caught.value.reason, caught.value.may_retry) == ("refused", False)


async def test_questions_run_side_by_side():
    async with _claude(lambda: _streamed("yes")) as claude, claude.chat() as chat:
        answers = await asyncio.gather(*(chat.reply("s", str(n)) for n in range(8)))
    assert answers == ["yes"] * 8
    assert {asked["messages"][0]["content"] for asked in claude.asked} == set("01234567")


async def test_the_environment_configures_key_address_and_model():
    async with _claude(lambda: _streamed("ok")) as claude:
        env = {
            "ANTHROPIC_API_KEY": KEY,
            "ANTHROPIC_BASE_URL": claude.url,
            "ANTHROPIC_MODEL": "claude-other",
        }
        chat = ClaudeChat.from_env(env)
        assert chat is not None
        async with chat:
            assert chat.name == "claude"
            assert await chat.reply("s", "p") == "ok"
    assert claude.asked[0]["model"] == "claude-other"


@pytest.mark.parametrize("env", [{}, {"ANTHROPIC_API_KEY": ""}])
def test_without_a_key_there_is_no_claude(env: dict[str, str]):
    assert ClaudeChat.from_env(env) is None


def test_at_least_one_attempt_is_needed():
    with pytest.raises(ValueError, match="attempts"):
        ClaudeChat(api_key=KEY, attempts=0)
