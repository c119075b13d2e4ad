"""docs/reliability.md is what would be written now, and nothing on it is missing or made up."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.trust import reliability_page
from tests.trust.breakage import Breakage
from tests.trust.evidence import PROMISES, Seen
from tests.trust.reliability_page import (
    PAGE,
    TrustTest,
    breakages,
    load,
    page,
    problems,
    trust_tests,
)

FILE = "tests/trust/test_reliability_page.py"
TEST = TrustTest(FILE, "test_it_holds")
BROKEN = TrustTest(FILE, "test_it_is_found")
KNOWN = {TEST.id: TEST, BROKEN.id: BROKEN}
BREAKAGE = Breakage("off", "durable", "the sync is a | left out", lambda monkeypatch: None)
SEEN = Seen("durable", "it holds", "long", 7, 2.0, {"histories": 1200, "slowest_ms": 9.5})
FOUND = replace(SEEN, figures={"runs": 1}, breakage=BREAKAGE.name, breakage_text=BREAKAGE.text)
RECORD = {
    f"{TEST.id}[memory]": SEEN,
    f"{TEST.id}[sqlite]": replace(SEEN, figures={"histories": 34, "slowest_ms": 4}),
    f"{BROKEN.id}[off]": FOUND,
}


def test_the_page_is_what_would_be_written_now() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(load(), trust_tests()), "run `make docs`"


def test_every_trust_test_has_figures_and_every_breakage_was_caught() -> None:
    assert problems(load(), trust_tests(), breakages()) == [], (
        "run `make trust` or `make trust-short`"
    )


def test_every_breakage_is_in_the_list_of_its_module() -> None:
    """What is in no list would be missing in the table of breakages."""
    listed = {(breakage.name, breakage.text) for breakage in breakages()}
    loose = set()
    for path in sorted(reliability_page.HOME.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if path.name.startswith("test_") or "Breakage(" not in text:
            continue
        module = ".".join(path.relative_to(reliability_page.ROOT).with_suffix("").parts)
        for value in vars(importlib.import_module(module)).values():
            for one in value if isinstance(value, list | tuple) else [value]:
                if isinstance(one, Breakage) and (one.name, one.text) not in listed:
                    loose.add(f"{module}:{one.name}")
    assert loose == set()
    assert len(listed) == len(breakages()), "two breakages say the same"


def test_every_breakage_is_of_a_promise() -> None:
    wrong = [str(breakage) for breakage in breakages() if breakage.promise not in PROMISES]
    assert wrong == []


def test_cases_of_a_test_are_added_up_and_of_times_the_largest_is_shown() -> None:
    shown = page(RECORD, KNOWN)
    assert (
        f"| [it holds](../{FILE}) | 1,234 histories, 9.5 slowest ms | long form, 4 s "
        f"| `make trust TESTS={TEST.id} SEED=7` |" in shown
    )
    assert "In the last run of each: 1,234 histories." in shown


def test_a_test_is_repeated_in_its_form_and_with_its_seed_if_it_has_one() -> None:
    record = {test: replace(seen, form="short") for test, seen in RECORD.items()}
    assert f"| `make trust-short TESTS={TEST.id} SEED=7` |" in page(record, KNOWN)
    unseeded = KNOWN | {TEST.id: replace(TEST, has_seed=False)}
    assert f"| `make trust-short TESTS={TEST.id}` |" in page(record, unseeded)


def test_a_test_of_two_promises_is_shown_under_both_and_counted_once() -> None:
    record = {test: replace(seen, also=["compatible"]) for test, seen in RECORD.items()}
    shown = page(record, KNOWN)
    assert shown.count(f"| [it holds](../{FILE}) | 1,234 histories,") == 2
    assert "In the last run of each: 1,234 histories." in shown


def test_a_breakage_is_shown_with_the_test_that_caught_it() -> None:
    shown = page(RECORD, KNOWN)
    assert f"| durable | the sync is a \\| left out | [it is found](../{FILE}) |" in shown
    assert "one thing at a time, 1 so far" in shown


def test_a_breakage_that_two_tests_caught_is_one_breakage() -> None:
    shown = page(RECORD | {f"{BROKEN.id}[again]": FOUND}, KNOWN)
    assert "one thing at a time, 1 so far" in shown


def test_where_an_ordinary_test_has_to_see_a_breakage_that_test_is_shown() -> None:
    place = "tests/trust/test_broken_on_purpose.py"
    own = TrustTest(place, "test_the_named_test_fails_under_the_breakage")
    seen = replace(FOUND, breakage="interval-with-its-end", breakage_text="it has an end")
    shown = page({f"{own.id}[x]": seen}, {own.id: own})
    assert (
        "| durable | it has an end | [an interval includes its start and excludes its end]"
        "(../tests/engine/test_interval.py) |" in shown
    )


def test_every_promise_is_on_the_page_even_without_figures() -> None:
    shown = page({}, {})
    assert all(f"### {promise.capitalize()}" in shown for promise in PROMISES)


@pytest.mark.parametrize(
    ("gone", "known", "broken", "said"),
    [
        ((), KNOWN, [BREAKAGE], []),
        ((TEST.id,), KNOWN, [BREAKAGE], [f"{TEST.id} has no figures"]),
        ((), {BROKEN.id: BROKEN}, [BREAKAGE], [f"{TEST.id} has figures and is no test"]),
        (
            (),
            KNOWN,
            [BREAKAGE, replace(BREAKAGE, name="other")],
            ['no test has caught "other" (the sync is a | left out)'],
        ),
        (
            (),
            KNOWN,
            [replace(BREAKAGE, text="new words")],
            [
                '"off" (the sync is a | left out) was caught and is no breakage any more',
                'no test has caught "off" (new words)',
            ],
        ),
        (
            (),
            KNOWN,
            [BREAKAGE, BREAKAGE],
            ['no test has caught "off" (the sync is a | left out)'],
        ),
    ],
    ids=["complete", "no figures", "no test", "not caught", "other words", "caught once of twice"],
)
def test_what_is_missing_in_the_record_is_named(
    gone: tuple[str, ...], known: dict[str, TrustTest], broken: list[Breakage], said: list[str]
) -> None:
    record = {test: seen for test, seen in RECORD.items() if not test.startswith(gone or ("-",))}
    assert problems(record, known, broken) == said


def test_trust_tests_are_those_that_say_what_they_saw(tmp_path: Path) -> None:
    home = tmp_path / "tests" / "trust"
    (home / "crash").mkdir(parents=True)
    (home / "crash" / "test_kill.py").write_text(
        "def test_one(evidence, tmp_path): ...\n"
        "async def test_two(*, evidence): ...\n"
        "def test_three(): ...\n"
        "def helper(evidence): ...\n"
    )
    (home / "crash" / "test_seeded.py").write_text("def test_one(effort, evidence): effort.seeds()")
    (home / "kill.py").write_text("def test_four(evidence): ...\n")
    found = trust_tests(home)
    assert sorted(found) == [
        "tests/trust/crash/test_kill.py::test_one",
        "tests/trust/crash/test_kill.py::test_two",
        "tests/trust/crash/test_seeded.py::test_one",
    ]
    assert [found[test].has_seed for test in sorted(found)] == [False, False, True]
    assert found["tests/trust/crash/test_kill.py::test_one"].sentence == "one"


def test_writing_takes_what_is_gone_out_of_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = next(iter(trust_tests()))
    monkeypatch.setattr(reliability_page, "PAGE", tmp_path / "reliability.md")
    monkeypatch.setattr(reliability_page, "RECORD", tmp_path / "reliability.json")
    monkeypatch.setattr(reliability_page, "load", lambda: load(tmp_path / "reliability.json"))
    old = replace(FOUND, breakage="old", breakage_text="gone")
    written = {"tests/trust/test_gone.py::test_x": SEEN, f"{kept}[old]": old, kept: SEEN}
    (tmp_path / "reliability.json").write_text(
        json.dumps({test: asdict(seen) for test, seen in written.items()})
    )
    left = reliability_page.write()
    assert list(load(tmp_path / "reliability.json")) == [kept]
    assert not any(kept in problem for problem in left)
    assert "1,200 histories" in (tmp_path / "reliability.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("left", "code"), [([], 0), (["something is missing"], 1)])
def test_the_program_fails_when_something_is_missing(
    left: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reliability_page, "write", lambda: left)
    assert reliability_page.main() == code
