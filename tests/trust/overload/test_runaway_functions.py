"""Handlers that do not end: interrupted at the limit, named, and everybody else goes on."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.trust.effort import Effort
from tests.trust.overload.breakages import NO_WATCHDOG
from tests.trust.overload.bystander import Bystander
from tests.trust.overload.deployment import MIB, Deployment
from tests.trust.overload.peer import Peer, eventually

COMPUTE_S = 0.4
WALL_FACTOR = 5  # processor time counts, up to so much time on the wall
# A bystander may wait for one such step to be found out, and for what the machine adds.
PATIENCE_S = 3.0
NEVER_S = COMPUTE_S * 5  # then it would have come
SHARED = {"compute_seconds": COMPUTE_S}
_LINES = {
    name: number
    for number, line in enumerate(
        (Deployment.SOURCE / "functions" / "runaway.py").read_text().splitlines(), 1
    )
    for name in re.findall(r"# named: (\w+)", line)
}


def _assert_named(said: str, path: str, function: str, line: str) -> None:
    told = f"Function execution timed out (maximum duration: {COMPUTE_S:g}s): {path}"
    assert told in said
    place = re.search(rf"at {function} \(functions/runaway\.py:(\d+)\)", said)
    assert place is not None, said
    # The line of the loop's head, or of its body.
    assert _LINES[line] - int(place.group(1)) in (0, 1), said


def _text(answer: dict[str, object]) -> str:
    return str(answer.get("errorMessage", answer.get("result")))


async def test_handlers_that_spin_are_interrupted_and_named_and_others_go_on(
    shared: Deployment, effort: Effort, evidence: Callable[..., None]
):
    server = shared
    peer = await Peer.open(server.port)
    rounds = effort.pick(1, 20)
    with Bystander(server) as bystander:
        for number in range(rounds):
            answer = await peer.call("runaway:mutation_spins")
            assert answer["success"] is False
            (query,) = peer.watch("runaway:query_spins", {"number": number})
            await eventually(lambda q=query: q in peer.results, "the query's end")
            swallowed = await peer.call("runaway:swallows", times=2)
            assert swallowed["success"] is False, "what swallowed the interruption succeeded"
    for said, path, function, line in (
        (_text(answer), "runaway:mutationSpins", "mutation_spins", "mutation"),
        (_text(peer.results[query]), "runaway:querySpins", "query_spins", "query"),
        (_text(swallowed), "runaway:swallows", "swallows", "swallows"),
    ):
        _assert_named(said, path, function, line)
        _assert_named(server.log().partition(f"{path} failed: ")[2], path, function, line)
    # A mutation that was interrupted has done nothing.
    mark = peer.watch("rooms:mark", {"room": "never"})[0]
    await eventually(lambda: mark in peer.results, "the room")
    assert peer.results[mark]["version"] == 0
    # The longest step is the one that swallows twice, and is interrupted three times.
    bystander.assert_served(3 * COMPUTE_S * WALL_FACTOR + PATIENCE_S)
    evidence("bounded", handlers=3 * rounds, **bystander.figures())


async def test_a_server_that_never_interrupts_is_found(
    deploy: Callable[..., Deployment], evidence: Callable[..., None]
):
    server = deploy(breakage=NO_WATCHDOG, compute_seconds=COMPUTE_S)
    peer = await Peer.open(server.port)
    request = peer.ask("runaway:mutation_spins")
    with pytest.raises(AssertionError, match="not within"):
        await eventually(lambda: request in peer.answers, "the interruption", NEVER_S)
    evidence("bounded", breakage=NO_WATCHDOG, seconds=NEVER_S)


async def test_a_handler_that_blocks_the_thread_is_reported_while_it_does(
    shared: Deployment, evidence: Callable[..., None]
):
    """Nothing can interrupt it: it does not come back to the interpreter. The log must say who."""
    server = shared
    peer = await Peer.open(server.port)
    blocked_s = 1.8
    with Bystander(server) as bystander:
        request = peer.ask("runaway:sleeps", seconds=blocked_s)
        place = f"runaway.py:{_LINES['sleeps']}"
        reported = await eventually(lambda: place in server.log(), "a line in the log", blocked_s)
        assert request not in peer.answers, "it was reported only afterwards"
        await eventually(lambda: request in peer.answers, "its end")
    # The known price: everybody waits for exactly that long.
    bystander.assert_served(blocked_s + PATIENCE_S)
    evidence("bounded", reported_after_ms=round(reported * 1000), **bystander.figures())


@pytest.mark.parametrize(
    ("path", "kind", "told"),
    [
        ("runaway:allocates", "Query", f"timed out (maximum duration: {COMPUTE_S:g}s)"),
        ("runaway:reads_for_ever", "Query", "Too many documents read"),
        ("runaway:reads_points_for_ever", "Query", "Too many reads"),
        ("runaway:writes_for_ever", "Mutation", "Too many writes"),
        ("runaway:writes_much_for_ever", "Mutation", "Too many bytes written"),
    ],
)
async def test_work_without_end_meets_the_limit_that_is_named_after_it(
    shared: Deployment,
    evidence: Callable[..., None],
    path: str,
    kind: str,
    told: str,
):
    server = shared
    peer = await Peer.open(server.port)
    await peer.call("texts:store", owner="somebody", text="t", copies=500)
    before = server.forget_peak()
    with Bystander(server) as bystander:
        if kind == "Query":
            (query,) = peer.watch(path, {})
            await eventually(lambda: query in peer.results, "the query's end")
            said = _text(peer.results[query])
        else:
            answer = await peer.call(path)
            assert answer["success"] is False
            said = _text(answer)
    assert told in said, said
    assert "functions/runaway.py:" in said
    # What a handler allocates for itself is bounded by the time it has; the rest by bytes.
    allocated = server.peak_bytes() - before
    bound = 1024 * MIB if "allocates" in path else 3 * server.limits.written_bytes + 32 * MIB
    assert allocated < bound
    bystander.assert_served(COMPUTE_S * WALL_FACTOR + PATIENCE_S)
    assert "Uncaught Error" in server.log()
    evidence("bounded", peak_mib=round(allocated / MIB), **bystander.figures())
