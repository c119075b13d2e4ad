"""The questions, each a function from a `Plan` to an `Answer`.

A question measures its ceiling before and after ours, and ours in between; where two things of
ours are compared (a hot row against many rows) they take turns. Medians of the repeats count.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.answer import Answer, Row, median, noise
from bench.disk import fsync_rate
from bench.programs import Target, bare, in_memory, ours, run_program

__all__ = ["QUESTIONS", "Plan", "Question"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    seconds: float  # of one load
    repeats: int
    clients: tuple[int, ...] = (16, 64, 1)  # the first gives the answer
    subscribers: int = 1000
    rounds: int = 30  # of a fan-out
    bystanders: tuple[int, ...] = (10_000, 100_000)
    results: tuple[int, ...] = (250, 500, 1000)
    connections: int = 1000
    documents: tuple[int, ...] = (1000, 10_000, 100_000, 1_000_000)


Question = Callable[[Plan], Answer]


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="reactive-store-bench-") as name:
        yield Path(name)


def _rates(figures: list[dict[str, Any]]) -> list[float]:
    return [figure["per_second"] for figure in figures]


def _busiest(figures: list[dict[str, Any]]) -> float:
    return float(max(figure["client_busy"] for figure in figures))


def push(plan: Plan) -> Answer:
    """A write with three indexes, the live query of 20 documents it re-runs, the push.

    Against a server without an engine; and, which shows what storage costs, against the same
    engine on memory.
    """
    rows: list[Row] = []
    kept: list[Row] = []
    details: dict[str, Any] = {}
    spreads: list[float] = []
    with _folder() as folder, ours(folder) as server, in_memory() as memory, bare() as ceiling:
        for each in (server, memory):
            each.load("throughput", clients=4, seconds=0.5)  # warm up
        ceiling.load("throughput", clients=4, seconds=0.2)
        for clients in plan.clients:
            load: dict[str, Any] = {"clients": clients, "seconds": plan.seconds}
            above = [ceiling.load("throughput", **load)]
            below, beside = [], []
            for _ in range(plan.repeats):
                below.append(server.load("throughput", **load))
                beside.append(memory.load("throughput", **load))
                above.append(ceiling.load("throughput", **load))
            rate = median(_rates(below))
            name = f"{clients} clients, each a room of its own"
            rows.append(Row(name, rate, median(_rates(above)), "writes/s"))
            name = f"{clients} clients, against no storage"
            kept.append(Row(name, rate, median(_rates(beside)), "writes/s"))
            spreads.append(noise(_rates(above)))
            details[f"p99_ms_{clients}_clients"] = median([each["p99_ms"] for each in below])
            details[f"client_busy_{clients}_clients"] = _busiest(above + below)
        with bare("direct", "--sync", str(folder / "synced")) as synced:
            pace = {"per_second": 50.0, "seconds": plan.seconds}
            first = synced.load("latency", **pace)
            low = server.load("latency", **pace)
            without = memory.load("latency", **pace)
            second = synced.load("latency", **pace)
        slow = [
            Row(
                f"50 writes/s, write to pushed, {name[:3]}",
                low[name],
                (first[name] + second[name]) / 2,
                "ms",
            )
            for name in ("p50_ms", "p99_ms")
        ]
        details["above_fsync_and_round_trip_ms"] = slow[0].ours - slow[0].ceiling
        details["p50_ms_without_storage"] = without["p50_ms"]
        details["fsync_per_second"] = fsync_rate(folder, 0.5)
    details["ceiling"] = "our sockets and spliced bytes, no engine; at 50 writes/s with an fsync"
    return Answer(
        "push",
        "a durable write, the live query it changes, its push",
        [*rows, *kept, *slow],
        max(spreads),
        details,
    )


def fanout(plan: Plan) -> Answer:
    """One write, a thousand subscribers of one query; until the last is told."""
    load = {"subscribers": plan.subscribers, "rounds": plan.rounds}
    with _folder() as folder, ours(folder) as server, bare() as direct, bare("starlette") as slow:
        before = direct.load("fan_out", **load)
        told, starlette = [], []
        for _ in range(plan.repeats):
            told.append(server.load("fan_out", **load))
            starlette.append(slow.load("fan_out", **load))
        after = direct.load("fan_out", **load)
    ceilings = [before["p50_ms"], after["p50_ms"]]
    mine = median([each["p50_ms"] for each in told])
    return Answer(
        "fanout",
        f"one write, {plan.subscribers} subscribers of one query, until the last is told",
        [
            Row("against one prepared frame on our sockets", mine, median(ceilings), "ms"),
            Row(
                "against Starlette on uvicorn as it comes",
                mine,
                median([each["p50_ms"] for each in starlette]),
                "ms",
            ),
        ],
        noise(ceilings),
        {
            "bytes": told[0]["bytes"],
            "p99_ms": median([each["p99_ms"] for each in told]),
            "client_busy": _busiest([before, after, *told]),
        },
    )


def bystanders(plan: Plan) -> Answer:
    """Writes that touch nobody, while ten and a hundred thousand subscriptions are open."""
    counts = list(plan.bystanders)
    found = run_program("bench.bystanders", str(counts), str(plan.seconds))
    rates = found["rates"]
    return Answer(
        "bystanders",
        "writes that touch nobody, with subscriptions open against none",
        [
            Row(f"{count:,} open", rates[str(count)], rates["0"], "writes/s")
            for count in counts[::-1]
        ],
        noise(found["none"]),
        {
            "where": "in one process, without sockets; durable; 16 writers",
            "seconds_to_open_them": found["open_seconds"],
        },
    )


def hot(plan: Plan) -> Answer:
    """Sixty-four clients on one counter, against as many counters."""
    load: dict[str, Any] = {"clients": 64, "seconds": plan.seconds}
    one, many = [], []
    with _folder() as folder, ours(folder) as server:
        server.load("counters", clients=8, names=8, seconds=0.5)
        many.append(server.load("counters", names=64, **load))
        for _ in range(plan.repeats):
            one.append(server.load("counters", names=1, **load))
            many.append(server.load("counters", names=64, **load))
        for each in (*one, *many):
            counted = server.load("totals", names=each["names"])["total"]
            if counted != each["writes"]:
                raise SystemExit(f"{each['writes']} additions were answered, {counted} counted")
    return Answer(
        "hot",
        "64 clients add to one counter, against 64 counters",
        [Row("one counter", median(_rates(one)), median(_rates(many)), "writes/s")],
        noise(_rates(many)),
        {
            "p99_ms": median([each["p99_ms"] for each in one]),
            "lost_or_doubled": 0,
            "client_busy": _busiest(one + many),
        },
    )


def zipf(plan: Plan) -> Answer:
    """Transfers between accounts chosen by Zipf, over HTTP."""
    load: dict[str, Any] = {"connections": 32, "seconds": plan.seconds, "accounts": 1000}
    skewed, even = [], []
    with _folder() as folder, ours(folder) as server:
        server.load("transfers", alpha=0.0, connections=8, seconds=0.5, accounts=100)
        even.append(server.load("transfers", alpha=0.0, **load))
        for _ in range(plan.repeats):
            skewed.append(server.load("transfers", alpha=1.5, **load))
            even.append(server.load("transfers", alpha=0.0, **load))
    both = skewed + even
    if not all(each["kept"] for each in both):
        raise SystemExit("a transfer lost or made money")
    return Answer(
        "zipf",
        "transfers over POST /api/mutation, 1,000 accounts, alpha 1.5 against 0",
        [Row("alpha 1.5", median(_rates(skewed)), median(_rates(even)), "writes/s")],
        noise(_rates(even)),
        {
            "errors": sum(each["errors"] for each in both),
            "first_error": next((e["first_error"] for e in both if e["errors"]), None),
            "p99_ms": median([each["p99_ms"] for each in skewed]),
            "client_busy": _busiest(both),
        },
    )


def stream(plan: Plan) -> Answer:
    """Results into one experiment, ten watchers; what the server computes for it."""
    most = plan.results[-1]
    with _folder() as folder, ours(folder) as server, bare() as ceiling:

        def run(target: Target, results: int) -> dict[str, Any]:
            return target.load("stream", pid=target.pid, results=results, watchers=10)

        run(server, 50), run(ceiling, 50)
        above = [run(ceiling, most)]
        smaller = {count: run(server, count) for count in plan.results[:-1]}
        below = [run(server, most) for _ in range(plan.repeats)]
        above.append(run(ceiling, most))
    spent = [each["cpu_seconds"] for each in above]
    mine = median([each["cpu_seconds"] for each in below])
    smallest = plan.results[0]
    per_megabyte = mine / below[0]["megabytes"]
    first = smaller[smallest] if smallest in smaller else below[0]
    details: dict[str, Any] = {
        f"cpu_seconds_{count}": each["cpu_seconds"] for count, each in smaller.items()
    }
    details |= {
        "megabytes_pushed": below[0]["megabytes"],
        "seconds": median([each["seconds"] for each in below]),
        "cpu_ms_per_megabyte": per_megabyte * 1000,
        # At most 1 when the cost is linear in results times size: what is paid per result weighs
        # less the longer the pushed list is.
        "growth_of_cpu_per_megabyte": per_megabyte / (first["cpu_seconds"] / first["megabytes"]),
    }
    return Answer(
        "stream",
        f"{most} results into one experiment, ten watchers: what the server computes",
        [Row("server time", mine, median(spent), "s of CPU")],
        noise(spent),
        details,
    )


def idle(plan: Plan) -> Answer:
    """Memory of an idle connection with one subscription."""
    found: dict[str, float] = {}
    for name, start, is_shared in (
        ("bare", lambda folder: bare(), True),
        ("ours", ours, True),
        ("apart", ours, False),
        ("again", lambda folder: bare(), True),
    ):
        # A fresh server each time: memory given back to the allocator would hide what is taken.
        with _folder() as folder, start(folder) as server:
            answer = server.load(
                "idle", pid=server.pid, connections=plan.connections, is_shared=is_shared
            )
            found[name] = answer["kib_each"]
    ceilings = [found["bare"], found["again"]]
    return Answer(
        "idle",
        f"memory per idle connection with one subscription, {plan.connections} of them",
        [
            Row("all watch one room", found["ours"], median(ceilings), "KiB"),
            Row("each watches an empty room of its own", found["apart"], median(ceilings), "KiB"),
        ],
        noise(ceilings),
    )


def http(plan: Plan) -> Answer:
    """A query of 20 documents over HTTP, against an endpoint that answers the same bytes."""
    load: dict[str, Any] = {"connections": 16, "seconds": plan.seconds, "room": "http"}
    live, plain = [], []
    with _folder() as folder, ours(folder) as server, bare() as ceiling:
        answer = server.load("fill", room="http", posts=20)["answer"]
        ceiling.load("keep", answer=answer)
        ceiling.load("query", is_live=False, **{**load, "seconds": 0.3})
        server.load("query", is_live=False, **{**load, "seconds": 0.3})
        above = [ceiling.load("query", is_live=False, **load)]
        for _ in range(plan.repeats):
            live.append(server.load("query", is_live=True, **load))
            plain.append(server.load("query", is_live=False, **load))
            above.append(ceiling.load("query", is_live=False, **load))
    return Answer(
        "http",
        "POST /api/query against bare Starlette with equal bytes",
        [
            Row("the question is live", median(_rates(live)), median(_rates(above)), "requests/s"),
            Row("it is not", median(_rates(plain)), median(_rates(above)), "requests/s"),
        ],
        noise(_rates(above)),
        {"bytes": len(answer), "client_busy": _busiest(above + live + plain)},
    )


def scale(plan: Plan) -> Answer:
    """Opening and reading while the data grows a thousandfold."""
    probes: dict[int, dict[str, float]] = {}
    spreads = []
    loading = 0.0
    with _folder() as folder:
        data, loaded = str(folder / "data"), 0
        for count in plan.documents:
            step = run_program("bench.scale", "load", data, str(loaded), str(count))
            loading, loaded = loading + step["seconds"], count
            tries = [run_program("bench.scale", "probe", data, str(count)) for _ in range(3)]
            probes[count] = {name: median([each[name] for each in tries]) for name in tries[0]}
            spreads.append(noise([each["range_us"] for each in tries]))
    least, most = probes[plan.documents[0]], probes[plan.documents[-1]]
    few, many = plan.documents[0], plan.documents[-1]
    named = (
        ("range_us", "20 documents of a range, p50", "µs"),
        ("point_us", "a document by its id, p50", "µs"),
        ("same_range_us", "the same range again, p50", "µs"),
        ("first_query_ms", "open and answer the first query", "ms"),
        ("rss_mib", "resident memory after 1,200 reads", "MiB"),
    )
    details: dict[str, Any] = {
        f"{count:,}": {name: round(value, 1) for name, value in probe.items()}
        for count, probe in probes.items()
    }
    return Answer(
        "scale",
        f"{many:,} documents against {few:,}",
        [Row(title, most[name], least[name], unit) for name, title, unit in named],
        spreads[0],
        {**details, "seconds_to_load": loading},
    )


def schedule(plan: Plan) -> Answer:
    """Scheduled mutations, durable and each run exactly once, against the same ones run plainly."""
    jobs = max(100, round(plan.seconds * 1000) // 100 * 100)
    with _folder() as folder:
        found = run_program(
            "bench.schedule_load", str(folder / "data"), str(jobs), str(plan.repeats)
        )
    ceiling = median(found["plain"])
    return Answer(
        "schedule",
        f"{jobs:,} durable mutations scheduled a hundred at a time, and run",
        [
            Row("from scheduling to the end", median(found["whole"]), ceiling, "jobs/s"),
            Row("all due at once, once due", median(found["due"]), ceiling, "jobs/s"),
        ],
        noise(found["plain"]),
        {"ceiling": "the same mutations called by sixteen clients in the same process"},
    )


def files(plan: Plan) -> Answer:
    """A file up and down again, and how much memory the server takes for it."""
    load = {"megabytes": 512 if plan.repeats > 1 else 128}
    with _folder() as folder, ours(folder) as server, bare("starlette") as ceiling:
        for each, is_bare in ((server, False), (ceiling, True)):
            each.load("transfer", pid=each.pid, is_bare=is_bare, megabytes=16)
        above = [ceiling.load("transfer", pid=ceiling.pid, is_bare=True, **load)]
        below = []
        for _ in range(plan.repeats):
            below.append(server.load("transfer", pid=server.pid, is_bare=False, **load))
            above.append(ceiling.load("transfer", pid=ceiling.pid, is_bare=True, **load))
    mine, other = (
        {name: median([each[name] for each in found]) for name in ("up", "down")}
        for found in (below, above)
    )
    return Answer(
        "files",
        f"a file of {load['megabytes']:,} MiB up, durable and digested, and down again",
        [
            Row("up", mine["up"], other["up"], "MB/s"),
            Row("down", mine["down"], other["down"], "MB/s"),
        ],
        noise([each["down"] for each in above]),
        {
            "ceiling": "bare Starlette: a stream written to a file, not synced; a FileResponse",
            "memory_grown_mib": max(each["grown_mib"] for each in below),
            "memory_grown_mib_of_the_ceiling": max(each["grown_mib"] for each in above),
        },
    )


def vectors(plan: Plan) -> Answer:
    """The nearest of many vectors, against one product of a numpy matrix and a partition."""
    documents = min(100_000, plan.documents[-2])
    found: dict[int, dict[str, Any]] = {}
    for dimensions in (384, 1536):
        with _folder() as folder:
            data = str(folder / "data")
            run_program("bench.vector_load", "load", data, str(dimensions), str(documents))
            found[dimensions] = run_program(
                "bench.vector_load", "probe", data, str(dimensions), str(plan.seconds)
            )
    rows: list[Row] = []
    details: dict[str, Any] = {}
    for dimensions, each in found.items():
        bare = each["bare_ms"]
        rows += [
            Row(f"{dimensions} numbers, p50", each["search_ms"], bare, "ms"),
            Row(
                f"{dimensions} numbers, 16 clients",
                each["together_per_second"],
                1000 / bare,
                "searches/s",
            ),
            Row(
                f"{dimensions} numbers, writes of 16 clients",
                each["writes_per_second"],
                each["plain_per_second"],
                "writes/s",
            ),
            Row(f"{dimensions} numbers, memory", each["memory_mib"], each["bare_mib"], "MiB"),
        ]
        named = ("recall", "filtered_ms", "fresh_ms", "search_p99_ms", "stall_ms", "build_seconds")
        details[f"{dimensions}"] = {name: round(each[name], 2) for name in named}
    return Answer(
        "vectors",
        f"the nearest ten of {documents:,} vectors, by an action",
        rows,
        noise(found[384]["bare_each_ms"][:3]),
        {"ceiling": "numpy alone, no filter, nobody else; writes: no vector index", **details},
    )


def search(plan: Plan) -> Answer:
    """The best twenty of many articles, against SQLite's FTS5 in memory with the same texts."""
    documents = min(100_000, plan.documents[-2])
    with _folder() as folder:
        data = str(folder / "data")
        run_program("bench.search_load", "load", data, str(documents))
        found = run_program("bench.search_load", "probe", data, str(documents), str(plan.seconds))
    titles = {
        "common": "two common words, p50",
        "rare": "one rare word, p50",
        "prefix": "three letters as a prefix, p50",
    }
    rows = [
        Row(title, found[f"{kind}_ms"], found[f"{kind}_fts_ms"], "ms")
        for kind, title in titles.items()
    ]
    rows += [
        Row("two common words, a scan in Python", found["common_ms"], found["scan_ms"], "ms"),
        Row(
            "writes of 16 clients",
            found["writes_per_second"],
            median(found["plain_per_second"]),
            "writes/s",
        ),
        Row("memory, against the texts", found["memory_mib"], found["texts_mib"], "MiB"),
    ]
    named = (
        "common_p99_ms", "filtered_ms", "fresh_ms", "within_ms", "build_seconds",
        "build_cpu_seconds", "build_stall_ms", "terms",
    )  # fmt: skip
    return Answer(
        "search",
        f"the best twenty of {documents:,} articles of about 200 words",
        rows,
        noise(found["plain_per_second"]),
        {
            "ceiling": "FTS5 alone, no functions; writes: no search index",
            **{name: round(found[name], 2) for name in named},
        },
    )


QUESTIONS: dict[str, Question] = {
    each.__name__: each
    for each in (
        push,
        fanout,
        bystanders,
        hot,
        zipf,
        stream,
        idle,
        http,
        scale,
        schedule,
        files,
        vectors,
        search,
    )
}
