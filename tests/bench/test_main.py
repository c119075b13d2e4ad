"""The command: which questions it asks, what it prints and its exit code."""

import json

import pytest

import bench.__main__ as command
from bench import regression
from bench.answer import Answer, Row


@pytest.fixture
def ratios(monkeypatch, tmp_path):
    """Two cheap questions whose ratios the test sets, and a baseline file of its own."""
    found = {"one": 0.8, "two": 0.5}
    plans = []

    def question(name):
        def ask(plan):
            plans.append(plan)
            return Answer(name, f"title of {name}", [Row("row", found[name], 1.0, "x/s")], 0.0)

        return ask

    monkeypatch.setattr(command, "QUESTIONS", {name: question(name) for name in found})
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps({"ratios": {"one": {"row": 0.8}, "two": {"row": 0.5}}}))
    kept = regression.read
    monkeypatch.setattr(regression, "read", lambda: kept(path))
    found["plans"] = plans
    return found


def test_without_names_every_question_is_asked(ratios, capsys):
    assert command.main([]) == 0
    said = capsys.readouterr().out
    assert "title of one" in said
    assert "title of two" in said
    assert ratios["plans"] == [command.FULL] * 2


def test_a_named_question_is_asked_alone_and_printed_as_a_line_of_json(ratios, capsys):
    assert command.main(["two", "--json", "--quick"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["question"] == "two"
    assert ratios["plans"] == [command.QUICK]


def test_an_unknown_question_is_refused(ratios):
    with pytest.raises(SystemExit) as ended:
        command.main(["three"])
    assert ended.value.code == 2


def test_check_fails_when_a_ratio_fell_by_more_than_a_third(ratios, capsys):
    assert command.main(["--check"]) == 0
    ratios["two"] = 0.3
    assert command.main(["--check"]) == 1
    assert "REGRESSION beyond a third of bench/baseline.json: two: row" in capsys.readouterr().err


def test_plot_writes_the_drawing(ratios, tmp_path):
    command.main(["--plot", str(tmp_path / "ratios.svg")])
    assert (tmp_path / "ratios.svg").read_text().startswith("<svg")
