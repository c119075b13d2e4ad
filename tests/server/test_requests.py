"""What surrounds every endpoint: the limit of requests, their time, and their bodies."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.runtime import SystemRuntime
from reactive_store.server.requests import Endpoints, json_response, read_body


def client_of(endpoint, **limits) -> httpx.AsyncClient:
    async def get_backend():
        return "the backend"

    endpoints = Endpoints(get_backend, limits=Limits(**limits), runtime=SystemRuntime())
    app = Starlette(routes=[Route("/", endpoints.route(endpoint), methods=["POST"])])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://store.test")


async def test_more_requests_than_allowed_wait_their_turn():
    running, most = 0, 0
    gate = asyncio.Event()

    async def endpoint(backend, request):
        nonlocal running, most
        assert backend == "the backend"
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        return Response()

    async with client_of(endpoint, concurrent_requests=2) as http:
        requests = [asyncio.create_task(http.post("/")) for _ in range(5)]
        while running < 2:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert running == 2
        gate.set()
        statuses = [(await request).status_code for request in requests]
    assert statuses == [200] * 5
    assert most == 2


async def test_a_request_that_takes_too_long_ends_with_an_empty_408():
    async def endpoint(backend, request):
        await asyncio.Event().wait()

    async with client_of(endpoint, request_seconds=0.01) as http:
        response = await http.post("/")
    assert (response.status_code, response.content) == (408, b"")


async def test_a_place_is_free_again_after_a_failure():
    async def endpoint(backend, request):
        raise BadRequest("no", code="No")

    async with client_of(endpoint, concurrent_requests=1) as http:
        for _ in range(3):
            response = await http.post("/")
            assert (response.status_code, response.json()["code"]) == (400, "No")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("size", "status"), [(10, 200), (11, 400)])
async def test_a_body_is_read_up_to_its_limit(chunked, size, status):
    async def endpoint(backend, request):
        return json_response(len(await read_body(request, 10, code="TooLong")))

    async def pieces():
        for _ in range(size):
            yield b"x"

    async with client_of(endpoint) as http:
        response = await http.post("/", content=pieces() if chunked else b"x" * size)
    assert response.status_code == status
    assert response.json() == size if status == 200 else response.json()["code"] == "TooLong"


async def test_callers_that_take_their_time_with_a_body_keep_no_place():
    async def endpoint(backend, request):
        return json_response(len(await read_body(request, 1000)))

    finish = asyncio.Event()

    async def slow():
        yield b"x"
        await finish.wait()
        yield b"x"

    async with client_of(endpoint, concurrent_requests=1) as http:
        waiting = [asyncio.create_task(http.post("/", content=slow())) for _ in range(3)]
        await asyncio.sleep(0.02)
        quick = await asyncio.wait_for(http.post("/", content=b"abc"), 1)
        assert quick.json() == 3
        assert not any(each.done() for each in waiting)
        finish.set()
        assert [(await each).json() for each in waiting] == [2, 2, 2]


async def test_slow_callers_with_large_bodies_keep_half_of_the_places_at_most():
    async def endpoint(backend, request):
        return json_response(len(await read_body(request, 1_000_000)))

    finish = asyncio.Event()

    async def slow():
        yield b"x" * 100_000
        await finish.wait()
        yield b"x"

    async with client_of(endpoint, concurrent_requests=4) as http:
        waiting = [asyncio.create_task(http.post("/", content=slow())) for _ in range(8)]
        await asyncio.sleep(0.02)
        quick = await asyncio.wait_for(http.post("/", content=b"abc"), 1)
        assert quick.json() == 3
        finish.set()
        assert [(await each).json() for each in waiting] == [100_001] * 8


async def test_a_body_that_stops_coming_ends_with_the_time_of_the_request():
    async def endpoint(backend, request):
        raise AssertionError("it has no whole request")

    async def endless():
        yield b"x"
        await asyncio.Event().wait()

    async with client_of(endpoint, request_seconds=0.02) as http:
        response = await http.post("/", content=endless())
    assert (response.status_code, response.content) == (408, b"")
