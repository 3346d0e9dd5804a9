import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from metarun.cli import VERBS
from metarun.commands import complete
from metarun.commands.candidates import VALUES, find_candidates
from metarun.commands.complete import split
from metarun.commands.completion import SCRIPTS
from metarun.results.listing import State
from metarun.results.selection import ORDERS

BREAKS = " \t\n\"'><=;|&(:"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A run, a sweep, a folder of data, a file with a blank in its name, and a choice of one's own."""
    monkeypatch.chdir(tmp_path)
    for run in ("run", "outputs/sweep/a", "outputs/sweep/b"):
        Path(run, ".hydra").mkdir(parents=True)
    Path("run/.hydra/choices.yaml").write_text("algo: reptile\ndata: omniglot\nmodel: conv4\n")
    Path("my data").mkdir()
    Path("my data/a.csv").touch()
    Path("conf/algo").mkdir(parents=True)
    Path("conf/algo/own.yaml").write_text("defaults: [maml, _self_]\nspeed: 1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "texts"),
    [
        ("ev", ["eval"]),
        ("alg", ["algo=", "algo."]),
        ("algo=mam", ["algo=maml", "algo=maml_pp"]),
        ("algo=maml,fo", ["algo=maml,fomaml"]),
        ("algo=maml,maml", ["algo=maml,maml_pp"]),
        ("algo=reptile algo.inner_mo", ["algo.inner_moments="]),
        ("algo.inner_mo", []),
        ("algo=reptile algo.inner_moments=", ["algo.inner_moments=carried", "algo.inner_moments=fresh"]),
        ("device.deterministic=", ["device.deterministic=true", "device.deterministic=false"]),
        ("objective=", ["objective=val", "objective=test"]),
        ("+algo=mam", ["+algo=maml", "+algo=maml_pp"]),
        ("hydra.run", ["hydra.run.dir="]),
        ("-cd conf algo=ow", ["algo=own"]),
        ("-cd conf algo=own algo.sp", ["algo.speed="]),
        ("-cp r", ["run/.hydra"]),
        ("-c", ["-cd", "-cp"]),
        ("data.file=my", ["data.file=my data/"]),
        ("eval r", ["run"]),
        ("resume outputs/", ["outputs/sweep/b", "outputs/sweep/a"]),
        ("table outputs/", ["outputs/sweep/", "outputs/sweep/b", "outputs/sweep/a"]),
        ("eval run data.rot", ["data.rotations="]),
        ("eval run algo.inner_mo", ["algo.inner_moments="]),
        ("eval run exp", []),
        ("table run format=c", ["format=csv"]),
        ("adapt run supp", ["support="]),
        ("adapt run support=my", ["support=my data/"]),
        ("explain algo.first_order", ["algo.first_order", "algo.first_order_until"]),
        ("explain algo=fo", ["algo=fomaml"]),
        ("ls status=fa", ["status=failed"]),
        ("ls algo=maml,rep", ["algo=maml,reptile"]),
        ("help tab", ["table"]),
        ("completion z", ["zsh"]),
        ("nosuch x", []),
    ],
)
def test_candidates(place, typed, texts):
    *words, current = typed.split(" ")
    assert [candidate.text for candidate in find_candidates(words, current, VERBS)] == texts


def test_the_words_of_verbs_are_theirs():
    """They are written down twice: their own modules take too long for a TAB."""
    assert VALUES["sort"] == tuple(ORDERS)
    assert VALUES["status"] == get_args(State)


def test_of_very_many_runs_their_folders_are_offered(place):
    for n in range(60):
        Path(f"many/day/{n:02d}/.hydra").mkdir(parents=True)
    assert [text for text, *_ in find_candidates(["eval"], "ma", VERBS)] == ["many/"]
    assert [text for text, *_ in find_candidates(["eval"], "many/", VERBS)] == ["many/day/"]


