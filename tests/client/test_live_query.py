"""A remote live query on a real server: values, errors, lost connections, refusals."""

from __future__ import annotations

import asyncio
import socket

import pytest

from reactive_store.client.live_query import watch_query
from reactive_store.errors import BadRequest, NotFound, Unauthenticated
from reactive_store.server.serving import serve
from reactive_store.sync.protocol import QueryFailed
from reactive_store.testing import TestBackend

SOURCE = """
from reactive_store import ConvexError, MutationCtx, QueryCtx, mutation, query


@query
async def count(ctx: QueryCtx, most: int = 9) -> int:
    count = len(await ctx.db.query("rows").collect())
    if count > most:
        raise ConvexError({"count": count})
    return count


@query
async def who(ctx: QueryCtx) -> str | None:
    identity = await ctx.auth.get_user_identity()
    return identity.subject if identity else None


@mutation
async def add(ctx: MutationCtx) -> None:
    await ctx.db.insert("rows", {})
"""


class Server:
    """A backend that can be served, stopped and served again on the same port."""

    def __init__(self, t: TestBackend) -> None:
        self.t = t
        self.url = ""
        self._port = 0
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(
            serve(
                self.t.backend,
                host="127.0.0.1",
                port=self._port,
                ready=ready.set_result,
                stop=self._stop,
            )
        )
        self.url = await ready
        self._port = int(self.url.rpartition(":")[2])

    async def stop(self) -> None:
        self._stop.set()
        await self._task


@pytest.fixture
async def server(tmp_path):
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "m.py").write_text(SOURCE)
    async with TestBackend(app=tmp_path) as t:
        running = Server(t)
        await running.start()
        yield running
        await running.stop()


async def test_values_come_as_they_change(server):
    values = watch_query(server.url + "/", "m:count", b"{}")
    assert (await anext(values)).value == b"0.0"
    await server.t.mutation("m:add")
    assert (await anext(values)).value == b"1.0"
    await values.aclose()


async def test_an_error_is_a_result_too(server):
    await server.t.mutation("m:add")
    values = watch_query(server.url, "m:count", b'{"most":0}')
    result = await anext(values)
    assert isinstance(result, QueryFailed)
    assert result.error_data == b'{"count":1.0}'
    await values.aclose()


async def test_an_administrator_may_act_as_a_user(server):
    key = server.t.backend.admin_keys.issue()
    user = {"issuer": "https://x", "subject": "ann"}
    values = watch_query(server.url, "m:who", b"{}", admin_key=key, acting_as=user)
    assert (await anext(values)).value == b'"ann"'
    await values.aclose()


async def test_a_lost_connection_is_taken_up_again_without_repeating_the_value(server):
    lost: list[str] = []
    values = watch_query(server.url, "m:count", b"{}", on_lost=lost.append)
    assert (await anext(values)).value == b"0.0"
    following = asyncio.ensure_future(anext(values))
    await server.stop()
    await server.start()
    await asyncio.sleep(0.3)
    assert not following.done()
    await server.t.mutation("m:add")
    assert (await asyncio.wait_for(following, 10)).value == b"1.0"
    assert lost
    await values.aclose()


async def test_a_bad_key_ends_it(server):
    with pytest.raises(Unauthenticated):
        await anext(watch_query(server.url, "m:count", b"{}", admin_key="no|key"))


async def test_a_server_that_is_not_there_is_said():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(NotFound, match="cannot be reached"):
        await anext(watch_query(f"http://127.0.0.1:{port}", "m:count", b"{}"))


@pytest.mark.parametrize("url", ["ftp://x", "localhost:3210"])
async def test_a_url_is_one_of_http(url):
    with pytest.raises(BadRequest, match="http://"):
        await anext(watch_query(url, "m:count", b"{}"))
