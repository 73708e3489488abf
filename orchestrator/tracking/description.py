"""The description of a run in MLflow: its attempts as a Markdown table, and its slow ranks, below a person's own words.

It is made of the run directory alone, so making it again gives the same text; nothing in it changes with the clock.
"""

from __future__ import annotations

import re
import time

from orchestrator.run_dir import RunDir
from orchestrator.tracking.attempt_text import HEAD, cells, ratio_text, why_it_ended
from orchestrator.tracking.attempts import Attempt, History, read_history
from orchestrator.tracking.redact import Redactor
from orchestrator.tracking.step_times import StepTimes

TITLE = "**Attempts** (kept by orchestrate: write above this line)"
"""What is above it in a description is left alone; all that follows is written anew."""
MOST_ROWS = 20
_LONGEST_CELL = 160
_MARKDOWN = re.compile(r"([\\`*_{}\[\]|~#])")


class Description:
    """The description of one run, looked at again and again while the run goes on."""

    def __init__(self, run: RunDir, redactor: Redactor) -> None:
        self._run, self._redactor = run, redactor
        self._times = StepTimes(run.path)
        self._seen: tuple[object, ...] | None = None

    def news(self) -> str | None:
        """The text, where an attempt has begun, made its first step or ended since the last call, or news of a slow
        rank are expected; else None.

        A call reads what the journal has got since the attempt before last began, or nothing: it may be made at will.
        """
        seen = self._look()
        if seen == self._seen:
            return None
        history = read_history(self._run, self._times)
        self._seen = seen
        return attempts_markdown(history, self._redactor) if history.attempts else None

    def expect_news(self) -> None:
        """The journal has got something of a slow rank."""
        self._seen = None

    def _look(self) -> tuple[object, ...]:
        """What the table hangs on: the last attempt, its start and first step, and the verdicts on the last two."""
        attempts = list(self._run.all_attempts())
        if not attempts:
            return ()
        if attempts[-1].number not in self._times.by_attempt:
            self._times.read()
        last, has_stepped = attempts[-1], attempts[-1].number in self._times.by_attempt
        return (last.number, last.driver.exists(), has_stepped, *(each.verdict.exists() for each in attempts[-2:]))


def attempts_markdown(history: History, redactor: Redactor) -> str:
    """TITLE, a table of the last MOST_ROWS attempts (UTC), slow ranks of the last one, and the ratio once it ended."""
    shown = history.attempts[-MOST_ROWS:]
    head = tuple("Started (UTC)" if name == "Started" else name for name in HEAD)
    texts = [why_it_ended(each, at_work="no verdict yet" if each is shown[-1] else None) for each in shown]
    rows = [head, ("---",) * len(head), *(_cells(*pair, redactor) for pair in zip(shown, texts, strict=True))]
    lines = [TITLE, "", *(f"| {' | '.join(row)} |" for row in rows)]
    if hidden := len(history.attempts) - len(shown):
        lines += ["", f"Not shown: attempts before, {hidden} of them."]
    for line in history.slow_ranks(at_work=True):
        lines += ["", f"{_escaped(redactor.text(line))}."]
    if history.attempts[-1].ended_at is not None and (ratio := ratio_text(history)):
        lines += ["", f"{ratio[0].upper()}{ratio[1:]}."]
    return "\n".join(lines) + "\n"


def with_attempts(description: str, attempts: str) -> str:
    """`description` as it stands in MLflow, with `attempts` in place of what was below TITLE."""
    own = description.partition(TITLE)[0].rstrip()
    return f"{own}\n\n{attempts}" if own else attempts


def _cells(attempt: Attempt, why: str, redactor: Redactor) -> tuple[str, ...]:
    return tuple(_escaped(redactor.text(cell)) for cell in cells(attempt, why, clock=time.gmtime))


def _escaped(text: str) -> str:
    """`text` as Markdown shows it letter by letter, on one line, cut where it is long."""
    line = " ".join(text.split())
    line = line if len(line) <= _LONGEST_CELL else f"{line[: _LONGEST_CELL - 4].rstrip()} ..."
    return _MARKDOWN.sub(r"\\\1", line).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
