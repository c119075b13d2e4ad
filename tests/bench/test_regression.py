"""The guard against slower code: what counts as worse, and how often it asks."""

import json

import pytest

from bench import regression
from bench.answer import Answer, Row
from bench.questions import QUESTIONS


def answer(question: str, ratio: float, *, second: float = 1.0) -> Answer:
    rows = [Row("first", ratio, 1.0, "x/s"), Row("second", second, 1.0, "x/s")]
    return Answer(question, "", [*rows, Row("some, p99", 0.01, 1.0, "ms")], 0.0)


def kept(first: float, second: float = 1.0) -> dict[str, dict[str, float]]:
    return {"push": {"first": first, "second": second}}


def asked_for(ratios):
    """An `ask` that gives these ratios one after the other, and how many it gave."""
    left = iter(ratios)
    given = []

    def ask(question):
        given.append(next(left))
        return answer(question, given[-1])

    return ask, given


def test_a_ratio_that_fell_by_less_than_a_third_is_good():
    ask, given = asked_for([0.41])
    assert regression.check(kept(0.6), ask, ["push"], print) == []
    assert given == [0.41]


def test_the_best_of_three_counts():
    ask, given = asked_for([0.1, 0.2, 0.5])
    assert regression.check(kept(0.6), ask, ["push"], print) == []
    assert len(given) == 3


def test_three_bad_answers_are_a_regression():
    ask, given = asked_for([0.39, 0.1, 0.2, 0.9])
    assert regression.check(kept(0.6), ask, ["push"], print) == ["push: first"]
    assert len(given) == regression.TRIES


def test_every_row_counts_and_each_has_its_own_best():
    answers = iter([(0.6, 0.1), (0.1, 0.7), (0.1, 0.1)])

    def ask(question):
        first, second = next(answers)
        return answer(question, first, second=second)

    assert regression.check(kept(0.6, 1.0), ask, ["push"], print) == []
    assert list(answers) == [(0.1, 0.1)]


def test_a_row_that_is_gone_is_a_regression():
    ask, _ = asked_for([1.0] * 3)
    assert regression.check({"push": {"gone": 0.5}}, ask, ["push"], print) == ["push: gone"]


def test_a_question_without_kept_ratios_is_told():
    ask, given = asked_for([])
    assert regression.check({}, ask, ["new"], print) == ["new: no ratio is kept; run with --update"]
    assert given == []


def test_write_keeps_the_ratios_of_other_questions(tmp_path):
    path = tmp_path / "baseline.json"
    regression.write([answer("push", 0.5), answer("hot", 0.9)], path)
    regression.write([answer("push", 0.71239)], path)
    second = {"second": 1.0}
    assert regression.read(path) == {
        "hot": {"first": 0.9, **second},
        "push": {"first": 0.712, **second},
    }
    assert list(json.loads(path.read_text())) == ["ratios"]


def test_the_kept_file_names_every_question():
    ratios = regression.read()
    assert set(ratios) == set(QUESTIONS)
    assert all(ratio > 0 for rows in ratios.values() for ratio in rows.values())


@pytest.mark.parametrize("ratio", [0.1, 1.0, 30.0])
def test_the_floor_is_two_thirds(ratio):
    assert regression.floor(ratio) == pytest.approx(ratio * 2 / 3)
