"""The drawing of the ratios."""

from xml.etree import ElementTree as ET

from bench.answer import Answer, Row
from bench.plot import bars

SVG = "{http://www.w3.org/2000/svg}"


def test_every_row_gets_a_bar_as_long_as_its_ratio_and_its_number():
    rows = [Row("a < b", 1.0, 2.0, "x/s"), Row("c", 2.0, 2.0, "x/s")]
    root = ET.fromstring(bars([Answer("push", "", rows, 0.0)]))
    half, whole = (float(each.attrib["width"]) for each in root.iter(f"{SVG}rect"))
    assert whole == 2 * half
    texts = [each.text for each in root.iter(f"{SVG}text")]
    assert "push: a < b" in texts
    assert "0.50" in texts


def test_a_ratio_far_above_one_stays_inside_the_drawing():
    root = ET.fromstring(bars([Answer("q", "", [Row("a", 90.0, 1.0, "x/s")], 0.0)]))
    (bar,) = root.iter(f"{SVG}rect")
    assert float(bar.attrib["x"]) + float(bar.attrib["width"]) < float(root.attrib["width"])
    assert any(each.text == "90.00" for each in root.iter(f"{SVG}text"))


def test_the_ceiling_is_drawn_at_one():
    root = ET.fromstring(bars([Answer("q", "", [Row("a", 1.0, 1.0, "x/s")], 0.0)]))
    (line,) = root.iter(f"{SVG}line")
    (bar,) = root.iter(f"{SVG}rect")
    end = float(bar.attrib["x"]) + float(bar.attrib["width"])
    assert abs(float(line.attrib["x1"]) - end) < 0.1
