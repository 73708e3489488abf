"""How the beams of a sentence grew, as a picture in the terminal."""

import math
from dataclasses import dataclass, field

from decode import Hypothesis, Live
from rich.console import Console
from rich.table import Table
from text import Text

BARS = " ▁▂▃▄▅▆▇█"


@dataclass
class BeamRecorder:
    """Looks on while one sentence is translated."""

    text: Text
    steps: list[list[Live]] = field(default_factory=list)
    finished: list[Hypothesis] = field(default_factory=list)
    """Those that have ended, best first."""

    def __call__(self, sentence: int, live: list[Live], finished: list[Hypothesis]) -> None:
        if sentence == 0:
            self.steps.append(live)
            self.finished = finished

    def draw(self, console: Console | None = None) -> None:
        """A row a token: what lives, each with a bar as high as it is likely beside the best. Below, what has ended."""
        table = Table(box=None, header_style="dim", pad_edge=False)
        table.add_column("token", justify="right")
        for place in range(max(map(len, self.steps), default=0)):
            table.add_column(f"beam {place + 1}", no_wrap=True)
        for number, live in enumerate(self.steps, start=1):
            table.add_row(str(number), *(self._cell(one, live[0].log_probability) for one in live))
        console = console or Console()
        console.print(table)
        for one in self.finished:
            console.print(f"■ {self.text.sentence(one.tokens)}  score {one.score:.2f}, {len(one.tokens)} tokens")

    def _cell(self, one: Live, best: float) -> str:
        height = round(math.exp(one.log_probability - best) * (len(BARS) - 1))
        return f"{BARS[height]} {self.text.sentence(one.tokens)}"
