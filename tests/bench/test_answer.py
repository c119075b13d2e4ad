"""Ratios, medians and the shape of the JSON."""

import math

import pytest

from bench.answer import Answer, Row, median, noise


def test_a_rate_is_divided_by_the_ceiling_and_a_time_divides_it():
    assert Row("writes", 70.0, 100.0, "writes/s").ratio == pytest.approx(0.7)
    assert Row("told", 2.0, 1.0, "ms").ratio == pytest.approx(0.5)


def test_the_first_row_is_the_answer():
    answer = Answer("push", "a title", [Row("a", 1, 2, "x/s"), Row("b", 9, 9, "x/s")], 0.1)
    assert answer.ratio == 0.5


def test_the_json_has_its_seven_fields_and_every_row_in_the_details():
    rows = [Row("a", 1.0, 2.0, "x/s"), Row("b", 3.0, 6.0, "ms")]
    found = Answer("push", "a title", rows, 0.1, {"bytes": 7}).to_json()
    assert list(found) == ["question", "ours", "ceiling", "ratio", "unit", "details", "machine"]
    assert (found["question"], found["ours"], found["ceiling"]) == ("push", 1.0, 2.0)
    assert [row["ratio"] for row in found["details"]["rows"]] == [0.5, 2.0]
    assert found["details"]["bytes"] == 7
    assert found["details"]["noise"] == 0.1


def test_the_report_names_every_row_with_its_ratio():
    text = Answer("push", "a title", [Row("16 clients", 50, 100, "w/s")], 0.25).report()
    assert "push: a title" in text
    assert "16 clients" in text
    assert "ratio 0.50" in text
    assert "25%" in text


@pytest.mark.parametrize(("values", "middle"), [([3, 1, 2], 2), ([4, 1, 3, 2], 2.5), ([7], 7)])
def test_median_is_the_middle(values, middle):
    assert median(values) == middle


def test_noise_is_the_spread_as_a_share_of_the_median():
    assert noise([90, 100, 120]) == pytest.approx(0.3)
    assert noise([5, 5]) == 0
    assert noise([0, 0]) == 0


def test_a_size_of_nothing_is_infinitely_better():
    assert Row("idle", 0.0, 2.0, "KiB").ratio == math.inf
