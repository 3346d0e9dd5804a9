"""metarun report: one page that needs nothing else, shows what a stranger wrote as text, and renders in a browser."""

import html
import html.parser
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.results import copy_run, edit
from helpers.runs import ROOT
from PIL import Image

from metarun import intervals
from metarun.errors import RunDirError
from metarun.results.compare import Verdict, compare_runs, make_row
from metarun.results.differences import Difference
from metarun.results.report import write_report
from metarun.results.runs import collect
from metarun.storage.records import Published

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


class Page(html.parser.HTMLParser):
    """What a browser would ask for, what is said of pictures, and whether tags are closed."""

    VOID = ("meta", "link", "img", "br", "wbr")

    def __init__(self, text):
        super().__init__()
        self.asked, self.pictures, self.open, self.ids, self.text, self.tags = [], [], [], [], [], set()
        self.feed(text)
        self.words = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        self.asked += [attrs[name] for name in ("src", "srcset", "href", "data") if attrs.get(name)]
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.pictures += [attrs.get("alt")] if tag == "img" else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def _write(*folders, out="report.html"):
    runs, left_out = collect(folders)
    rows, more = compare_runs(runs)
    write_report(rows, left_out + more, Path(out))
    return Path(out).read_text()


@pytest.fixture(scope="module")
def page(finished, tmp_path_factory):
    """The page of three learning rates, one of them with two seeds; and of a classification."""
    folder = tmp_path_factory.mktemp("page")
    for n, (seed, rate) in enumerate(((0, 0.01), (1, 0.01), (0, 0.02), (0, 0.04))):
        copy_run(finished, folder / f"runs/{n}", [1.0 + n, 2.0 + n, 4.0, 9.0], seed=seed, inner_lr=rate)
    copy_run(finished, folder / "runs/classes", [0.25, 0.5, 1.0])
    _, ci95 = intervals.over_tasks([0.25, 0.5, 1.0], 4)
    for name, change in (
        (
            "summary.json",
            lambda s: s.update(metric="accuracy", test={"accuracy": s["test"]["mse"] | {"ci95": ci95}}) or s.pop("val"),
        ),
        ("test_tasks.json", lambda t: t.update(metric="accuracy", queries=4)),
    ):
        edit(folder / "runs/classes", name, change)
    (folder / "runs/classes/metrics.jsonl").write_text("")
    (folder / "runs/torn/.hydra").mkdir(parents=True)
    _write(str(folder / "runs"), out=folder / "report.html")
    return folder / "report.html"


def test_the_page_needs_nothing_else(page):
    text = page.read_text()
    found = Page(text)
    assert not found.open
    assert all(asked.startswith(("#", "data:")) for asked in found.asked)
    assert "default-src 'none'" in text
    assert not found.tags & {"script", "iframe", "object", "svg"}
    assert all(found.pictures), "every picture has a text"
    assert len(found.pictures) > 10
    assert len(found.ids) == len(set(found.ids))
    rows = [name.rpartition("-")[2] for name in found.ids if name.startswith("row-")]
    assert rows == ["1", "2", "3", "4"], "numbered through both metrics"
    assert {asked[1:] for asked in found.asked if asked.startswith("#")} <= set(found.ids)
    assert "url(" not in text


def test_the_page_says_what_the_runs_say(page):
    words = Page(page.read_text()).words
    for heading in (
        "Results: regression", "Results: classification", "Meta-training", "Adaptation to new tasks", "From task to task",
        "What was swept", "Test tasks, looked at", "Time and memory", "Environment and commands", "Left out",
    ):  # fmt: skip
        assert heading in words, heading
    assert "58" in words.split(), "the mean of 0.25, 0.5 and 1"
    assert "5 runs of 4 configurations" in words
    assert f"metarun -cp {page.parent}/runs/0/.hydra" in words
    assert "python -m metarun meta_steps=4" in words, "what was typed, as it was"
    assert "runs/torn: " in words
    assert "cpu, " in words


def test_a_report_needs_no_torch(page):
    code = "import sys, metarun.results.report, metarun.results.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode == 0


def test_a_report_of_a_run_without_checkpoints_pictures_and_metrics(finished):
    shutil.copytree(finished, "run")
    shutil.rmtree("run/checkpoints")
    for name in ("examples.png", "metrics.jsonl", "timing.jsonl"):
        Path("run", name).unlink()
    words = Page(_write("run")).words
    assert "Adaptation to new tasks" in words
    assert "Test tasks, looked at" not in words
    assert "no learning curve" in words


