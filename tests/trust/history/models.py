"""Histories that are right by construction, for the checker to leave alone, and spoiled ones.

A store that runs one transaction after the other; around each instant lies an interval in which a
client was waiting for it, so that transactions overlap as they do for real.
"""

from __future__ import annotations

import random
from typing import Any

from tests.trust.history.record import FAIL, NEVER_ASKED, NO_ANSWER, OK, UNKNOWN, Op, Txn, numbered

__all__ = ["serial_history", "spoiled"]

State = dict[Any, Any]


def serial_history(
    seed: int, count: int, *, keys: int = 4, clients: int = 5, with_ts: bool = True
) -> list[Txn]:
    """A history of `count` transactions on lists (keys "l…") and registers (keys "r…").

    Some fail (and change nothing), of some nobody heard the end, some are pushes.
    """
    chance = random.Random(seed)
    state: State = {}
    history: list[Txn] = []
    free = [0.0] * clients  # when each client's last transaction was over
    places = [0] * clients
    for number in range(count):
        instant = float(number)
        client = chance.randrange(clients)
        if free[client] >= instant:
            client = min(range(clients), key=lambda each: free[each])
            if free[client] >= instant:
                continue  # everybody is waiting for an answer
        draw = chance.random()
        status = FAIL if draw < 0.05 else UNKNOWN if draw < 0.1 else OK
        is_push = status == OK and chance.random() < 0.1
        own = dict(state)
        ops = _operations(chance, own, keys, number, only_reads=is_push or chance.random() < 0.25)
        writes = any(kind in ("append", "write") for kind, _, _ in ops)
        if status == OK or (status == UNKNOWN and chance.random() < 0.5):
            state = own
        if status == UNKNOWN:
            ops = [op for op in ops if op[0] in ("append", "write")]
        complete = instant + chance.random() * clients
        history.append(
            Txn(
                ops,
                process=f"c{client}",
                invoke=NEVER_ASKED if is_push else max(free[client], instant - chance.random() * 3),
                complete=NO_ANSWER if status == UNKNOWN else complete,
                status=status,
                ts=number * 10 - (0 if writes else 5) if status == OK and with_ts else None,
                session=f"c{client}",
                place=places[client],
            )
        )
        free[client] = complete
        places[client] += 1
    last = [("read" if key.startswith("l") else "get", key, state[key]) for key in sorted(state)]
    history.append(
        Txn(
            last,
            process="end",
            invoke=count + clients + 1.0,
            complete=count + clients + 2.0,
            ts=count * 10 if with_ts else None,
        )
    )
    return numbered(history)


def _operations(
    chance: random.Random, state: State, keys: int, number: int, *, only_reads: bool
) -> list[Op]:
    """Some operations, run on the state."""
    ops: list[Op] = []
    for position in range(chance.randrange(1, 5)):
        key = f"{chance.choice('lr')}{chance.randrange(keys)}"
        value = number * 10 + position
        is_list = key.startswith("l")
        if only_reads or chance.random() < 0.5:
            held = state.get(key, [] if is_list else None)
            ops.append(("read" if is_list else "get", key, held))
        elif is_list:
            state[key] = [*state.get(key, []), value]
            ops.append(("append", key, value))
        else:
            state[key] = value
            ops.append(("write", key, value))
    return ops


def spoiled(history: list[Txn], chance: random.Random) -> str | None:
    """Swap one read for what was there before; returns what was done, None when nothing can be.

    Only first reads of keys their readers have not written are touched, and only where the change
    they now miss was over before they were asked: no order explains that.
    """
    places = []
    writers = {
        (key, value): txn
        for txn in history
        for kind, key, value in txn.ops
        if kind in ("append", "write")
    }
    for txn in history:
        if txn.status != OK or txn.invoke == NEVER_ASKED:
            continue
        touched: set[Any] = set()
        written = {key for kind, key, _ in txn.ops if kind in ("append", "write")}
        for position, (kind, key, value) in enumerate(txn.ops):
            if key not in touched | written and kind in ("read", "get") and value:
                newest = value[-1] if kind == "read" else value
                writer = writers[key, newest]
                if writer.status == OK and writer.complete < txn.invoke:
                    places.append((txn, position, writer))
            touched.add(key)
    if not places:
        return None
    txn, position, writer = chance.choice(places)
    kind, key, value = txn.ops[position]
    stale: Any
    if kind == "read":
        own = [each for word, at, each in writer.ops if (word, at) == ("append", key)]
        stale = value[: -len(own)]
    else:
        stale = None  # as if nobody had ever written it
    ops = list(txn.ops)
    # Later reads of the same key in the same transaction said the same.
    for at, op in enumerate(ops):
        if op == (kind, key, value):
            ops[at] = (kind, key, stale)
    txn.ops = ops
    return f"T{txn.id} now read {stale} of {key} instead of {value}, written by T{writer.id}"
