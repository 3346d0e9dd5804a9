"""A report served live: on this machine alone, one page, made anew when files change."""

import http.client
import os
import re
import shutil
import threading
from pathlib import Path
from socket import gethostname

import pytest
from helpers.results import copy_run, edit

from metarun.errors import UsageError
from metarun.results import live
from metarun.results.live import Live, Server


@pytest.fixture
def serve(monkeypatch):
    """Serves folders, which are looked at on every request; gives a function that asks for a path with headers."""
    monkeypatch.setattr(live, "REST", 0.0)
    servers = []

    def start(*folders):
        servers.append(Server(Live(folders), 0))
        threading.Thread(target=servers[0].serve_forever, args=(0.01,), daemon=True).start()

        def ask(path="/", method="GET", **headers):
            connection = http.client.HTTPConnection(*servers[0].server_address)
            connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            content = answer.read().decode()
            connection.close()
            return answer.status, answer.headers, content

        return ask

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_one_page_is_served_to_this_machine_and_nothing_else(serve):
    Path("runs").mkdir()
    ask = serve("runs")
    status, headers, page = ask(Host="localhost:1")
    assert (status, "No result yet" in page) == (200, True)
    assert headers["Cache-Control"] == "no-store"
    policy = headers["Content-Security-Policy"]
    assert f"script-src 'sha256-{live.SHA}'" in policy
    assert policy.startswith("default-src 'none'")
    assert re.findall("<script>(.*?)</script>", page, re.DOTALL) == [live.SCRIPT]
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil", ""):
        assert ask(Host=host)[0] == 403, "a name of a stranger's that leads here"
    for path in ("/runs", "/../runs", "/etc/passwd"):
        assert ask(path)[0] == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(method=method)[0] == 501


def test_the_page_follows_the_runs(serve, finished):
    ask = serve("runs")
    copy_run(finished, "runs/<b>done", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    copy_run(finished, "runs/work", [2.0, 3.0, 4.0, 5.0, 6.0, 7.0], seed=1)
    Path("runs/work/summary.json").rename("result")
    here = {"pid": os.getpid(), "host": gethostname()}

    def at_work(step):
        position = {"doing": "training", "loss": 0.125, "tasks_per_second": 80.0, "seconds_left": 61.0}
        edit("runs/work", "status.json", lambda s: s.update(status="running", step=step, position=position, **here))

    at_work(1)
    status, headers, page = ask()
    text = re.sub(r"<[^>]*>|\s+", " ", page)
    assert re.search(r"At work .* runs/work .* training +1 of 4 +1 min 01 s +80 +0\.125 ", text)
    assert "&lt;b&gt;done" in page
    assert "<b>done" not in page
    assert "left out" not in text.lower(), "a run at work is not left out"
    assert ask(If_None_Match=headers["ETag"])[::2] == (304, ""), "nothing has changed"
    report = page.partition('id="live"')[2].partition("</section>")[2]
    at_work(2)
    status, headers, page = ask(If_None_Match=headers["ETag"])
    assert (status, "2 of 4" in page) == (200, True)
    assert page.partition('id="live"')[2].partition("</section>")[2] == report, "which is not made again for that"
    edit("runs/work", "status.json", lambda s: s.update(status="failed", error="out of luck"))
    assert "out of luck" in ask()[2]
    Path("result").rename("runs/work/summary.json")
    shutil.copy(finished / "status.json", "runs/work")
    page = ask()[2]
    assert ("out of luck" in page, "2 runs of 1 configuration" in page) == (False, True)
    Path("runs/work/summary.json").write_text("{")
    assert "cannot be read" in ask()[2]
    shutil.rmtree("runs")
    assert ask()[0] == 200


def test_a_port_that_is_taken_is_refused():
    with Server(Live([]), 0) as server, pytest.raises(UsageError, match=r"\(port\): Address already in use"):
        Server(Live([]), server.server_address[1])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "live=true"], "'nowhere' (command line): expected a folder"),
        ([".", "live=true", "port=99999"], "'99999' (port)"),
        ([".", "live=true", "out=x.html"], "no file is written with live=true"),
        ([".", "port=80"], "port= (command line): is for live=true"),
    ],
)
def test_settings_of_a_live_report(metarun, words, said):
    code, _, err = metarun("report", *words)
    assert (code, said in err, err.count("\n")) == (2, True, 1)
