"""A share over time as an SVG picture: bars with gaps, stretches that are shaded, and marks with numbers. Pure.

Colours come from the page's style by class; every text is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from orchestrator.units import format_seconds

WIDTH, HEIGHT = 960, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 18, 20
_NUM_TICKS = 6


@dataclass(frozen=True)
class Bar:
    """A share of 1 from `begin` to `end`, in Unix seconds; None where nothing is known."""

    begin: float
    end: float
    share: float | None
    label: str = ""
    """What is shown where the pointer rests."""


@dataclass(frozen=True)
class Stretch:
    """A shaded stretch of time with a word above it: an attempt."""

    begin: float
    end: float
    word: str


@dataclass(frozen=True)
class Mark:
    """A line at one moment, with a number that a table explains."""

    at: float
    number: int


@dataclass(frozen=True)
class Chart:
    """Bars, over `begin` to `end` in Unix seconds; `name` is the class of their colour."""

    title: str
    name: str
    begin: float
    end: float
    bars: Sequence[Bar]
    stretches: Sequence[Stretch] = ()
    marks: Sequence[Mark] = ()

    def svg(self) -> str:
        """The picture."""
        inside = "".join((*self._stretches(), *self._grid(), *self._bars(), *self._marks()))
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.title)}">'
            f"<title>{escape(self.title)}</title>{inside}</svg>"
        )

    def _x(self, at: float) -> float:
        share = (at - self.begin) / max(self.end - self.begin, 1e-9)
        return round(_LEFT + min(1.0, max(0.0, share)) * (WIDTH - _LEFT - _RIGHT), 1)

    def _y(self, share: float) -> float:
        return round(_TOP + (1.0 - min(1.0, max(0.0, share))) * (HEIGHT - _TOP - _BOTTOM), 1)

    def _stretches(self) -> Iterator[str]:
        for one in self.stretches:
            left, right = self._x(one.begin), self._x(one.end)
            size = f'width="{right - left:.1f}" height="{self._y(0) - _TOP}"'
            yield f'<rect class="attempt" x="{left}" y="{_TOP}" {size}/>'
            yield f'<text class="word" x="{left + 3}" y="{_TOP - 5}">{escape(one.word)}</text>'

    def _grid(self) -> Iterator[str]:
        for share in (0.0, 0.5, 1.0):
            y = self._y(share)
            yield f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
            yield f'<text class="axis" text-anchor="end" x="{_LEFT - 6}" y="{y + 4}">{share:.0%}</text>'
        for tick in range(_NUM_TICKS + 1):
            at = self.begin + (self.end - self.begin) * tick / _NUM_TICKS
            anchor = {0: "start", _NUM_TICKS: "end"}.get(tick, "middle")
            text = format_seconds(at - self.begin)
            yield f'<text class="axis" text-anchor="{anchor}" x="{self._x(at)}" y="{HEIGHT - 5}">{escape(text)}</text>'

    def _bars(self) -> Iterator[str]:
        for bar in self.bars:
            if bar.share is None:
                continue
            left, right, top = self._x(bar.begin), self._x(bar.end), self._y(bar.share)
            size = f'width="{max(right - left - 0.5, 0.5):.1f}" height="{max(self._y(0) - top, 1.0):.1f}"'
            yield f'<rect class="{self.name}" x="{left}" y="{top}" {size}><title>{escape(bar.label)}</title></rect>'

    def _marks(self) -> Iterator[str]:
        for mark in self.marks:
            x = self._x(mark.at)
            yield f'<line class="mark" x1="{x}" x2="{x}" y1="{_TOP}" y2="{self._y(0)}"/>'
            yield f'<text class="number" text-anchor="middle" x="{x}" y="{_TOP + 9}">{mark.number}</text>'
