"""metarun report: one page that needs nothing else, says what the runs say, and renders in a browser."""

import base64
import html
import html.parser
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.runs import ROOT
from PIL import Image

from metarun.data.sinusoid import Sinusoid
from metarun.results import figures, runs
from metarun.results import report as report_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


class Page(html.parser.HTMLParser):
    """What a browser would ask for, what is said of pictures, and whether tags are closed."""

    VOID = ("meta", "link", "img", "br", "wbr")

    def __init__(self, text):
        super().__init__()
        self.asked, self.pictures, self.open, self.ids, self.text = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.asked += [attrs[name] for name in ("src", "href", "xlink:href", "data") if attrs.get(name)]
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag in ("img", "svg"):
            self.pictures.append(attrs.get("alt") or attrs.get("aria-label"))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory, real_data_root):
    """The page of a small sweep, of evaluations with other shots, and of two Omniglot runs."""
    folder = tmp_path_factory.mktemp("report")

    def metarun(*words):
        done = subprocess.run(
            [sys.executable, "-m", "metarun", *words], cwd=folder, capture_output=True, text=True,
            env={"METARUN_DATA": str(real_data_root), "PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done

    few = ("meta_steps=30", "val_every=10", "val_tasks=10", "test_tasks=20")
    metarun("-m", *few, "algo.inner_lr=0.005,0.01,0.02", "seed=0,1", "hydra.sweep.dir=runs/sweep")
    metarun(
        "eval",
        "runs/sweep/algo.inner_lr=0.01,meta_steps=30,seed=0,test_tasks=20,val_every=10,val_tasks=10",
        "data.shots=3",
    )
    omniglot = ("data=omniglot", "model.filters=8", "meta_steps=20", "val_tasks=5", "test_tasks=12")
    metarun(*omniglot, "hydra.run.dir=runs/maml")
    metarun(*omniglot, "algo=protonet", "hydra.run.dir=runs/protonet")
    done = metarun("report", "runs")
    assert "report.html: 5 configurations, 8 runs" in done.stdout
    return folder / "report.html"


def test_the_page_needs_nothing_else(report):
    page = Page(report.read_text())
    assert not page.open
    assert all(asked.startswith(("#", "data:")) for asked in page.asked)
    assert "default-src 'none'" in report.read_text()
    assert all(page.pictures), "every picture has a text"
    assert len(page.pictures) > 10
    assert len(page.ids) == len(set(page.ids))
    links = {asked[1:] for asked in page.asked if asked.startswith("#")}
    assert links <= set(page.ids)
    assert not re.search(r"url\((?!#)", report.read_text())
    assert not re.search(r"#0(0000[1-8]|[123]0[123]0[123])\b", report.read_text()), "every colour has become a variable"


def test_the_page_says_what_the_runs_say(report):
    text = " ".join(" ".join(Page(report.read_text()).text).split())
    for name in ("maml", "protonet"):
        test = json.loads((report.parent / "runs" / name / "summary.json").read_text())["test"]["accuracy"]
        assert f"{100 * test['mean']:.1f}" in text
    for heading in (
        "Results: regression", "Results: classification", "Meta-training", "Adaptation to new tasks", "From task to task",
        "More and fewer shots", "What was swept", "Test tasks, looked at", "Time and memory", "Environment and commands",
    ):  # fmt: skip
        assert heading in text, heading
    assert "metarun data=omniglot model.filters=8 meta_steps=20" in text
    assert "metarun -m meta_steps=30" in text
    assert "seed=0,1" in text


def test_the_drawings_are_those_of_the_test_task_and_mistakes_are_marked(report, real_omniglot):
    """Every marked query is one that the trained run gets wrong, and the other way round."""
    content = report.read_text()
    source = real_omniglot()
    pictures = re.findall(
        r'<div class="tile( wrong)?"><div class=frame><img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', content
    )
    drawn = [
        torch.tensor(list(Image.open(io.BytesIO(base64.b64decode(data))).getdata())) / 255 for _, data, _ in pictures
    ]
    task = source.sample(0, "test", torch.arange(12))
    known = {
        tuple((x.flatten() * 255).round().int().tolist())
        for part in (task.support_x, task.query_x)
        for x in part.flatten(0, 1)
    }
    assert {tuple((image * 255).round().int().tolist()) for image in drawn} <= known
    for wrong, _, alt in pictures:
        if alt.startswith("query"):
            truth, answer = re.search(r"class (\w+), taken for (\w+)", alt).groups()
            assert bool(wrong) == (truth != answer)
    for number, said in re.findall(r"<b>Test task (\d+)</b>: (all|\d+)", content):
        assert int(number) < 12
        assert said == "all" or int(said) > 0


def test_a_grid_shows_the_same_wave():
    source = Sinusoid(shots=4, queries=6, eval_shots=3)
    index = torch.arange(5)
    task, grid = source.sample(2, "test", index), source.on_grid(2, "test", index, 501)
    assert torch.equal(task.support_x, grid.support_x)
    assert torch.equal(task.support_y, grid.support_y)
    assert grid.query_x[0, 0] == -5
    assert grid.query_x[0, -1] == 5
    places = ((task.query_x[..., 0] + 5) * 50).round().long()
    near = grid.query_y[..., 0].gather(1, places)
    assert (near - task.query_y[..., 0]).abs().max() < 5 * 0.011, "the slope is at most the amplitude, 5"


def test_bars_are_the_accuracies_that_are_possible():
    edges = figures._edges([40.0, 60.0, 100.0], False)
    assert edges == pytest.approx([-10, 10, 30, 50, 70, 90, 110])
    assert len(figures._edges([k / 3 for k in range(301)], False)) == 22
    low, *_, high = figures._edges([0.01, 1.0, 8.0], True)
    assert low == pytest.approx(0.01)
    assert 8.0 < high < 8.01


def test_what_a_stranger_wrote_is_shown_as_text(metarun, finished):
    shutil.copytree(finished, "run")
    path = Path("run/summary.json")
    summary = json.loads(path.read_text())
    summary["title"] = "<script>alert(1)</script> on x"
    summary["settings"]["<img src=x onerror=alert(1)>"] = '"><b>'
    path.write_text(json.dumps(summary))
    Path("run/.hydra/overrides.yaml").write_text("- experiment=<svg/onload=alert(1)>\n")
    Path("run/metrics.jsonl").write_text("<script>\n")
    code, _, err = metarun("report", "run")
    assert code == 0, err
    content = Path("report.html").read_text()
    assert "<script" not in content
    assert "<img src=x" not in content
    assert "<svg/onload" not in content
    assert "no learning curve" in content


def test_a_folder_may_have_any_name(metarun, finished):
    """Names are bytes; these are not UTF-8."""
    for name in (b"bad\xff\xfe", b"two\nlines"):
        shutil.copytree(finished, os.fsdecode(name))
    code, _, err = metarun("report", ".")
    assert code == 0, err
    assert "the same configuration and seed" in Path("report.html").read_text()
    _, out, _ = metarun("table", ".")
    assert any(line.startswith("- two lines: ") for line in out.splitlines()), "names stay in their line"


@pytest.mark.parametrize(
    ("words", "argv", "expected"),
    [
        (["sweep=seeds", "seed=3"], [], "metarun seed=3"),
        (["sweep=optuna", "hydra/launcher=joblib", "algo.inner_lr=0.1"], [], "metarun algo.inner_lr=0.1"),
        (["seed=1"], ["-m", "metarun", "-cp", "old/.hydra", "seed=1"], "metarun -cp old/.hydra seed=1"),
        (["algo=mine"], ["metarun", "--config-dir=my choices", "algo=mine"], "metarun '--config-dir=my choices' algo=mine"),
        ([], ["metarun", "reproduce", "old", "device=cpu"], "metarun reproduce old device=cpu"),
        (["model.hidden=[40,40]", "data.root=/my data"], [], "metarun 'model.hidden=[40,40]' 'data.root=/my data'"),
        ([], 3, "metarun"),
        (["budget=0.5"], [None], "metarun budget=1"),
    ],
)  # fmt: skip
def test_a_command_is_what_one_would_type(metarun, finished, words, argv, expected):
    """The runs here have all of their outer steps."""
    shutil.copytree(finished, "run")
    Path("run/.hydra/overrides.yaml").write_text(json.dumps(words))
    old = json.loads(Path("run/environment.json").read_text())
    Path("run/environment.json").write_text(json.dumps({**old, "argv": argv}))
    (run,), _ = runs.collect(["run"])
    assert report_page._command(run, ["0"]) == expected


def test_an_evaluation_names_its_run(metarun, finished):
    shutil.copytree(finished, "my runs/run")
    assert metarun("eval", "my runs/run", "data.shots=3")[0] == 0
    (run,), _ = runs.collect(["my runs/run/eval"])
    assert report_page._command(run, ["0"]) == "metarun eval 'my runs/run' data.shots=3"
    shutil.copytree(run.rundir.path, "alone")
    (run,), _ = runs.collect(["alone"])
    assert report_page._command(run, ["0"]) == "metarun eval DIR (its run is gone)"
    assert metarun("report", "alone")[0] == 0


def test_where_a_run_was_computed_is_said_of_all_its_parts(metarun, finished):
    shutil.copytree(finished, "run")
    old = json.loads(Path("run/environment.json").read_text())
    later = [{"device": "cpu", "threads": n} for n in (1, 3, 3)]
    Path("run/environment.json").write_text(json.dumps({**old, "device": "cpu", "threads": 1, "continued": later}))
    code, _, err = metarun("report", "run")
    assert code == 0, err
    text = " ".join(Page(Path("report.html").read_text()).text)
    assert "cpu, 1 thread, then cpu, 3 threads" in text
    assert text.count("3 threads") == 1
    Path("run/environment.json").write_text(json.dumps({"device": 3, "continued": ["?", None, {"threads": []}]}))
    assert metarun("report", "run")[0] == 0


@pytest.mark.parametrize("name", ["a $b_$ and $^", "a_b^c$", "caf\ud800"])
def test_a_name_is_no_formula_and_need_not_be_text(metarun, finished, name):
    for folder, algorithm in (("one", name), ("two", "MAML")):
        shutil.copytree(finished, folder)
        summary = json.loads(Path(folder, "summary.json").read_text())
        Path(folder, "summary.json").write_text(json.dumps({**summary, "algorithm": algorithm}))
        Path(folder, "environment.json").unlink()
    config = Path("two/.hydra/config.yaml")
    config.write_text(config.read_text().replace("inner_lr: 0.01", "inner_lr: 0.02"))
    code, out, err = metarun("report", "one", "two")
    assert code == 0, err
    assert "2 configurations" in out
    assert name.replace("\ud800", "?") in Path("report.html").read_text()


def test_results_without_any_spread_have_a_picture():
    for value in (0.0, 1e-40, 0.25):
        edges = figures._edges([value] * 5, logarithmic=True)
        assert len(edges) == 31
        assert all(0 < a < b for a, b in itertools.pairwise(edges))


def test_metrics_beyond_all_bounds_are_no_learning_curve(metarun, finished):
    shutil.copytree(finished, "run")
    row = {"step": 10**400, "split": "val", "mse": 1.0, "ci95": 1.0, "tasks": 2, "by_step": [1.0]}
    Path("run/metrics.jsonl").write_text(json.dumps(row) + "\n")
    code, _, err = metarun("report", "run")
    assert code == 0, err
    assert "no learning curve" in Path("report.html").read_text()


def test_a_report_without_checkpoints_or_data_says_so(metarun, finished):
    shutil.copytree(finished, "run")
    shutil.rmtree("run/checkpoints")
    code, _, err = metarun("report", "run", "out=page.html")
    assert code == 0, err
    assert "No pictures: " in Path("page.html").read_text()
    assert metarun("report", "run", "out=nowhere/page.html")[0] == 4


def _browse(path, *options):
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    words += ["--enable-logging=stderr", "--hide-scrollbars", *options, f"file://{path}"]
    return subprocess.run(words, capture_output=True, text=True, timeout=120)


@needs_browser
@pytest.mark.parametrize("scheme", ["0", "1"], ids=["dark", "light"])
def test_it_renders_without_a_complaint(report, tmp_path, scheme):
    image = tmp_path / "page.png"
    done = _browse(
        report, f"--screenshot={image}", "--window-size=1000,2000", f"--blink-settings=preferredColorScheme={scheme}"
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    picture = Image.open(image).convert("L")
    paper = picture.getpixel((3, 3))
    assert paper < 40 if scheme == "0" else paper > 240
    assert picture.getextrema()[1] - picture.getextrema()[0] > 150


@needs_browser
def test_the_browser_would_have_complained(report, tmp_path):
    """Whatever asks the network, or runs a script, is refused by the page's own policy, and logged."""
    for number, bad in enumerate(('<img src="https://example.invalid/x.png">', "<script>document.title = 1</script>")):
        page = tmp_path / f"{number}.html"
        page.write_text(report.read_text().replace("<main>", f"<main>{bad}"))
        assert "CONSOLE" in _browse(page, "--dump-dom").stderr


@needs_browser
@pytest.mark.parametrize("width", [360, 500, 1000])
def test_it_fits_a_phone(report, tmp_path, width):
    """In a frame of this width, as the browser's own window cannot be so narrow."""
    text = report.read_text().replace("inner_lr", "a_name_as_long_as_one_that_somebody_once_thought_of")
    page, host = html.escape(text, quote=True), tmp_path / "host.html"
    measure = "const d = f.contentDocument.documentElement; document.title = `${d.scrollWidth} of ${d.clientWidth}`"
    frame = f'<iframe id="f" width="{width}" height="800" style="border: 0" srcdoc="{page}"></iframe>'
    host.write_text(f"<!doctype html><title></title>{frame}<script>f.onload = () => {{ {measure} }}</script>")
    done = _browse(host, "--dump-dom", "--virtual-time-budget=3000")
    needed, there = map(int, re.search(r"<title>(\d+) of (\d+)</title>", done.stdout).groups())
    assert needed <= there <= width


def test_a_file_that_is_no_report_is_left_alone(metarun, finished):
    shutil.copytree(finished, "run")
    Path("notes.md").write_text("mine")
    code, _, err = metarun("report", "run", "out=notes.md")
    assert code == 4
    assert "no report" in err
    assert Path("notes.md").read_text() == "mine"
    assert metarun("report", "run")[0] == 0
    assert metarun("report", "run")[0] == 0, "a report may be written again"


def test_one_value_out_of_all_bounds_leaves_the_others_readable():
    edges = figures._edges([1.0, 2.0, 3.0, 1e24], True)
    assert edges[-1] == pytest.approx(2.5e4, rel=1e-3)
    curve = [(x, 2.0 - 0.1 * x, 0.1) for x in range(5)]
    picture = figures.lines("x", "alt", "mse", "step", [("a", 0, curve), ("b", 1, [(x, 1e23, 1e22) for x in range(4)])])
    assert "10^{23}" not in picture
    assert "10^{22}" not in picture
