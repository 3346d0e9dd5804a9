"""A report that is served while runs go on, on this machine alone: made anew when their files change.

The page asks every few seconds whether there is a newer one, by its number (an ETag), and puts that in its own place.
"""

import base64
import hashlib
import os
import re
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from metarun.errors import MetarunError, UsageError
from metarun.results.compare import compare_runs
from metarun.results.listing import Listed, list_runs
from metarun.results.page import render
from metarun.results.report import render_report
from metarun.results.runs import collect, find_runs, leave_out
from metarun.text import format_metric, reason

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")  # by which a browser may call it: another name may be a stranger's page that leads here
REST = 1.0  # seconds between two looks at the files, and as many times what a look takes
PARTS = ("summary.json", "test_tasks.json", "environment.json", ".hydra/config.yaml", "config.yaml", "examples.png")
CSP = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
SCRIPT = """
const look = async () => {
  const number = document.querySelector("meta[name=number]");
  try {
    const answer = await fetch("/", {headers: {"If-None-Match": number.content}, cache: "no-store"});
    if (answer.status === 200) {
      const next = new DOMParser().parseFromString(await answer.text(), "text/html"), place = [scrollX, scrollY];
      number.content = next.querySelector("meta[name=number]").content;
      document.title = next.title;
      document.body.replaceWith(document.adoptNode(next.body));
      scrollTo(...place);
    }
    document.getElementById("ended").hidden = true;
  } catch { document.getElementById("ended").hidden = false; }
  setTimeout(look, 2000);
};
setTimeout(look, 2000);
"""
SHA = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    f"script-src 'sha256-{SHA}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Live:
    """The page of the runs in these folders, or of their `evaluations` too; its number changes with the page."""

    def __init__(self, folders: Sequence[str], evaluations: bool = False):
        self.folders, self.evaluations, self.lock = folders, evaluations, threading.Lock()
        self.number, self.page, self.report = "", b"", ""
        self.seen: object = None  # of the files that the report was made of
        self.again = 0.0  # when to look at them again

    def look(self) -> tuple[str, bytes]:
        """The number and the page of now. It may take as long as a report; two at once are one."""
        with self.lock:
            if (began := time.monotonic()) >= self.again:
                page = self._make()
                self.number = f'"{hashlib.sha256(page.encode(errors="replace")).hexdigest()[:32]}"'
                meta = f"<meta name=\"number\" content='{self.number}'>\n<script>{SCRIPT}</script>\n</head>"
                self.page = page.replace("</head>", meta, 1).encode(errors="replace")
                self.again = time.monotonic() + REST * max(1.0, time.monotonic() - began)
            return self.number, self.page

    def _make(self) -> str:
        problem, runs = "", []
        try:
            listed = list_runs(self.folders)
            runs = [run for run in listed if run.status == "running"]
            if (now := _fingerprint(self.folders, listed)) != self.seen:
                self.report, self.seen = self._report(runs), now
        except (MetarunError, OSError) as error:  # files that change while they are read; the next look may do better
            problem = f"{reason(error)}: what follows is the last state that could be read"
        facts = {"runs": runs, "name": _name, "problem": problem, "format_metric": format_metric}
        part = render("live.html.j2", title="", whole=False, **facts)
        page = self.report or render("live.html.j2", title="No result yet", whole=True)
        return CSP.sub("", page, count=1).replace("<main>", f"<main>\n{part}", 1)

    def _report(self, at_work: list[Listed]) -> str:
        """The report of the finished runs; '' where there is none. Those at work are not left out: they are above."""
        folders = [name for name in self.folders if any(find_runs(Path(name)))]
        found, left_out = collect(folders, self.evaluations)
        rows, more = compare_runs(found)
        above = {leave_out(Path(run.folder).resolve(), "").path for run in at_work}
        left_out = [left for left in (*left_out, *more) if left.path not in above]
        return render_report(rows, left_out) if rows else ""


def _fingerprint(folders: Sequence[str], listed: list[Listed]) -> list[object]:
    """What changes where the report does: which runs there are, how each ended, and the files that it is made of."""
    found: list[object] = [(run.folder, run.status, run.tags) for run in listed]
    for path in (path for name in folders for path in find_runs(Path(name))):
        for place in (path, *(path / "eval").glob("*/*")):
            found += [(str(place), name, _state(place / name)) for name in PARTS]
    return found


def _state(path: Path) -> tuple[int, int] | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size


def _name(run: Listed) -> str:
    """What a run is, in words."""
    of = f"{run.algorithm} on {run.source}" if run.experiment is None else run.experiment
    return " ".join([of, *(f"{key}={value}" for key, value in run.differs.items())])


class _Handler(BaseHTTPRequestHandler):
    """Answers GET / of a browser on this machine, and nothing else: no path of the disk is served."""

    server_version, sys_version = "metarun", ""
    timeout = 60  # seconds, of a connection that says nothing
    server: "Server"

    def do_GET(self) -> None:
        """Sends the page, or that it is the one which the browser has."""
        if self.headers.get("Host", "").lower().partition(":")[0] not in NAMES:
            return self._answer(403, b"expected the host 127.0.0.1 or localhost\n")
        if self.path.partition("?")[0] != "/":
            return self._answer(404, b"there is one page: /\n")
        number, page = self.server.live.look()
        same = self.headers.get("If-None-Match") == number
        return self._answer(304 if same else 200, b"" if same else page, number)

    def _answer(self, status: int, content: bytes, number: str = "") -> None:
        self.send_response(status)
        for name, value in (HEADERS | ({"ETag": number} if number else {"Content-Type": "text/plain"})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Says nothing of a request."""


class Server(ThreadingHTTPServer):
    """Serves a live report on the loopback interface only; serve_forever() ends with what a signal raises.

    Args:
        live: the report.
        port: 0 to 65535; 0: any that is free.

    Raises:
        UsageError: the port is in use, or not for this user.
    """

    daemon_threads = True

    def __init__(self, live: Live, port: int):
        self.live = live
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise UsageError(f"{port} (port): {reason(error)}: expected a free one; port=0 finds one") from error

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_address[1]}/"

    def handle_error(self, *_: object) -> None:
        """A browser that goes away in the middle is nothing to say."""