def test_a_curve_whose_numbers_cannot_be_drawn_is_left_out(finished):
    """A stranger's; their squares are no numbers."""
    shutil.copytree(finished, "run")
    events = Path("run/metrics.jsonl").read_text()
    Path("run/metrics.jsonl").write_text(re.sub(r'"mse": [^,]+', '"mse": 1e308', events))
    assert "no learning curve" in Page(_write("run")).words


EVIL = "<script>alert(1)</script>"


def test_what_a_stranger_wrote_is_shown_as_text(finished):
    copy_run(finished, "run", [1.0, 2.0, 3.0], words=[f"experiment=<svg/onload=alert(1)>{EVIL}", f"algo.x={EVIL}"])
    edit("run", "summary.json", lambda s: s.update(algorithm=EVIL, details={f"<img src=x onerror=1>{EVIL}": '"><b>'}))
    edit(
        "run", "environment.json", lambda e: e.update(argv=[EVIL, "' onload='x"], platform=EVIL, versions={EVIL: EVIL})
    )
    Path("run/metrics.jsonl").write_text(f"{EVIL}\n")
    png = Path("run/examples.png").read_bytes()
    Path("run/examples.png").write_bytes(png.replace(b"Test task 0: error", b'"><script>x</scrip'))
    Path("<script>x").mkdir()
    shutil.copytree("run", "<script>x/run")
    text = _write("run", "<script>x")
    found = Page(text)
    assert not found.open
    assert not found.tags & {"script", "svg"}
    assert all(asked.startswith(("#", "data:")) for asked in found.asked)
    assert EVIL in found.words


@pytest.mark.parametrize("name", ["a $b_$ c", "caf\ud800"])
def test_a_name_is_no_formula_and_need_not_be_text(finished, name, run):
    copy_run(finished, "one", [1.0, 2.0])
    copy_run(finished, "two", [1.0, 2.0], inner_lr=0.02)
    runs, _ = collect(["one", "two"])
    summary = runs[0].summary.model_copy(update={"algorithm": name})
    object.__setattr__(runs[0], "summary", summary)
    write_report(compare_runs(runs)[0], [], Path("report.html"))
    assert name.replace("\ud800", "?") in Path("report.html").read_text()


def test_a_folder_may_have_any_name(metarun, finished):
    """Names are bytes; these are not UTF-8."""
    for name in (b"bad\xff\xfe", b"two\nlines"):
        shutil.copytree(finished, os.fsdecode(name))
    code, _, err = metarun("report", ".")
    assert code == 0, err
    assert "the same configuration and seed" in Path("report.html").read_text()


def test_the_devices_and_changes_of_all_sessions_are_said(finished):
    shutil.copytree(finished, "run")
    later = [
        {"device": "cpu", "threads": n, "after_step": n, "changed": ["device.threads"] * (n == 3)} for n in (1, 3, 3)
    ]
    later[0]["versions"] = {"torch": "9.9"}
    edit("run", "environment.json", lambda e: e.update(device="cpu", threads=1, continued=later))
    words = Page(_write("run")).words
    assert "cpu, 1 thread, then cpu, 3 threads" in words
    assert words.count("went on") == 2
    assert "after outer step 3 with other device.threads" in words
    assert "torch 9.9" in words


def test_cells_have_their_colours_and_papers(run):
    paper = Published(paper="Name 2020", mean=2.0, by_step={1: 3.0})
    steps = {"published": paper, "curve": [(9.0, 0.5), (2.0, 0.5)]}
    rows = [
        replace(make_row([run], {"algo": name}), to_best=to_best, verdict=verdict, **steps)
        for name, to_best, verdict in (
            ("A", Difference(best=True), Verdict("above", 0.5, False)),
            ("B", Difference(1.0, 0.1), Verdict("inside", 0.1, True)),
        )
    ]
    write_report(rows, [], Path("report.html"))
    text = Path("report.html").read_text()
    for cell in (
        '<span class="outside">above by 0.50</span>', '<span class="inside">inside</span>', ">+1.00 ± 0.10</td>",
        '<span class="best">best</span>', '>2<div class="below">Name 2020</div>', '>2.00 ± 0.50<div class="below">(3)</div>',
    ):  # fmt: skip
        assert cell in text, cell


def test_a_file_that_is_no_report_is_left_alone(finished):
    Path("notes.md").write_text("mine")
    with pytest.raises(RunDirError, match="no report"):
        _write(str(finished), out="notes.md")
    assert Path("notes.md").read_text() == "mine"
    with pytest.raises(RunDirError, match=r"notes\.md is a file.*a place that can be written"):
        _write(str(finished), out="notes.md/page.html")
    assert _write(str(finished)) == _write(str(finished)), "a report may be written again"


