"""Connections that ask for nothing, on real ports."""

from __future__ import annotations

import asyncio
import time

import pytest
from starlette.responses import PlainTextResponse
from websockets.asyncio.client import connect

from reactive_store.limits import Limits
from reactive_store.runtime import SystemRuntime
from reactive_store.server.serving import serve_app

HEAD_S = 0.3
WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            await receive()
            await send({"type": "lifespan.startup.complete"})
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(HEAD_S * 3)
    await PlainTextResponse("here")(scope, receive, send)


@pytest.fixture
async def port():
    stop, url = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve_app(
            app,
            host="127.0.0.1",
            port=0,
            ready=url.set_result,
            stop=stop,
            limits=Limits(head_seconds=HEAD_S),
            runtime=SystemRuntime(),
        )
    )
    yield int((await url).rpartition(":")[2])
    stop.set()
    await serving


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_connection_that_does_not_finish_its_head_is_closed(port, said):
    start = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    assert time.monotonic() - start >= HEAD_S * 0.9
    writer.close()


async def test_a_head_that_comes_byte_by_byte_gains_no_time(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def drip():
        for byte in WHOLE * 100:
            writer.write(bytes((byte,)))
            await asyncio.sleep(HEAD_S / 10)

    dripping = asyncio.create_task(drip())
    assert await asyncio.wait_for(reader.read(), 5) == b""
    dripping.cancel()
    writer.close()


async def test_so_is_one_that_begins_a_second_request_and_does_not_finish_it(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(WHOLE)
    assert b"200" in await reader.readline()
    writer.write(WHOLE[:-2])
    assert b"here" in await asyncio.wait_for(reader.read(), 5)
    writer.close()


async def test_a_request_under_way_and_the_next_one_in_time_are_served(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        writer.write(WHOLE.replace(b"GET /", b"GET /slow"))
        assert b"200" in await asyncio.wait_for(reader.readline(), 5)
        await reader.readuntil(b"here")
        await asyncio.sleep(HEAD_S / 2)
    writer.close()


async def test_a_websocket_may_be_silent(port):
    async with connect(f"ws://127.0.0.1:{port}/") as client:
        await asyncio.sleep(HEAD_S * 2)
        await client.send("still here")
        assert await client.recv() == "still here"


async def test_a_request_with_a_broken_body_is_answered_once_and_logs_no_fault(port, caplog):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head + b"zz\r\n")
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 400 ")
    await asyncio.sleep(0.05)  # the application has answered meanwhile
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    writer.close()
