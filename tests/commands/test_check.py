"""metarun check says what it saw, trains nothing, and leaves nothing behind."""

from pathlib import Path

FLAT = """
from torch import nn


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x):
        return self.layer(x).squeeze(-1)
"""


def test_it_says_what_it_saw_and_makes_no_folder(metarun):
    code, out, err = metarun("check", "data=tabular", "data.shots=2", "algo=protonet")
    assert code == 0, err
    for expected in (
        "Tabular: accuracy, inputs [10]",
        "4 support and 30 query points",
        "predictions [1, 30, 2]",
        "all as",
    ):
        assert expected in out
    assert not list(Path().iterdir())


def test_every_job_of_a_sweep_is_checked(metarun):
    code, out, err = metarun("check", "-m", "algo=maml,protonet", "data=tabular", "data.shots=2")
    assert code == 0, err
    assert out.count("all as expected") == 2


def test_a_part_of_ones_own_is_named_before_a_folder_is_made(metarun, monkeypatch):
    Path("flat_net.py").write_text(FLAT)
    Path("choices/model").mkdir(parents=True)
    Path("choices/model/flat.yaml").write_text("_target_: flat_net.Flat")
    monkeypatch.setenv("METARUN_TRUST", "flat_net")
    monkeypatch.syspath_prepend(str(Path().resolve()))
    for verb in (["check"], ["hydra.run.dir=run"], ["-m", "seed=0,1", "hydra.sweep.dir=run"]):
        code, _, err = metarun(*verb, "-cd", "choices", "model=flat")
        assert code == 2
        assert "flat_net.Flat: outputs of shape [10]: expected [10, 1]" in err
        assert err.count("\n") == 1, err
    assert not Path("run").exists()
