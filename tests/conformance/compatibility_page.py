"""Writes docs/compatibility.md: every statement about Convex's behaviour, and the tests of it.

The statements are those of statements.json, in our own words; where this project decided
otherwise, or leaves something out, not_applicable.json says why. Which test stands for which
statement is read from the tests themselves. A test carries a number

- in its docstring, as a word: `F12, F13.`;
- at the front of its name: `test_f12_f13_…`;
- in a comment inside it that begins with numbers: `# F12`, `# F12, F13: why`;
- in the id of a case, where the id begins with it: `pytest.param(…, id="F12 …")`.

Comments and ids in a table at the top of a module count for the tests that use the table; in a
JavaScript test the numbers stand in the title or in such a comment.
"""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "PAGE",
    "CarryingTest",
    "carrying_tests",
    "page",
    "problems",
    "reasons",
    "statements",
    "write",
]

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
PAGE = ROOT / "docs" / "compatibility.md"
STATEMENTS = Path(__file__).with_name("statements.json")
REASONS = Path(__file__).with_name("not_applicable.json")

# A reason that begins so tells what holds instead, and a test shows it. Any other one tells why
# the thing is not there, and no test can.
DIFFERS = "differs: "

_NUMBER = re.compile(r"\b[FCV][1-9]\d*\b")
_LEADING = re.compile(r"[FCV][1-9]\d*\b(?:(?:, ?| and )[FCV][1-9]\d*\b)*")
_IN_NAME = re.compile(r"test_((?:[fcv][1-9]\d*_)+)")
_JS_TITLE = re.compile(r"""^\s*(?:test|it)\(\s*["'`](.*)["'`],""")
_JS_COMMENT = re.compile(r"//\s*(.*)$")

Test = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, order=True)
class CarryingTest:
    """A test that stands for some statements."""

    file: str  # from the repository's root
    name: str  # of a function, or the title of a JavaScript test

    @property
    def sentence(self) -> str:
        """Its name, as people read it."""
        return _IN_NAME.sub("", self.name, count=1).removeprefix("test_").replace("_", " ").strip()


def statements(path: Path = STATEMENTS) -> dict[str, dict[str, str]]:
    """Every area with its statements by number, in order."""
    found: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def reasons(path: Path = REASONS) -> dict[str, str]:
    """Why a statement does not hold here, by number."""
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def carrying_tests(home: Path = TESTS) -> dict[str, list[CarryingTest]]:
    """The tests below `home` that carry a number, by number."""
    found: dict[str, set[CarryingTest]] = defaultdict(set)
    for path in sorted(_files(home)):
        file = path.relative_to(home.parent).as_posix()
        if path.suffix == ".py" and path.name.startswith("test_"):
            of_file = _in_python(path.read_text(encoding="utf-8"))
        elif path.name.endswith(".mjs"):
            of_file = _in_javascript(path.read_text(encoding="utf-8"))
        else:
            continue
        for number, name in of_file:
            found[number].add(CarryingTest(file, name))
    return {number: sorted(tests) for number, tests in found.items()}


def _files(folder: Path) -> Iterator[Path]:
    """Every file below, but for what was installed."""
    for path in folder.iterdir():
        if path.is_dir():
            if path.name not in {"node_modules", "__pycache__"}:
                yield from _files(path)
        else:
            yield path


