"""What the README says is what there is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

TEXT = (ROOT / "README.md").read_text()


def _block(language):
    return re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)[1]


def test_an_algorithm_of_ones_own_runs_as_it_stands(tmp_path):
    (tmp_path / "my_algo.py").write_text(_block("python"))
    (tmp_path / "choices/algo").mkdir(parents=True)
    (tmp_path / "choices/algo/matching.yaml").write_text(_block("yaml"))
    trust, *words = _block("bash").split()
    words = [sys.executable, "-m", *words, "hydra.run.dir=run"]
    environment = {**os.environ, **dict([trust.split("=")])}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    accuracy = float(re.search(r"accuracy ([\d.]+) ±", done.stdout)[1])
    assert accuracy > 65, "far above chance, which is 50"
    del environment["METARUN_TRUST"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "METARUN_TRUST" in done.stderr


def test_continuous_integration_runs_the_readmes_test_command():
    command = re.search(r"^    (python3 -m venv .*pytest)$", TEXT, re.MULTILINE)[1]
    assert command.replace("install -e", "install -q -e") in (ROOT / ".ci" / "run").read_text()


def test_every_setting_that_the_readme_names_exists(metarun):
    names = set(re.findall(r"\b((?:algo|data|model|engine|device)\.\w+)\b", TEXT))
    known = set()
    for data in ("sinusoid", "omniglot", "tabular", "sequences"):
        for algo in ("maml", "averaging", "meta_lstm", "lstm_generator", "reptile"):
            out = metarun(f"data={data}", f"algo={algo}", "engine=compile", "--cfg", "job")[1]
            section = ""
            for line in out.splitlines():
                if line and not line.startswith(" "):
                    section = line.partition(":")[0]
                known.add(f"{section}.{line.strip().partition(':')[0]}")
    assert {name for name in names if not name.endswith((".py", ".base"))} <= known


@pytest.mark.parametrize("line", re.findall(r"^    (metarun [^#\n]*?)  +#", TEXT, re.MULTILINE))
def test_the_recipes_compose(metarun, line):
    words = line.split()[1:]
    if words[0] in ("eval", "resume", "reproduce", "-cp"):
        assert words[1].startswith("DIR")
        return
    words = [word for word in words if word != "-m" and "," not in word and not word.startswith("sweep=")]
    code, _, err = metarun(*words, "--cfg", "job")
    assert code == 0, err
    assert not list(Path().iterdir())
