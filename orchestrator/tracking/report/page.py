"""The report as one HTML page that needs nothing beside it: no script, no font, no request to anywhere. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from html import escape

from orchestrator.tracking.attempt_text import HEAD, cells, why_it_ended
from orchestrator.tracking.report.bound import IN_WORDS
from orchestrator.tracking.report.report import Report, ended_at
from orchestrator.tracking.report.svg import Bar, Chart, Mark, Stretch
from orchestrator.tracking.report.text import amount_text, devices_text, event_text, next_step, peak_text, state_text
from orchestrator.tracking.report.usage import Part
from orchestrator.units import format_seconds

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --faint: #6b7785; --line: #d9dfe5; --page: #fff; --tile: #f4f6f8;
  --input: #d97706; --compute: #2563eb; --host: #7c3aed; --throttled: #dc2626; --shared: #db2777; --unknown: #94a3b8;
  --communication: #0d9488; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e5e9ee; --faint: #98a4b3; --line: #323c48; --page: #12171d; --tile: #1b222b; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1rem; margin: 1.8rem 0 .4rem; }
p.state { color: var(--faint); margin: 0 0 1rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .8rem; }
.tile { background: var(--tile); border-radius: 8px; padding: .6rem 1rem; }
.tile b { display: block; font-size: 1.25rem; } .tile span { color: var(--faint); font-size: .85rem; }
.next { border-left: 4px solid var(--compute); background: var(--tile); padding: .6rem 1rem; margin-top: 1rem; }
.share { display: flex; height: 1.4rem; border-radius: 6px; overflow: hidden; }
.share i, li i { display: block; } li i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; }
ul { list-style: none; padding: 0; margin: .4rem 0; } li { margin: .1rem 0; }
svg { width: 100%; height: auto; }
svg text { font-size: 11px; fill: var(--faint); } svg .number { fill: var(--ink); font-weight: 600; }
svg .grid { stroke: var(--line); } svg .mark { stroke: var(--ink); stroke-dasharray: 3 3; }
svg .attempt { fill: var(--tile); } svg .wait { fill: var(--input); } svg .gpu { fill: var(--compute); }
svg .exchange { fill: var(--communication); }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.input { background: var(--input); } .compute { background: var(--compute); } .host { background: var(--host); }
.throttled { background: var(--throttled); } .shared { background: var(--shared); }
.communication { background: var(--communication); } .unknown { background: var(--unknown); }
"""


def report_page(told: Report) -> str:
    """The whole page; times are UTC."""
    body = "\n".join(
        (
            f"<h1>{escape(told.name)}</h1>",
            f'<p class="state">{escape(_state(told))}</p>',
            *(_figures(told) if told.usage.parts else ("<p>No step is known yet.</p>",)),
            *_attempts(told),
        )
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(told.name)}: report</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _state(told: Report) -> str:
    return f"{state_text(told)}, {devices_text(told)}" if told.num_devices else state_text(told)


def _figures(told: Report) -> Iterator[str]:
    yield '<div class="tiles">' + "".join(_tiles(told)) + "</div>"
    yield f'<p class="next"><b>Next</b> {escape(next_step(told))}</p>'
    yield "<h2>What held it up</h2>" + _bounds(told)
    begin, end = _span(told)
    events = [(event, text) for event in told.usage.events if (text := event_text(event))]
    stretches = [
        Stretch(each.started_at, ended_at(each, told.usage) or end, f"attempt {each.number}")
        for each in told.history.attempts
        if each.started_at is not None
    ]
    marks = [Mark(event["time"], number) for number, (event, _) in enumerate(events, start=1)]

    def chart(title: str, name: str, share_of: Callable[[Part], float | None]) -> str:
        shares = [(part, share_of(part)) for part in told.usage.parts]
        bars = [Bar(part.begin, part.end, share, _label(part, begin, share)) for part, share in shares]
        return f"<h2>{escape(title)}</h2>{Chart(title, name, begin, end, bars, stretches, marks).svg()}"

    yield chart("Waiting for data, of the steps' time", "wait", lambda part: part.wait_share)
    if told.usage.exchange_share is not None:
        yield chart(
            "Exchanging gradients after computing them, of the steps' time",
            "exchange",
            lambda part: part.exchange_share,
        )
    if told.usage.gpus:
        yield chart("GPUs: time in which some kernel ran", "gpu", _gpu_share)
        yield _table(("GPU", "Mean"), [(gpu, f"{percent:.0f}%") for gpu, percent in told.usage.gpus.items()])
    if events:
        rows = [
            (str(number), format_seconds(max(0.0, event["time"] - begin)), text)
            for number, (event, text) in enumerate(events, start=1)
        ]
        yield "<h2>What was changed, and what happened</h2>" + _table(("", "After", "What"), rows)


def _gpu_share(part: Part) -> float | None:
    return None if part.gpu_percent is None else part.gpu_percent / 100


def _span(told: Report) -> tuple[float, float]:
    """From the first attempt's start to the last thing known."""
    known = [each.started_at for each in told.history.attempts if each.started_at is not None]
    ends = [each.ended_at for each in told.history.attempts if each.ended_at is not None]
    parts = told.usage.parts
    return min(*known, parts[0].begin) if known else parts[0].begin, max([*ends, parts[-1].end])


def _label(part: Part, begin: float, share: float | None) -> str:
    share_text = "" if share is None else f": {share:.0%}"
    return f"{format_seconds(part.begin - begin)} to {format_seconds(part.end - begin)}{share_text}"


def _tiles(told: Report) -> Iterator[str]:
    ratio = told.history.effective_training_time_ratio
    tiles = [
        (amount_text(told, told.device_hours), "in all"),
        (f"{told.step_share:.0%}", "of them in steps"),
        (f"{told.waited_share:.0%}", f"of the steps' time waited for data: {amount_text(told, told.waited_hours)}"),
    ]
    if told.saved_hours > 0:
        tiles.append((amount_text(told, told.saved_hours), "saved by tuning"))
    if ratio is not None:
        tiles.append((f"{ratio:.3f}", "effective training time ratio"))
    if peak := peak_text(told):
        tiles.append((peak[0], f"of memory at most {peak[1]}"))
    for figure, what in tiles:
        yield f'<div class="tile"><b>{escape(figure)}</b><span>{escape(what)}</span></div>'


def _bounds(told: Report) -> str:
    bounds = told.bounds()
    bar = "".join(f'<i class="{bound}" style="flex: {share:.4f}"></i>' for bound, share in bounds.items())
    lines = "".join(
        f'<li><i class="{bound}"></i> <b>{bound}</b> {share:.0%}: {escape(IN_WORDS[bound])}</li>'
        for bound, share in bounds.items()
    )
    return f'<div class="share">{bar}</div><ul>{lines}</ul>'


def _attempts(told: Report) -> Iterator[str]:
    attempts = told.history.attempts
    if not attempts:
        return
    last = "at work" if told.is_at_work else "ended without a verdict"
    rows = [
        cells(each, why_it_ended(each, at_work=last if each is attempts[-1] else None), clock=time.gmtime)
        for each in attempts
    ]
    yield "<h2>Attempts (UTC)</h2>" + _table(HEAD, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{row(head, 'th')}{''.join(row(each, 'td') for each in rows)}</table>"