def _in_python(text: str) -> Iterator[tuple[str, str]]:
    tree = ast.parse(text)
    comments = _leading_comments(text)
    tests = [node for node in ast.walk(tree) if isinstance(node, Test) and _is_test(node)]
    tables = {
        target.id: [*_in_lines(node, comments), *_in_ids([node])]
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for node in tests:
        yield from ((number, node.name) for number in _of_test(node, comments))
        for used in ast.walk(node):
            if isinstance(used, ast.Name):
                yield from ((number, node.name) for number in tables.get(used.id, ()))


def _is_test(node: Test) -> bool:
    return node.name.startswith("test_")


def _of_test(node: Test, comments: Mapping[int, list[str]]) -> Iterator[str]:
    if front := _IN_NAME.match(node.name):
        yield from front[1].upper().strip("_").split("_")
    yield from _NUMBER.findall(ast.get_docstring(node) or "")
    yield from _in_lines(node, comments)
    yield from _in_ids(node.decorator_list)


def _in_lines(node: ast.stmt, comments: Mapping[int, list[str]]) -> Iterator[str]:
    first = node.lineno
    if isinstance(node, Test) and node.decorator_list:
        first = node.decorator_list[0].lineno
    for line in range(first, (node.end_lineno or first) + 1):
        yield from comments.get(line, ())


def _in_ids(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Numbers at the front of the texts given as `id` or `ids`."""
    for node in nodes:
        for part in ast.walk(node):
            if isinstance(part, ast.keyword) and part.arg in {"id", "ids"}:
                for text in ast.walk(part.value):
                    if isinstance(text, ast.Constant) and isinstance(text.value, str):
                        yield from _leading(text.value)


def _leading(text: str) -> list[str]:
    match = _LEADING.match(text)
    return [] if match is None else _NUMBER.findall(match[0])


def _leading_comments(text: str) -> dict[int, list[str]]:
    """The numbers that the comment of a line begins with, by line."""
    return {
        token.start[0]: numbers
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and (numbers := _leading(token.string.lstrip("# ")))
    }


def _in_javascript(text: str) -> Iterator[tuple[str, str]]:
    title = None
    for line in text.splitlines():
        if match := _JS_TITLE.match(line):
            title = match[1]
            yield from ((number, title) for number in _NUMBER.findall(title))
        if title is not None and (comment := _JS_COMMENT.search(line)):
            yield from ((number, title) for number in _leading(comment[1]))


def problems(
    known: Mapping[str, Mapping[str, str]],
    why: Mapping[str, str],
    carried: Mapping[str, Sequence[CarryingTest]],
) -> list[str]:
    """What keeps the page from being complete and true, one sentence each."""
    numbers = [number for area in known.values() for number in area]
    found = [f"{number} is there twice" for number in numbers if numbers.count(number) > 1]
    for number, tests in sorted(carried.items()):
        if number not in numbers:
            found += [f"{test.file}: {test.name} carries {number}, which is no statement"
                      for test in tests]  # fmt: skip
    found += [
        f"{number} has a reason and is no statement" for number in why if number not in numbers
    ]
    for number in numbers:
        reason, tests = why.get(number), carried.get(number, ())
        if reason is None and not tests:
            found.append(f"{number} has neither a test nor a reason")
        elif reason is not None and reason.startswith(DIFFERS) and not tests:
            found.append(f"{number} differs and no test shows how")
        elif reason is not None and not reason.startswith(DIFFERS) and tests:
            found.append(f"{number} is said to be left out, and {tests[0].name} tests it")
    return found


def page(
    known: Mapping[str, Mapping[str, str]],
    why: Mapping[str, str],
    carried: Mapping[str, Sequence[CarryingTest]],
) -> str:
    """The page's text."""
    return "\n".join([*_head(known, why, carried), *_areas(known, why, carried)])


def _head(
    known: Mapping[str, Mapping[str, str]],
    why: Mapping[str, str],
    carried: Mapping[str, Sequence[CarryingTest]],
) -> Iterator[str]:
    numbers = [number for area in known.values() for number in area]
    differ = sum(why.get(number, "").startswith(DIFFERS) for number in numbers)
    absent = sum(number in why for number in numbers) - differ
    tested = sum(number in carried and number not in why for number in numbers)
    yield "# Compatibility"
    yield ""
    yield (
        "What a client of Convex, or the author of a function, can observe, one statement a row: F "
        "of functions, C of the wire protocol, V of values, schemas and limits. Facts are those of "
        "Convex's open server, its npm client 1.48 and its documentation. The last column names "
        "the tests; all of them are part of `make test`. `make docs` writes this page."
    )
    yield ""
    yield "| | statements |"
    yield "| --- | --- |"
    yield f"| pass | {tested} |"
    yield f"| differ on purpose, and a test shows how | {differ} |"
    yield f"| left out, with the reason | {absent} |"
    if open_ := len(numbers) - tested - differ - absent:
        yield f"| without a test | {open_} |"
    yield ""


def _areas(
    known: Mapping[str, Mapping[str, str]],
    why: Mapping[str, str],
    carried: Mapping[str, Sequence[CarryingTest]],
) -> Iterator[str]:
    for area, of_area in known.items():
        yield f"## {area}"
        yield ""
        yield "| | statement | here |"
        yield "| --- | --- | --- |"
        for number, text in of_area.items():
            here = _here(why.get(number), carried.get(number, ()))
            yield f"| {number} | {_cell(text)} | {here} |"
        yield ""


def _here(reason: str | None, tests: Sequence[CarryingTest]) -> str:
    links = ", ".join(f"[{_cell(test.sentence)}](../{test.file})" for test in tests)
    if reason is None:
        return f"passes: {links}" if tests else "no test"
    if reason.startswith(DIFFERS):
        return f"**differs**: {_cell(reason.removeprefix(DIFFERS))}" + (
            f" {links}" if links else ""
        )
    return f"**left out**: {_cell(reason)}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def write() -> list[str]:
    """Write the page, return the problems that are left."""
    known, why, carried = statements(), reasons(), carrying_tests()
    PAGE.write_text(page(known, why, carried), encoding="utf-8")
    return problems(known, why, carried)


def main() -> int:
    """Write, and say what is missing. Returns 1 when something is."""
    left = write()
    print("wrote", PAGE.relative_to(ROOT))
    for problem in left:
        print(f"  {problem}", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