def test_the_folder_of_a_report_is_made_and_a_place_that_cannot_be_is_refused_before_the_work(metarun, finished):
    Path("notes.md").write_text("mine")
    code, out, err = metarun("report", "no folder", "out=notes.md/page.html")
    assert (code, out) == (4, "")
    assert "notes.md is a file" in err
    assert metarun("report", "no folder", "out=new/page.html")[0] == 2
    assert not Path("new").exists(), "nothing is left behind"
    assert metarun("report", str(finished), "out=new/deep/page.html")[0] == 0
    assert Path("new/deep/page.html").is_file()


def test_what_is_no_file_is_left_alone(finished):
    shutil.copytree(finished, "run")
    os.mkfifo("pipe")
    with pytest.raises(RunDirError, match="no regular file"):
        _write("run", out="pipe")
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


def test_the_verb_writes_a_page_end_to_end(metarun, finished):
    shutil.copytree(finished, "run")
    assert metarun("eval", "run", "data.shots=3")[0] == 0
    code, out, err = metarun("report", "run", "run/eval", "out=page.html")
    assert code == 0, err
    assert out == "page.html: 2 configurations, 2 runs\n"
    words = Page(Path("page.html").read_text()).words
    assert "More and fewer shots" in words
    assert "trained with shots: 10" in words
    assert "eval_shots 3" in words
    settings = json.loads(next(Path("run/eval").glob("*/*/summary.json")).read_text())
    assert settings["test"]["mse"]["tasks"] == 6
    assert len(list(Path("run/eval").glob("*/*/examples.png"))) == 1


def _browse(path, *options):
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    words += ["--enable-logging=stderr", "--hide-scrollbars", *options, f"file://{path}"]
    return subprocess.run(words, capture_output=True, text=True, timeout=120)


@needs_browser
@pytest.mark.parametrize("scheme", ["0", "1"], ids=["dark", "light"])
def test_it_renders_without_a_complaint(page, tmp_path, scheme):
    image = tmp_path / "page.png"
    scheme_of = f"--blink-settings=preferredColorScheme={scheme}"
    done = _browse(page, f"--screenshot={image}", "--window-size=1000,2000", scheme_of)
    assert "CONSOLE" not in done.stderr, done.stderr
    picture = Image.open(io.BytesIO(image.read_bytes())).convert("L")
    paper = picture.getpixel((3, 3))
    assert paper < 40 if scheme == "0" else paper > 240
    shares = picture.histogram()
    assert sum(shares[:64] if scheme == "0" else shares[192:]) > 0.8 * sum(shares), (
        "its pictures are of the same scheme"
    )
    assert picture.getextrema()[1] - picture.getextrema()[0] > 150


@needs_browser
def test_the_browser_would_have_complained(page, tmp_path):
    """Whatever asks the network, or runs a script, is refused by the page's own policy, and logged."""
    bad = '<img src="https://example.invalid/x.png"><script>document.title = 1</script>'
    (tmp_path / "bad.html").write_text(page.read_text().replace("<main>", f"<main>{bad}"))
    assert _browse(tmp_path / "bad.html", "--dump-dom").stderr.count("CONSOLE") == 2


@needs_browser
@pytest.mark.parametrize(("scheme", "expected"), [("0", "dark phone"), ("1", "light phone")])
def test_it_fits_a_phone_and_has_the_pictures_of_its_scheme(page, tmp_path, scheme, expected):
    """In a frame of 360 pixels, as the browser's own window cannot be so narrow."""
    text = page.read_text().replace("inner_lr", "a_name_as_long_as_one_that_somebody_once_thought_of")
    text, host = html.escape(text, quote=True), tmp_path / "host.html"
    measure = (
        "const d = f.contentDocument, e = d.documentElement, seen = [...d.querySelectorAll('figure img')].filter("
        "i => i.offsetWidth).map(i => i.className); document.title = `${e.scrollWidth} of ${e.clientWidth} "
        "${[...new Set(seen)]}`"
    )
    frame = f'<iframe id="f" width="360" height="800" style="border: 0" srcdoc="{text}"></iframe>'
    host.write_text(f"<!doctype html><title></title>{frame}<script>f.onload = () => {{ {measure} }}</script>")
    done = _browse(host, "--dump-dom", "--virtual-time-budget=3000", f"--blink-settings=preferredColorScheme={scheme}")
    needed, there, pictures = re.search(r"<title>(\d+) of (\d+) (.*)</title>", done.stdout).groups()
    assert int(needed) <= int(there) <= 360
    assert pictures == expected
