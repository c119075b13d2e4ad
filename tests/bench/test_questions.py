"""Every question, asked in miniature: processes start, loads run, and the answer makes sense."""

import math

import pytest

from bench.programs import ROOT
from bench.questions import QUESTIONS, Plan

TINY = Plan(
    seconds=0.1,
    repeats=1,
    clients=(2, 1),
    subscribers=5,
    rounds=2,
    bystanders=(5, 10),
    results=(5, 10),
    connections=20,
    documents=(100, 200),
)


@pytest.mark.e2e
@pytest.mark.parametrize("question", list(QUESTIONS))
def test_a_question_is_answered(question):
    answer = QUESTIONS[question](TINY)
    assert answer.question == question
    assert answer.rows
    for row in answer.rows:
        assert math.isfinite(row.ours)
        assert row.ceiling >= 0
    assert answer.report().startswith(f"{question}: ")


def test_every_question_has_its_line_in_the_documentation():
    page = (ROOT / "docs" / "performance.md").read_text()
    assert [name for name in QUESTIONS if f"| `{name}` |" not in page] == []
