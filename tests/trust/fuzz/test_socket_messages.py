"""Messages of every kind on the sync socket, in any order and a little wrong.

Two strangers talk on one deployment, one of them as Bob. They know Bob's cursors and ids and have
stolen Alice's; they forge journals, query ids, request ids and session ids.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
import tracemalloc
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import orjson
import pytest

from tests.trust.breakage import Breakage
from tests.trust.effort import Effort
from tests.trust.fuzz.breakages import named
from tests.trust.fuzz.deployment import ALICE_TOKEN, BOB_TOKEN, Deployment, secrets_of_alice
from tests.trust.fuzz.mangling import mangle_bytes, mangle_json, odd_value, write_json
from tests.trust.fuzz.peer import Peer, frame, text_frame
from tests.trust.fuzz.shrinking import Find, report, shrink
from tests.trust.fuzz.test_http_requests import _ARGS, _PATHS, Writer, judge

_MUTATIONS = ("notes:write", "odds:keep", "odds:failsLate")
_ACTIONS = ("odds:acts", "odds:failsInAction")
_QUERIES = tuple(path for path in _PATHS if path not in (*_MUTATIONS, *_ACTIONS))
ALICE_SESSION = "3f2b7c1e-9d4a-4b8f-8e21-a5c09d7e6f13"


class Talk:
    """Writes the messages of one peer; most of them fit to what it said before."""

    def __init__(self, rng: random.Random, deployment: Deployment) -> None:
        self.rng = rng
        self.deployment = deployment
        self.query_set = 0
        self.identity = 0
        self.queries: list[int] = []
        self.request = 0
        near = uuid.UUID(ALICE_SESSION).int
        # Alice's session id but for one bit: who knows the whole of it is Alice.
        self.near_session = str(uuid.UUID(int=near ^ 1 << rng.randrange(128)))
        self.pool: list[Any] = [*deployment.stolen, *deployment.own, *_PATHS, self.near_session]
        # Most of what is sent must be right, or the socket ends before it has been tried.
        self.wildness = rng.choice((0.0, 0.02, 0.1, 0.5))

    def next(self) -> bytes:
        """The bytes of the next message."""
        rng = self.rng
        kinds = (self._modify, self._modify, self._call, self._call, self._authenticate)
        message = rng.choice((*kinds, self._connect, self._event))()
        if rng.random() < self.wildness:
            message = mangle_json(rng, message, self.pool)
        data = write_json(message)
        if rng.random() < self.wildness / 5:
            data = mangle_bytes(rng, data, [b'{"type":"Mutation"}', b"\xff\0"])
        return data

    def _connect(self) -> dict[str, Any]:
        rng = self.rng
        return {
            "type": "Connect",
            "sessionId": rng.choice((str(uuid.UUID(int=rng.getrandbits(128))), self.near_session)),
            "connectionCount": rng.randrange(3),
            "lastCloseReason": "InitialConnect",
            "maxObservedTimestamp": rng.choice((None, "AAAAAAAAAAA=", "AQAAAAAAAAA=")),
            "clientTs": rng.choice((0, 1_700_000_000_000, -(2**60), 2**63)),
        }

    def _modify(self) -> dict[str, Any]:
        rng = self.rng
        modifications: list[Any] = []
        for _ in range(rng.choice((0, 1, 1, 2, 5))):
            if self.queries and rng.random() < 0.3:
                gone = self.queries.pop(rng.randrange(len(self.queries)))
                modifications.append({"type": "Remove", "queryId": gone})
                continue
            query = rng.choice((len(self.queries), rng.randrange(2**32)))
            if query in self.queries:
                continue
            self.queries.append(query)
            added = {"type": "Add", "queryId": query, **self._target(_QUERIES)}
            if rng.random() < 0.5:
                added["journal"] = rng.choice((*self.deployment.stolen, *self.deployment.own, None))
            modifications.append(added)
        base, self.query_set = self.query_set, self.query_set + rng.choice((1, 1, 1, 7))
        return {
            "type": "ModifyQuerySet",
            "baseVersion": base,
            "newVersion": self.query_set,
            "modifications": modifications,
        }

    def _target(self, paths: Sequence[str]) -> dict[str, Any]:
        rng = self.rng
        path = rng.choice(paths if rng.random() < 0.9 else _PATHS)
        args: Any = _ARGS.get(path, {})
        if path == "notes:mine":
            cursor = rng.choice((None, *self.deployment.stolen, *self.deployment.own))
            end = rng.choice((None, None, *self.deployment.stolen))
            args = {"paginationOpts": {"numItems": 3, "cursor": cursor, "endCursor": end}}
        elif path == "notes:read":
            args = {"noteId": rng.choice(self.deployment.stolen)}
        if rng.random() < 0.3:
            damaged = mangle_json(rng, args, self.pool)
            # Text that is no JSON would end the socket; that is what `wildness` is for.
            args = damaged if _is_json(damaged) else args
        return {"udfPath": path, "args": rng.choice(([args], [args], [args], args, []))}

    def _call(self) -> dict[str, Any]:
        self.request += 1
        request = self.rng.choice((self.request, self.request, 0, self.rng.randrange(2**32)))
        kind = self.rng.choice(("Mutation", "Mutation", "Action"))
        paths = _MUTATIONS if kind == "Mutation" else _ACTIONS
        return {"type": kind, "requestId": request, **self._target(paths)}

    def _authenticate(self) -> dict[str, Any]:
        rng = self.rng
        base, self.identity = self.identity, self.identity + 1
        message: dict[str, Any] = {"type": "Authenticate", "baseVersion": base}
        roll = rng.random()
        if roll < 0.3:
            return {**message, "tokenType": "None"}
        if roll < 0.85:
            return {**message, "tokenType": "User", "value": BOB_TOKEN}
        user = {"issuer": "i", "subject": "s", "claim": odd_value(rng)}
        key = self.deployment.admin_key
        forged = key[: rng.randrange(len(key))]
        return {**message, "tokenType": "Admin", "value": forged, "impersonating": user}

    def _event(self) -> dict[str, Any]:
        return {"type": "Event", "eventType": "x", "event": odd_value(self.rng)}


def _is_json(value: Any) -> bool:
    try:
        orjson.loads(write_json(value))
    except ValueError:
        return False
    return True


async def converse(
    deployment: Deployment,
    messages: list[bytes],
    pieces: int = 1,
    counts: Counter[str] | None = None,
) -> Find | None:
    """What is wrong with how a socket answers to these messages, one after the other."""
    peer = Peer(deployment, secrets_of_alice())
    await peer.open()
    for message in messages:
        if counts is not None:
            counts["messages"] += 1
        whole = frame(message)
        size = -(-len(whole) // pieces)
        for at in range(0, len(whole), size):
            peer.feed(whole[at : at + size])
        await peer.settle(4)
        if not peer.is_open or peer.close_code is not None:
            break
    await peer.settle(20)
    peer.leave()
    for message in peer.messages if counts is not None else ():
        counts[message["type"]] += 1
        counts.update(change["type"] for change in message.get("modifications", ()))
        counts["success"] += message.get("success", False)
    return peer.find


async def explore(
    seed: int, sockets: int, *, redact: bool
) -> tuple[Counter[str], Find | None, str]:
    """Let `sockets` strangers talk to a new deployment while Alice is there too.

    What was said by both sides, the first find, and its report.
    """
    said: Counter[str] = Counter()
    async with Deployment(seed=seed, redact=redact) as deployment:
        alice = await _alice(deployment)
        for number in range(sockets):
            rng = random.Random(f"talk {seed} {number}")
            talk = Talk(rng, deployment)
            messages = [talk.next() for _ in range(rng.choice((1, 4, 12, 30)))]
            pieces = rng.choice((1, 1, 1, 2, 9))
            find = await converse(deployment, messages, pieces, said)
            if find is not None:

                async def shows(fewer: list[bytes], find: Find = find) -> bool:
                    seen = await converse(deployment, fewer)
                    return seen is not None and seen.kind == find.kind

                smallest = await shrink(messages, shows)
                text = report("robust on a socket", f"{seed} socket {number}", smallest, find)
                alice.leave()
                return said, find, text
            if number % 50 == 49:
                await deployment.canary(number)
        # A page of Alice's own journal still comes, and what her socket was told is only hers.
        await alice.settle()
        assert alice.find is None, alice.find
        alice.leave()
        await deployment.runtime.advance(timedelta(seconds=1))
        left = await deployment.is_idle()
        if left is not None:
            return said, Find("left behind", left), f"seed {seed}: {left}"
        await deployment.canary()
    return said, None, ""


async def _alice(deployment: Deployment) -> Peer:
    """Alice watches her notes and writes one, so that her answers can be shared by mistake."""
    alice = Peer(deployment, ())
    await alice.open()
    target = {"udfPath": "notes:texts", "args": [{}]}
    pages = {"numItems": 3, "cursor": None}
    for message in (
        {"type": "Connect", "sessionId": ALICE_SESSION, "connectionCount": 0},
        {"type": "Authenticate", "baseVersion": 0, "tokenType": "User", "value": ALICE_TOKEN},
        {
            "type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1,
            "modifications": [
                {"type": "Add", "queryId": 0, **target},
                {
                    "type": "Add", "queryId": 1, "udfPath": "notes:mine",
                    "args": [{"paginationOpts": pages}],
                },
            ],
        },
        {
            "type": "Mutation", "requestId": 0, "udfPath": "notes:write",
            "args": [{"text": "ALICE-SECRET-0"}],
        },
    ):  # fmt: skip
        alice.feed(text_frame(message))
        await alice.settle(20)
    seen = json.dumps(alice.messages)
    assert all(secret in seen for secret in secrets_of_alice()), seen[:500]
    return alice


@pytest.mark.parametrize("redact", [True, False], ids=["redacted", "shown"])
async def test_no_messages_break_a_socket_or_show_what_is_alice_s(
    effort: Effort, evidence: Any, redact: bool
) -> None:
    said: Counter[str] = Counter()
    for seed in effort.seeds(2, 16):
        counts, find, text = await explore(seed, effort.pick(250, 900), redact=redact)
        said += counts
        assert find is None, text
    # Both sides must have had something to say, or nothing was tried.
    for kind in ("QueryUpdated", "QueryFailed", "QueryRemoved", "success", "FatalError"):
        assert said[kind] > 50, said
    evidence(
        "robust",
        messages=said["messages"],
        transitions=said["Transition"],
        calls=said["MutationResponse"] + said["ActionResponse"],
    )


async def test_a_socket_that_falls_silent_in_the_middle_is_given_up(evidence: Any) -> None:
    whole = text_frame({"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1})
    cuts = 0
    async with Deployment() as deployment:
        for cut in (0, 1, 2, 5, len(whole) - 1):
            peer = Peer(deployment, secrets_of_alice())
            await peer.open()
            peer.feed(whole[:cut])
            await deployment.runtime.advance(timedelta(seconds=119))
            await peer.settle()
            assert peer.close_code is None, cut
            await deployment.runtime.advance(timedelta(seconds=5))
            await peer.settle()
            assert (cut, peer.close_code) == (cut, 1000)
            peer.leave()
            cuts += 1
        assert await deployment.is_idle() is None
    evidence("robust", sockets=cuts)


async def test_a_crowd_that_comes_and_goes_leaves_nothing_behind(
    effort: Effort, evidence: Any
) -> None:
    rounds = effort.pick(12, 100)
    async with Deployment(seed=effort.seed) as deployment:
        for number in range(rounds):
            rng = random.Random(f"crowd {effort.seed} {number}")
            peers = [Peer(deployment, secrets_of_alice()) for _ in range(20)]
            talks = [Talk(rng, deployment) for _ in peers]
            await asyncio.gather(*[peer.open() for peer in peers])
            for _ in range(6):
                for peer, talk in zip(peers, talks, strict=True):
                    peer.feed(frame(talk.next()))
                    if rng.random() < 0.05:
                        peer.leave()
                await asyncio.sleep(0)
            await asyncio.gather(*[peer.settle(30) for peer in peers])
            for peer in peers:
                peer.leave()
                assert peer.find is None, report("robust in a crowd", number, "", peer.find)
            left = await deployment.is_idle()
            assert left is None, f"round {number}: {left}"
        await deployment.canary()
    evidence("robust", sockets=rounds * 20)


async def test_memory_stays_flat_under_messages_and_requests(
    effort: Effort, evidence: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same inputs again and again: what is held after the third time is held after the last."""
    # pytest keeps what is logged, for its report.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    rounds, inputs = effort.pick(6, 30), 0
    held: list[int] = []
    async with Deployment(seed=effort.seed, body_bytes=200_000) as deployment:
        for _ in range(rounds):
            for number in range(60):
                rng = random.Random(f"memory {effort.seed} {number}")
                talk = Talk(rng, deployment)
                messages = [talk.next() for _ in range(10)]
                # What is stored is meant to stay; what is only said must not.
                messages = [data for data in messages if b'"Mutation"' not in data]
                await converse(deployment, messages)
                sent = Writer(rng, deployment).request()
                if "mutation" not in sent.target and "run" not in sent.target:
                    await judge(deployment, sent)
                inputs += len(messages) + 1
            assert await deployment.is_idle() is None
            gc.collect()
            if not tracemalloc.is_tracing():
                tracemalloc.start()
            held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert held[-1] - held[2] < 30_000 * (rounds - 3), held
    evidence("robust", inputs=inputs, grown_bytes=held[-1] - held[2])


@pytest.mark.parametrize(
    "breakage", named("redact", "kept-watches", "shared-identity", "internal-call"), ids=str
)
async def test_a_breakage_behind_the_socket_is_found(
    breakage: Breakage, monkeypatch: pytest.MonkeyPatch, evidence: Any
) -> None:
    breakage.apply(monkeypatch)
    # The check that a socket leaves nothing behind would wait for what never comes.
    monkeypatch.setattr(Deployment.is_idle, "__defaults__", (0.05,))
    _, find, _ = await explore(1, 250, redact=True)
    assert find is not None
    assert (
        find.kind
        in {
            "redact": {"internal text", "error text"},
            "kept-watches": {"left behind"},
            "shared-identity": {"another user's data"},
            "internal-call": {"internal text", "internal function"},
        }[breakage.name]
    )
    evidence("robust", breakage=breakage, found=1)
