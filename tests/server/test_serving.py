"""Real ports on loopback: starting, stopping, and ports that cannot be had."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from reactive_store.errors import BadRequest
from reactive_store.server.serving import listen, serve, url_of

HOST = "127.0.0.1"


class Running:
    """A server of this process, from its first connection to its last."""

    def __init__(self, backend, **options) -> None:
        self.stop = asyncio.Event()
        self.url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(
            serve(
                backend,
                host=HOST,
                port=0,
                ready=self.url.set_result,
                stop=self.stop,
                **options,
            )
        )

    async def __aenter__(self) -> str:
        await asyncio.wait([self.task, self.url], return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            self.task.result()
        return self.url.result()

    async def __aexit__(self, *_) -> None:
        self.stop.set()
        await asyncio.wait_for(self.task, 20)


async def test_the_url_is_told_when_it_answers(backend):
    async with Running(backend) as url, httpx.AsyncClient(base_url=url) as http:
        assert (await http.get("/instance_name")).text == "test-store"
        assert backend.announced == [url]
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    assert backend.closed == 0


async def test_the_site_port_serves_what_is_below_http(backend):
    site = listen(HOST, 0)
    port = site.getsockname()[1]
    site.close()
    async with (
        Running(backend, site_port=port),
        httpx.AsyncClient(base_url=f"http://{HOST}:{port}") as http,
    ):
        for path in ("/", "/hook", "/version", "/api/query"):
            response = await http.get(path, headers={"Origin": "https://page.example"})
            assert response.status_code == 404
            assert response.text.startswith("This Convex deployment does not have HTTP actions")
            assert "access-control-allow-origin" not in response.headers


async def test_a_graceful_stop_closes_sockets_with_1001(backend):
    running = Running(backend)
    url = await running.__aenter__()
    async with connect(url.replace("http", "ws", 1) + "/api/1.48.0/sync") as client:
        assert "Sec-WebSocket-Extensions" not in client.response.headers
        stopping = asyncio.create_task(running.__aexit__())
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd.code == 1001
    await stopping


async def test_a_cancelled_server_lets_go_of_its_port(backend):
    running = Running(backend)
    url = await running.__aenter__()
    running.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running.task
    listen(HOST, int(url.rpartition(":")[2])).close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_it_and_signals_are_as_before_afterwards(backend, number):
    before = signal.getsignal(number)
    running = Running(backend)
    await running.__aenter__()
    os.kill(os.getpid(), number)
    await asyncio.wait_for(running.task, 20)
    assert signal.getsignal(number) == before


async def test_a_port_in_use_says_what_to_do(backend):
    with listen(HOST, 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadRequest) as refused:
            await serve(backend, host=HOST, port=port, ready=print)
    assert refused.value.code == "PortInUse"
    assert f"port {port} is in use" in refused.value.message
    assert "--port" in refused.value.message


async def test_a_site_port_in_use_leaves_the_api_port_free(backend):
    with listen(HOST, 0) as taken, listen(HOST, 0) as free:
        port = free.getsockname()[1]
        free.close()
        with pytest.raises(BadRequest):
            await serve(
                backend, host=HOST, port=port, site_port=taken.getsockname()[1], ready=print
            )
        listen(HOST, port).close()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.1"])
def test_an_address_that_is_not_ours_is_explained(host):
    with pytest.raises(BadRequest) as refused:
        listen(host, 0)
    assert refused.value.code == "AddressNotUsable"
    assert host in refused.value.message


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("localhost", "localhost")],
)
def test_the_url_can_be_opened_on_this_machine(host, shown):
    with listen(host, 0) as listening:
        assert isinstance(listening, socket.socket)
        assert url_of(host, listening) == f"http://{shown}:{listening.getsockname()[1]}"
