"""docs/compatibility.md is what would be written now; every statement has its tests or a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance import compatibility_page
from tests.conformance.compatibility_page import (
    PAGE,
    CarryingTest,
    carrying_tests,
    page,
    problems,
    reasons,
    statements,
)

TEST = CarryingTest("tests/a/test_b.py", "test_f1_it_holds")
KNOWN = {"Reading": {"F1": "It | holds.", "F2": "It differs."}, "Wire": {"C1": "It is sent."}}
WHY = {"F2": "differs: on purpose.", "C1": "nothing is sent"}
CARRIED = {"F1": [TEST], "F2": [CarryingTest("tests/e2e/js/c.mjs", "it differs, F2")]}


def test_the_page_is_what_would_be_written_now() -> None:
    shown = page(statements(), reasons(), carrying_tests())
    assert PAGE.read_text(encoding="utf-8") == shown, "run `make docs`"


def test_every_statement_has_a_test_or_a_reason_and_every_number_is_of_a_statement() -> None:
    assert problems(statements(), reasons(), carrying_tests()) == []


def test_statements_are_numbered_without_gaps_that_nobody_meant() -> None:
    numbers = [number for area in statements().values() for number in area]
    assert [number for number in numbers if number[0] == "F"] == [f"F{n}" for n in range(1, 195)]
    of_values = [number for number in numbers if number[0] == "V"]
    assert of_values == [f"V{n}" for n in range(1, len(of_values) + 1)]
    # The wire protocol's checklist leaves room in each of its parts.
    assert len([number for number in numbers if number[0] == "C"]) == 75


PYTHON = '''
import pytest

TABLE = [
    1,  # F20: in a table
    2,
]
OTHER = [pytest.param(1, id="F21 a case"), pytest.param(2, id="no F22")]

def test_f1_f2_by_name():
    pass

class TestSome:
    async def test_docstring(self):
        """What it is: F3, F4. No numbers: F05, XF6."""

@pytest.mark.parametrize(
    "x",
    [
        1,  # F7
        2,  # no F8
    ],
    ids=["F9", "plain"],
)
def test_comments(x):
    # F10, F11 and F12: why
    assert x  # V1

@pytest.mark.parametrize("x", TABLE)
def test_table(x): ...

@pytest.mark.parametrize("x", OTHER)
def test_ids(x): ...

def helper():
    """F30"""

def test_none():
    "f31 is no number here"
    "F32"
'''

JAVASCRIPT = """
// C1 before any test
test("a title, C2", async () => {
  go(); // C3, C4: why
  go(); // no C5
});
it('another', () => {});
// C6
"""


def test_numbers_are_read_from_docstrings_names_comments_and_ids(tmp_path: Path) -> None:
    home = tmp_path / "tests"
    (home / "js" / "node_modules").mkdir(parents=True)
    (home / "test_x.py").write_text(PYTHON)
    (home / "x.py").write_text("def test_f40_no_file_of_tests(): ...\n")
    (home / "js" / "x.mjs").write_text(JAVASCRIPT)
    (home / "js" / "node_modules" / "y.mjs").write_text('test("C9", 1);\n')
    names = {
        number: {test.name for test in tests} for number, tests in carrying_tests(home).items()
    }
    assert names == {
        "F1": {"test_f1_f2_by_name"},
        "F2": {"test_f1_f2_by_name"},
        "F3": {"test_docstring"},
        "F4": {"test_docstring"},
        "F7": {"test_comments"},
        "F9": {"test_comments"},
        "F10": {"test_comments"},
        "F11": {"test_comments"},
        "F12": {"test_comments"},
        "V1": {"test_comments"},
        "F20": {"test_table"},
        "F21": {"test_ids"},
        "C2": {"a title, C2"},
        "C3": {"a title, C2"},
        "C4": {"a title, C2"},
        "C6": {"another"},
    }
    files = {test.file for tests in carrying_tests(home).values() for test in tests}
    assert files == {"tests/test_x.py", "tests/js/x.mjs"}


def test_a_row_names_the_tests_and_what_is_otherwise() -> None:
    shown = page(KNOWN, WHY, CARRIED)
    assert "| F1 | It \\| holds. | passes: [it holds](../tests/a/test_b.py) |" in shown
    assert (
        "| F2 | It differs. | **differs**: on purpose. [it differs, F2](../tests/e2e/js/c.mjs) |"
        in shown
    )
    assert "| C1 | It is sent. | **left out**: nothing is sent |" in shown
    for row in ("| pass | 1 |", "shows how | 1 |", "with the reason | 1 |"):
        assert row in shown
    assert "without a test" not in shown
    assert "| without a test | 1 |" in page(KNOWN, WHY, {"F2": CARRIED["F2"]})


@pytest.mark.parametrize(
    ("why", "carried", "said"),
    [
        (WHY, CARRIED, []),
        (WHY, {"F2": CARRIED["F2"]}, ["F1 has neither a test nor a reason"]),
        (WHY, {"F1": [TEST]}, ["F2 differs and no test shows how"]),
        (
            WHY,
            CARRIED | {"C1": [TEST]},
            ["C1 is said to be left out, and test_f1_it_holds tests it"],
        ),
        (
            WHY,
            CARRIED | {"F9": [TEST]},
            ["tests/a/test_b.py: test_f1_it_holds carries F9, which is no statement"],
        ),
        (WHY | {"F8": "gone"}, CARRIED, ["F8 has a reason and is no statement"]),
    ],
    ids=["complete", "untested", "unshown", "tested after all", "unknown", "reason for nothing"],
)
def test_what_is_missing_is_named(
    why: dict[str, str], carried: dict[str, list[CarryingTest]], said: list[str]
) -> None:
    assert problems(KNOWN, why, carried) == said


def test_a_number_given_twice_is_named() -> None:
    known = KNOWN | {"Again": {"F1": "Something else."}}
    assert "F1 is there twice" in problems(known, WHY, CARRIED)


@pytest.mark.parametrize(("left", "code"), [([], 0), (["something is missing"], 1)])
def test_the_program_fails_when_something_is_missing(
    left: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compatibility_page, "write", lambda: left)
    assert compatibility_page.main() == code


def test_writing_gives_the_page_and_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compatibility_page, "PAGE", tmp_path / "compatibility.md")
    left = compatibility_page.write()
    assert (tmp_path / "compatibility.md").read_text("utf-8").startswith("# Compatibility\n")
    assert left == problems(statements(), reasons(), carrying_tests())
