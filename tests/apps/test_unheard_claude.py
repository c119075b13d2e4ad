"""A run whose answers are Claude's: the same functions, a server on loopback in Claude's place."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from reactive_store.auth.identity import ANONYMOUS
from reactive_store.backend import Backend
from reactive_store.config import Settings
from reactive_store.functions.loader import load_app
from reactive_store.functions.names import parse_path
from reactive_store.functions.outcome import Success
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.values.wire import dumps, loads

ROOT = Path(__file__).resolve().parents[2]
ANSWER = {"response": "I would pay.", "sentiment": 0.8, "keyPoints": ["worth it", "clear"]}
INSIGHT = {
    "insight": "People would pay.",
    "confidence": 0.7,
    "supportingEvidence": ["Ada 1: I would pay."],
    "actionableRecommendation": "Raise it.",
}


class Claude:
    """Answers by what the brief asks for; `broken` tasks and names get no usable answer."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.asked: list[str] = []

    async def messages(self, request: Request) -> Response:
        prompt = (await request.json())["messages"][0]["content"]
        brief = json.loads(prompt.rpartition("Brief:\n")[2])
        name = brief.get("persona", {}).get("name", brief["task"])
        self.asked.append(name)
        if brief["task"] == "summary" and "summary" in self.broken:
            error = {"type": "invalid_request_error", "message": "no"}
            return JSONResponse({"type": "error", "error": error}, status_code=400)
        if name in self.broken:
            return _stream("I would rather not answer in JSON.")
        return _stream(f"Here it is:\n```json\n{json.dumps(_reply(brief))}\n```\nAnything else?")


def _reply(brief: dict[str, Any]) -> Any:
    match brief["task"]:
        case "personas":
            return [
                {
                    "name": f"Ada {number}",
                    "role": "Founder",
                    "background": "Makes bread.",
                    "beliefs": ["Bread matters."],
                    "preferences": ["short answers"],
                }
                for number in range(1, brief["count"] + 1)
            ]
        case "answer":
            return ANSWER
        case _:
            return {"insights": [INSIGHT], "topConcerns": ["price"], "topPositives": ["clear"]}


def _stream(text: str) -> Response:
    head = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": head},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": text[at : at + 20]},
            }
            for at in range(0, len(text), 20)
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]

    async def body() -> AsyncIterator[str]:
        for event in events:
            yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"

    return StreamingResponse(body(), media_type="text/event-stream")


class Deployment:
    """The app in memory, with a key in its environment."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    async def call(self, path: str, **args: Any) -> Any:
        outcome = await self.backend.runner.any_kind(parse_path(path), dumps(args), ANONYMOUS)
        assert isinstance(outcome, Success), outcome
        return loads(outcome.value)

    async def run_experiment(self) -> tuple[str, Any]:
        project_id = await self.call("projects:create", name="Bread")
        experiment_id = await self.call(
            "experiments:create",
            projectId=project_id,
            name="Price",
            stimulus="Bread costs 6 EUR.",
            archetypes=[
                {
                    "id": "founder",
                    "name": "Founder",
                    "count": 3,
                    "description": "Makes things.",
                    "characteristics": [],
                }
            ],
        )
        return experiment_id, await self.call("experiments:run", experimentId=experiment_id)


@pytest.fixture
async def claude() -> AsyncIterator[tuple[Claude, str]]:
    service = Claude()
    listener = socket.create_server(("127.0.0.1", 0))
    routes = [Route("/v1/messages", service.messages, methods=["POST"])]
    server = uvicorn.Server(
        uvicorn.Config(Starlette(routes=routes), log_config=None, lifespan="off", ws="none")
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.005)
    yield service, f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await serving
    listener.close()


@pytest.fixture
async def deployment(claude: tuple[Claude, str]) -> AsyncIterator[Deployment]:
    backend = await Backend.open(
        Settings(app=ROOT), app=load_app(ROOT), persistence=MemoryPersistence()
    )
    await backend.environment.update(
        {"ANTHROPIC_API_KEY": "sk-test", "ANTHROPIC_BASE_URL": claude[1]}
    )
    yield Deployment(backend)
    await backend.close()


async def test_with_a_key_the_answers_and_insights_are_claudes(deployment, claude):
    experiment_id, end = await deployment.run_experiment()
    assert end == {"status": "completed", "answered": 3, "missing": 0}
    experiment = await deployment.call("experiments:get", experimentId=experiment_id)
    assert experiment["config"]["provider"] == "claude"
    results = await deployment.call(
        "experimentResults:listByExperiment", experimentId=experiment_id
    )
    assert sorted(one["personaName"] for one in results) == ["Ada 1", "Ada 2", "Ada 3"]
    assert {one["response"] for one in results} == {"I would pay."}
    assert {one["sentimentLabel"] for one in results} == {"positive"}
    insights = await deployment.call(
        "experimentInsights:getByExperiment", experimentId=experiment_id
    )
    assert insights["insights"] == [INSIGHT]
    assert insights["topConcerns"] == ["price"]
    assert sorted(claude[0].asked) == ["Ada 1", "Ada 2", "Ada 3", "personas", "summary"]


async def test_an_answer_that_cannot_be_read_is_asked_for_once_more_and_then_missing(
    deployment, claude
):
    claude[0].broken = {"Ada 2"}
    _, end = await deployment.run_experiment()
    assert end == {"status": "completed", "answered": 2, "missing": 1}
    assert claude[0].asked.count("Ada 2") == 2


async def test_without_a_summary_concerns_and_positives_are_counted(deployment, claude):
    claude[0].broken = {"summary"}
    experiment_id, end = await deployment.run_experiment()
    assert end["status"] == "completed"
    insights = await deployment.call(
        "experimentInsights:getByExperiment", experimentId=experiment_id
    )
    assert insights["insights"] == []
    assert insights["topPositives"] == ["worth it", "clear"]
    assert insights["topConcerns"] == []
    assert insights["sentimentBreakdown"]["positive"] == 3
