"""The machinery of the trust tests itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trust.effort import Effort
from tests.trust.evidence import Evidence


def test_the_short_form_tries_the_same_seeds_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUST", raising=False)
    monkeypatch.delenv("TRUST_SEED", raising=False)
    assert Effort.from_environment() == Effort.from_environment()


def test_a_printed_seed_repeats_a_long_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUST", "long")
    monkeypatch.setenv("TRUST_SEED", "77")
    effort = Effort.from_environment()
    assert (effort.long, list(effort.seeds(1, 3))) == (True, [77, 78, 79])


def test_figures_of_tests_that_did_not_run_are_kept(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    for test, histories in (("a", 1), ("b", 2), ("a", 3)):
        evidence = Evidence()
        evidence.add(
            test,
            "durable",
            sentence=test,
            form="short",
            seed=1,
            seconds=0.0,
            figures={"histories": histories},
            breakage=None,
        )
        evidence.write(record)
    kept = json.loads(record.read_text())
    assert {test: seen["figures"]["histories"] for test, seen in kept.items()} == {"a": 3, "b": 2}


def test_cases_that_are_gone_go_when_their_whole_function_ran(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    fields: dict[str, Any] = {"sentence": "t", "form": "short", "seed": 1, "seconds": 0.0}
    before, now = Evidence(), Evidence()
    for test in ("f::a[old]", "f::a[failed]", "f::b[1]", "f::b[2]"):
        before.add(test, "durable", **fields, figures={}, breakage=None)
    before.write(record)
    for test in ("f::a[new]", "f::b[1]"):
        now.add(test, "durable", **fields, figures={}, breakage=None)
    now.write(record, whole={"f::a[new]", "f::a[failed]"})
    assert sorted(json.loads(record.read_text())) == [
        "f::a[failed]",
        "f::a[new]",
        "f::b[1]",
        "f::b[2]",
    ]


@pytest.mark.parametrize(("promise", "also"), [("fast", ()), ("durable", ("fast",))])
def test_an_unknown_promise_is_refused(promise: str, also: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="no promise is called 'fast'"):
        Evidence().add(
            "t",
            promise,
            sentence="t",
            form="short",
            seed=1,
            seconds=0.0,
            figures={},
            breakage=None,
            also=also,
        )
