"""The report as a page: it says what the screen says, escapes what it is told, and asks nobody for anything."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from orchestrator.files import read_json, write_json
from orchestrator.run_dir import RunDir
from orchestrator.submit.report import report_on
from orchestrator.tracking.report.page import report_page
from tests.cli.test_report import BEGUN, NAME, leave, run, tuned
from tests.support.attempts import journal_events, journal_exchange, journal_metrics, journal_samples
from tests.support.browser import open_page
from tests.support.command_line import orchestrate

__all__ = ["run"]
NASTY = "<script src='http://127.0.0.1:9/x.js'></script>&\"'"


class Page(HTMLParser):
    """Its texts, and what in it would have a browser ask for something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.asks: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.asks += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "xlink:href", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_has_the_figures_of_the_screen_a_bar_a_part_and_a_mark_a_change(run: RunDir) -> None:
    leave(run, [0.8] * 30 + [0.0] * 50, accelerator="cpu", world_size=2)
    tuned(run)
    page = Page(report_page(report_on(run)))
    assert {NAME, "200 rank-seconds", "80%", "75 rank-seconds", "attempt 0", "1", "2"} <= set(page.texts)
    assert "step 30: 6 loader processes kept: 1.75 x the speed" in page.texts
    assert page.tags.count("svg") == 1 and page.tags.count("rect") == 40 + 1
    assert page.asks == [] and "script" not in page.tags


def test_gpus_have_their_own_picture_and_what_is_unknown_has_no_bar(run: RunDir) -> None:
    leave(run, [0.0] * 80, accelerator="cuda", world_size=2)
    journal_samples(run, "node1", [(BEGUN + 10 + second, {"gpu/0/utilization_percent": 90.0}) for second in range(40)])
    journal_metrics(run, 0, BEGUN + 99, 80, {"memory/observed_peak_gib": 38.25})
    page = Page(report_page(report_on(run)))
    assert page.tags.count("svg") == 2 and page.tags.count("rect") == (40 + 1) + (20 + 1)
    assert {"90%", "node1 gpu 0", "38.25 GiB", "of memory at most on any rank"} <= set(page.texts)


def test_what_ranks_exchange_has_its_own_picture(run: RunDir) -> None:
    leave(run, [0.0] * 40, accelerator="cpu", world_size=2)
    for second in range(51, 91):
        journal_exchange(run, 0, BEGUN + second, 0.6)
    page = Page(report_page(report_on(run)))
    assert page.tags.count("svg") == 2 and page.tags.count("rect") == (40 + 1) + (20 + 1)
    assert "communication" in page.texts


def test_what_a_run_says_is_text_and_never_markup(run: RunDir, tmp_path: Path) -> None:
    leave(run, [0.5] * 80, accelerator="cpu", world_size=2)
    (attempt,) = run.all_attempts()
    write_json(attempt.verdict, read_json(attempt.verdict) | {"reason": NASTY})
    journal_events(run, 0, [(BEGUN + 20, "gpu", {"what": NASTY}), (BEGUN + 30, "advice", {"advice": NASTY})])
    html = report_page(report_on(run))
    assert "<script" not in html and Page(html).texts.count(NASTY) >= 2
    (tmp_path / "page.html").write_text(html)
    opened = open_page(tmp_path / "page.html", tmp_path / "browser")
    assert opened.requests == [] and "<h2>Attempts" in opened.dom


def test_a_page_that_asks_for_something_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<img src='http://127.0.0.1:9/picture.png'>")
    opened = open_page(tmp_path / "page.html", tmp_path / "browser")
    assert opened.requests == ["http://127.0.0.1:9/picture.png"]


def test_before_the_first_step_the_page_says_so(run: RunDir) -> None:
    page = Page(report_page(report_on(run)))
    assert "No step is known yet." in page.texts and "svg" not in page.tags


def test_the_verb_writes_it_and_a_folder_that_is_not_there_is_one_clear_line(run: RunDir, tmp_path: Path) -> None:
    leave(run, [0.5] * 80, accelerator="cpu", world_size=2)
    done = orchestrate("report", NAME, "--html", "page.html", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith(f"run        {NAME}")
    assert (tmp_path / "page.html").read_text() == report_page(report_on(run))
    done = orchestrate("report", NAME, "--html", "nowhere/page.html", cwd=tmp_path)
    assert done.returncode != 0 and "nowhere/page.html: cannot be written: No such file or directory" in done.stderr
