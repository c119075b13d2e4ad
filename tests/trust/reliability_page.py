"""Writes docs/reliability.md: each promise, the tests that try to break it, what they last saw.

The page is made of docs/reliability.json (kept by `make trust`), of the trust tests as they stand
in tests/trust, and of the breakages there. Nothing on it is typed; `test_reliability_page.py`
compares it with what would be written now.
"""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.trust.breakage import Breakage
from tests.trust.evidence import PROMISES, RECORD, Seen, function_of

__all__ = ["PAGE", "TrustTest", "breakages", "load", "page", "problems", "trust_tests", "write"]

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "tests" / "trust"
PAGE = RECORD.with_suffix(".md")

# Figures that are no counts: of several runs of one test the largest is shown, not the sum.
_NO_COUNTS = ("_ms", "_s", "_seconds", "_mib", "_kib", "_bytes", "_each", "_per_", "most_", "peak_")
# Counts worth adding up over all tests, in this order.
_TOTALS = (
    "histories", "transactions", "commits", "worlds", "runs", "kills", "crashes", "images",
    "faults", "inputs", "frames", "requests", "connections",
)  # fmt: skip
_NOT_COVERED = """
- What does not exist yet: tokens of users, scheduled functions, file storage, HTTP actions,
  Postgres, more than one process per data directory.
- Disks that say they have written and have not. Losing power is played through on what SQLite
  wrote and synced, not by pulling a plug.
- Damage to `data.sqlite3` that keeps the form of a database: batches in the log have checksums,
  pages of the tables have none.
- Other systems than Linux. The suites with real processes and with simulated power loss run
  there only.
- Weeks of running. The long form takes about forty minutes.
- Mistakes nobody thought of. That a test sees a deliberate breakage shows that it can fail, not
  that it sees everything.
"""


@dataclass(frozen=True, slots=True)
class TrustTest:
    """A test function that says what it has seen."""

    file: str  # from the repository's root
    name: str
    has_seed: bool = True  # anything random in its file

    @property
    def id(self) -> str:
        """As pytest writes it, without parameters."""
        return f"{self.file}::{self.name}"

    @property
    def sentence(self) -> str:
        """Its name, as people read it."""
        return self.name.removeprefix("test_").replace("_", " ")


def load(path: Path = RECORD) -> dict[str, Seen]:
    """What every test saw when it last ran, by pytest's id. Empty before the first time."""
    if not path.exists():
        return {}
    return {test: Seen(**seen) for test, seen in json.loads(path.read_text("utf-8")).items()}


