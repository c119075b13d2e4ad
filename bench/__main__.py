"""`python -m bench [QUESTION …]`: ask the questions and print ours, the ceiling and their ratio."""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import regression
from bench.answer import Answer, machine
from bench.plot import bars
from bench.questions import QUESTIONS, Plan

__all__ = ["FULL", "QUICK", "main"]

FULL = Plan(seconds=3.0, repeats=3)
QUICK = Plan(
    seconds=0.7,
    repeats=1,
    rounds=10,
    bystanders=(1000, 10_000),
    results=(100, 200, 400),
    connections=500,
    documents=(1000, 10_000, 100_000),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask, print, and plot or compare if asked to. Returns the exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    names: list[str] = given.question or list(QUESTIONS)
    if unknown := set(names) - set(QUESTIONS):
        parser.error(f"no such question: {', '.join(sorted(unknown))}")
    plan = QUICK if given.quick else FULL
    # A thousand sockets on either side; the limit is inherited by the processes started here.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    answers: list[Answer] = []

    def ask(name: str) -> Answer:
        answer = QUESTIONS[name](plan)
        answers.append(answer)
        if given.json:
            print(json.dumps(answer.to_json()), flush=True)
        else:
            print(answer.report() + "\n", flush=True)
        return answer

    if not given.json:
        print(f"reactive_store bench on {machine()}\n", flush=True)
    worse: list[str] = []
    if given.check:
        worse = regression.check(regression.read(), ask, names, _say)
    else:
        for name in names:
            ask(name)
    if given.plot is not None:
        given.plot.write_text(bars(answers))
    if given.update:
        regression.write(answers)
    for name in worse:
        _say(f"REGRESSION beyond a third of bench/baseline.json: {name}")
    return 1 if worse else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "question", nargs="*", metavar="QUESTION",
        help="any of: " + ", ".join(QUESTIONS) + "; all when none is given",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a short form, for a smoke test")
    parser.add_argument("--json", action="store_true", help="one line of JSON per answer")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the ratios")
    parser.add_argument(
        "--check", action="store_true", help="fail when a ratio fell by more than a third"
    )
    parser.add_argument(
        "--update", action="store_true", help="keep these ratios in bench/baseline.json"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
