"""The guard against slower code: what counts as worse, and how often it asks."""

import json

import pytest

from bench import regression
from bench.answer import Answer, Row


def answer(question: str, ratio: float) -> Answer:
    return Answer(question, "", [Row("", ratio, 1.0, "x/s")], 0.0)


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
    assert regression.check({"push": 0.6}, ask, ["push"], print) == []
    assert given == [0.41]


def test_the_best_of_three_counts():
    ask, given = asked_for([0.1, 0.2, 0.5])
    assert regression.check({"push": 0.6}, ask, ["push"], print) == []
    assert len(given) == 3


def test_three_bad_answers_are_a_regression():
    ask, given = asked_for([0.39, 0.1, 0.2, 0.9])
    assert regression.check({"push": 0.6}, ask, ["push"], print) == ["push"]
    assert len(given) == regression.TRIES


def test_a_question_without_a_kept_ratio_is_not_asked():
    said = []
    ask, given = asked_for([])
    assert regression.check({}, ask, ["new"], said.append) == []
    assert given == []
    assert "new" in said[0]


def test_write_keeps_the_ratios_of_other_questions(tmp_path):
    path = tmp_path / "baseline.json"
    regression.write([answer("push", 0.5), answer("hot", 0.9)], path)
    regression.write([answer("push", 0.71239)], path)
    assert regression.read(path) == {"hot": 0.9, "push": 0.712}
    assert list(json.loads(path.read_text())) == ["ratios"]


def test_the_kept_file_names_known_questions():
    from bench.questions import QUESTIONS

    assert set(regression.read()) <= set(QUESTIONS)
    assert all(ratio > 0 for ratio in regression.read().values())


@pytest.mark.parametrize("kept", [0.1, 1.0, 30.0])
def test_the_floor_is_two_thirds(kept):
    assert regression.floor(kept) == pytest.approx(kept * 2 / 3)
