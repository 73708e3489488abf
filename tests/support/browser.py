"""A page as a real browser opens it: headless Chromium, which is let out to nowhere."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.needed import skip_or_fail

_QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1040,1400",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
_BROWSER = "not an origin"
"""Who asks, in the browser's log of the network, where it is no page."""


@dataclass(frozen=True)
class Opened:
    """What came of opening a page."""

    dom: str
    requests: list[str]
    """Addresses that the page has asked for; the browser's own services are not its doing, and reach nobody."""
    picture: Path
    """A PNG of it."""


def open_page(page: Path, folder: Path) -> Opened:
    """Open a page; what the browser writes goes into `folder`. Skips (in CI: fails) without Chromium."""
    if (browser := shutil.which("chromium")) is None:
        skip_or_fail("not installed: chromium (run cluster/dev/install-packages)")
    folder.mkdir()
    log, picture = folder / "net.json", folder / "page.png"
    common = [browser, *_QUIET, f"--user-data-dir={folder / 'profile'}"]

    def run(*words: str) -> str:
        command = [*common, *words, page.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout

    dom = run(f"--log-net-log={log}", "--dump-dom")
    run(f"--screenshot={picture}")
    told = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    asked = {one["url"] for one in told if "url" in one and one.get("initiator", _BROWSER) != _BROWSER}
    return Opened(dom, sorted(asked), picture)