def trust_tests(home: Path = HOME) -> dict[str, TrustTest]:
    """Every test below `home` that takes `evidence`, by id."""
    found: dict[str, TrustTest] = {}
    for path in sorted(home.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            taken = {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
            if node.name.startswith("test_") and "evidence" in taken:
                file = str(path.relative_to(home.parents[1]))
                test = TrustTest(file, node.name, has_seed="seed" in text.casefold())
                found[test.id] = test
    return found


def breakages() -> list[Breakage]:
    """Every breakage of every module in tests/trust that lists some."""
    found: list[Breakage] = []
    for path in sorted(HOME.rglob("*.py")):
        names = {
            target.id
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        if "BREAKAGES" in names:
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found += importlib.import_module(module).BREAKAGES
    return found


def caught_by() -> Mapping[str, str]:
    """For breakages that a test outside of tests/trust has to see: its id."""
    found: Mapping[str, str] = importlib.import_module(
        "tests.trust.test_broken_on_purpose"
    ).CAUGHT_BY
    return found


def problems(
    record: Mapping[str, Seen],
    known: Mapping[str, TrustTest],
    broken: Iterable[Breakage],
) -> list[str]:
    """What keeps the record from telling the truth, one line each; empty when it does."""
    recorded = {function_of(test) for test in record}
    told = Counter((seen.breakage, seen.breakage_text) for seen in record.values())
    there = Counter((breakage.name, breakage.text) for breakage in broken)
    said = [f"{test} has no figures" for test in known if test not in recorded]
    said += [f"{test} has figures and is no test" for test in recorded - known.keys()]
    said += [
        f'no test has caught "{name}" ({text})'
        for (name, text), count in there.items()
        if told[name, text] < count
    ]
    said += [
        f'"{name}" ({text}) was caught and is no breakage any more'
        for name, text in told
        if name is not None and not there[name, text]
    ]
    return sorted(said)


def page(record: Mapping[str, Seen], known: Mapping[str, TrustTest]) -> str:
    """The whole page, as Markdown."""
    parts = [
        *_introduction(record),
        *_suites(known),
        *_promises(record, known),
        *_broken(record, known),
        "## What is not covered",
        _NOT_COVERED,
    ]
    return "\n".join(parts)


def _introduction(record: Mapping[str, Seen]) -> Iterator[str]:
    whole = [seen for seen in record.values() if seen.breakage is None]
    caught = len({(seen.breakage, seen.breakage_text) for seen in record.values()} - {(None, None)})
    totals = _counted(whole)
    shown = [f"{_number(totals[name])} {_words(name)}" for name in _TOTALS if totals.get(name)]
    yield "# Reliability"
    yield ""
    yield (
        "What this product promises, the tests that try to break each promise, and what they saw "
        "when they last ran. `make trust` writes this page; nobody types it."
    )
    yield ""
    yield (
        f"There are {len(PROMISES)} promises. A trust test makes many attempts at one of them: "
        "random histories, crashes at every write, hostile input, too many clients. Each test "
        "tells how much it tried. What is random comes from a seed: the same seed gives the same "
        "attempt again. Where real processes take part it repeats the calls and the faults, not "
        "their timing; the tests of overload draw nothing at random and have no seed."
    )
    yield ""
    if shown:
        yield f"In the last run of each: {', '.join(shown)}."
    yield (
        f"The product was also broken on purpose, one thing at a time, {caught} so far, and each "
        "time [a test noticed](#broken-on-purpose)."
    )
    yield ""
    yield (
        "The *short form* of every test is part of `make test` and always tries the same; the "
        "*long form*, `make trust`, tries many times more from a seed it draws. "
        "[Running them and reading a failure](guide/trust.md)."
    )
    yield ""


def _suites(known: Mapping[str, TrustTest]) -> Iterator[str]:
    yield "## The suites"
    yield ""
    yield "| suite | what it does |"
    yield "| --- | --- |"
    for file in sorted({test.file for test in known.values()}):
        name = file.removeprefix("tests/trust/").removesuffix(".py")
        docstring = ast.get_docstring(ast.parse((ROOT / file).read_text(encoding="utf-8"))) or ""
        yield f"| [{name}](../{file}) | {_cell(docstring.partition(chr(10) * 2)[0])} |"
    yield ""


def _promises(record: Mapping[str, Seen], known: Mapping[str, TrustTest]) -> Iterator[str]:
    by_test: dict[tuple[str, str], list[Seen]] = defaultdict(list)
    for test, seen in record.items():
        if seen.breakage is None:
            for promise in (seen.promise, *seen.also):
                by_test[promise, function_of(test)].append(seen)
    yield "## The promises"
    yield ""
    yield (
        "The last column is the command that repeats a test. Figures of a test with several "
        "cases are added up; of times and sizes the largest is shown."
    )
    yield ""
    for promise, text in PROMISES.items():
        rows = sorted(test for of, test in by_test if of == promise and test in known)
        yield f"### {promise.capitalize()}"
        yield ""
        yield f"{text[0].upper()}{text[1:]}."
        yield ""
        if not rows:
            continue
        yield "| test | saw | last run | again with |"
        yield "| --- | --- | --- | --- |"
        for row in rows:
            test, seen = known[row], by_test[promise, row]
            yield (
                f"| {_link(test.sentence, test.file)} | {_figures(seen)} | {_last(seen)} "
                f"| `{_again(test, seen)}` |"
            )
        yield ""


def _broken(record: Mapping[str, Seen], known: Mapping[str, TrustTest]) -> Iterator[str]:
    outside = caught_by()
    yield "## Broken on purpose"
    yield ""
    yield (
        "The product has no switch for these: a test replaces a function of it while it runs. A "
        "check that does not fail under its breakage fails `make test`."
    )
    yield ""
    yield "| promise | what was broken | caught by |"
    yield "| --- | --- | --- |"
    order = {promise: place for place, promise in enumerate(PROMISES)}
    rows = [
        (order[seen.promise], seen.breakage_text or "", seen.breakage, test)
        for test, seen in record.items()
        if seen.breakage is not None and function_of(test) in known
    ]
    for place, text, name, test in sorted(rows):
        catcher = known[function_of(test)]
        if catcher.file == "tests/trust/test_broken_on_purpose.py":
            file, _, function = function_of(outside[str(name)]).partition("::")
            catcher = TrustTest(file, function)
        promise, link = tuple(PROMISES)[place], _link(catcher.sentence, catcher.file)
        yield f"| {promise} | {_cell(text)} | {link} |"
    yield ""


def _counted(seen: Iterable[Seen]) -> dict[str, float]:
    """The figures of several runs as one."""
    found: dict[str, float] = {}
    for one in seen:
        for name, value in one.figures.items():
            if name not in found:
                found[name] = value
            elif any(part in f"_{name}_" for part in _NO_COUNTS):
                found[name] = max(found[name], value)
            else:
                found[name] += value
    return found


def _figures(seen: Sequence[Seen]) -> str:
    return ", ".join(f"{_number(value)} {_words(name)}" for name, value in _counted(seen).items())


def _last(seen: Sequence[Seen]) -> str:
    forms = " and ".join(sorted({one.form for one in seen}))
    return f"{forms} form, {_number(round(sum(one.seconds for one in seen), 1))} s"


def _again(test: TrustTest, seen: Sequence[Seen]) -> str:
    """The command that makes a test's attempts once more."""
    target = "trust" if seen[-1].form == "long" else "trust-short"
    seed = f" SEED={seen[-1].seed}" if test.has_seed else ""
    return f"make {target} TESTS={test.id}{seed}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _link(text: str, file: str) -> str:
    return f"[{text}](../{file})"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def write() -> list[str]:
    """Take out of the record what is gone, write the page, return the problems that are left."""
    record, known, broken = load(), trust_tests(), breakages()
    there = {(breakage.name, breakage.text) for breakage in broken}
    gone = {
        test
        for test, seen in record.items()
        if function_of(test) not in known
        or (seen.breakage is not None and (seen.breakage, seen.breakage_text) not in there)
    }
    if gone:
        raw = json.loads(RECORD.read_text(encoding="utf-8"))
        kept = {test: seen for test, seen in raw.items() if test not in gone}
        RECORD.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        record = load()
    PAGE.write_text(page(record, known), encoding="utf-8")
    return problems(record, known, broken)


def main() -> int:
    """Write, and say what is missing. Returns 1 when something is."""
    left = write()
    print("wrote", PAGE.relative_to(ROOT))
    for problem in left:
        print(f"  {problem}", file=sys.stderr)
    if left:
        print("run `make trust`, or `make trust-short`, for the figures", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
