"""A bar per ratio, as SVG text: no dependency, and readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bench.answer import Answer

__all__ = ["bars"]

_LABEL, _WIDTH, _BAR, _GAP, _TOP = 390, 340, 18, 10, 40
_MOST = 1.25  # a longer bar is cut here; its number tells how long it was


def bars(answers: Sequence[Answer]) -> str:
    """The drawing: every row's ratio to its ceiling, which is the line at 1."""
    rows = [(answer.question, row) for answer in answers for row in answer.rows]
    height = _TOP + len(rows) * (_BAR + _GAP) + 10
    one = _LABEL + _WIDTH / _MOST
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LABEL + _WIDTH + 60}" '
            f'height="{height}" font-family="sans-serif" font-size="12" fill="#777">'
        ),
        f'<text x="{one}" y="18" text-anchor="middle">ceiling</text>',
    ]
    for number, (question, row) in enumerate(rows):
        y = _TOP + number * (_BAR + _GAP)
        length = min(row.ratio, _MOST) / _MOST * _WIDTH
        text = y + _BAR - 5
        title = escape(f"{question}: {row.name}")
        box = f'x="{_LABEL}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="3"'
        parts += [
            f'<text x="{_LABEL - 10}" y="{text}" text-anchor="end">{title}</text>',
            f'<rect {box} fill="#4c8dd6"/>',
            f'<text x="{_LABEL + length + 6:.1f}" y="{text}">{row.ratio:.2f}</text>',
        ]
    line = f'x1="{one}" y1="24" x2="{one}" y2="{height - 8}"'
    parts.append(f'<line {line} stroke="#c33" stroke-dasharray="4 3"/>')
    return "\n".join([*parts, "</svg>", ""])