@pytest.mark.parametrize(
    ("line", "words", "quote"),
    [
        ("metarun algo=ma", ["metarun", "algo=ma"], ""),
        ("metarun ", ["metarun", ""], ""),
        ("metarun 'a b'  c\\ d", ["metarun", "a b", "c d"], ""),
        ("metarun 'data.file=my d", ["metarun", "data.file=my d"], "'"),
        ("metarun \"a'", ["metarun", "a'"], '"'),
    ],
)
def test_a_line_is_cut_as_a_shell_cuts_it(line, words, quote):
    assert split(line) == (words, quote)


@pytest.mark.parametrize(
    ("line", "inserted"),
    [("metarun show x", "x\\$\\(ls\\)\\'"), ('metarun show "x', "x\\$(ls)'"), ("metarun show 'x", "x$(ls)'\\''")],
)
def test_a_name_that_is_inserted_runs_nothing(place, capsys, line, inserted):
    Path("x$(ls)'/.hydra").mkdir(parents=True)
    complete.main(["bash", line, BREAKS], VERBS)
    assert capsys.readouterr().out.strip() == inserted


def test_a_strangers_folder_neither_steers_the_terminal_nor_keeps_it_waiting(place):
    for name in ("odd\x1b[2J", "odd\nrun"):
        Path(name, ".hydra").mkdir(parents=True)
    assert find_candidates(["show"], "odd", VERBS) == []
    Path("pipe/.hydra").mkdir(parents=True)
    os.mkfifo("pipe/.hydra/choices.yaml")
    assert [text for text, *_ in find_candidates(["eval", "pipe"], "data.shot", VERBS)]


def test_in_bash_the_part_after_the_last_break_is_replaced(place):
    """Real bash, with the printed script: = is a break there, and a blank in a name needs a backslash."""
    if (bash := shutil.which("bash")) is None:
        pytest.skip("no bash")
    (place / "metarun").write_text(f'#!/bin/sh\nexec {sys.executable} -m metarun "$@"\n')
    (place / "metarun").chmod(0o755)
    (place / "script").write_text(SCRIPTS["bash"])
    ask = 'COMP_POINT=${#COMP_LINE}; _metarun ./metarun; printf "%s|" "${COMPREPLY[@]}"; '
    lines = ["metarun algo=maml,fo", "metarun data.file=my", "metarun nosuch nosuch", "metarun 'algo=fo"]
    script = ". ./script; " + "".join(f'COMP_LINE="{line}"; {ask} echo; ' for line in lines)
    environment = {**os.environ, "COMP_WORDBREAKS": BREAKS, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([bash, "-c", script], capture_output=True, text=True, env=environment)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["maml,fomaml |", "my\\ data/|", "|", "algo=fomaml|"]


def test_it_is_silent_whatever_is_wrong_and_imports_nothing_heavy(place):
    code = (
        "import sys; from metarun import cli; codes = [cli.main(['complete', *words]) for words in "
        "([], ['nosuch'], ['bash'], ['zsh'], ['zsh', 'eval', '~nobody/'], ['zsh', '-cd', 'nowhere', 'algo='], "
        "['zsh', 'algo=reptile', 'algo.inner_moments=c'])]; "
        "print(codes, [name for name in ('torch', 'hydra', 'omegaconf', 'pydantic', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == ""
    *_, moments, last = done.stdout.splitlines()
    assert moments == "whole\talgo.inner_moments=carried\t"
    assert last == "[0, 0, 0, 0, 0, 0, 0] []"


def test_the_scripts_are_printed_and_say_where_they_go(metarun):
    for shell, place in (("bash", "~/.bashrc"), ("zsh", "${fpath[1]}/_metarun"), ("fish", "completions/metarun.fish")):
        code, out, err = metarun("completion", shell)
        assert (code, out, err) == (0, SCRIPTS[shell], "")
        assert place in out.partition("function")[0]
    assert metarun("completion", "tcsh")[0] == 2
