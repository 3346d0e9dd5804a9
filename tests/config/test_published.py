"""What papers report, beside the experiments that it belongs to."""

import math

import yaml
from helpers.runs import ROOT

from metarun.config.folders import OWN
from metarun.config.published import published


def test_what_is_published_belongs_to_experiments():
    names = yaml.safe_load((ROOT / "conf/published.yaml").read_text())
    assert len(names) > 20
    assert names.keys() <= set(OWN.options("experiment"))
    for name in names:
        found = published(name)
        assert {"paper", "mean"} <= found.keys() <= {"paper", "mean", "ci95", "by_step"}
        numbers = [found["mean"], found.get("ci95", 1), *found.get("by_step", {}).values()]
        assert all(type(number) is float or type(number) is int for number in numbers)
        assert all(math.isfinite(number) and number > 0 for number in numbers)
        assert all(type(step) is int and step >= 0 for step in found.get("by_step", {}))
        if "omniglot" in name:
            assert found["mean"] < 1, "a share, and no percentage"


def test_numbers_of_the_papers():
    assert published("finn2017/omniglot_5w1s") == {"paper": "Finn et al. 2017, table 1", "mean": 0.987, "ci95": 0.004}
    assert published("finn2017/sinusoid_5shot")["by_step"] == {1: 0.67, 5: 0.38, 10: 0.35}
    assert published("ravi2017/omniglot_5w1s") is None
    assert published("antoniou2019/omniglot_20w1s") is None, "a number whose source nobody here has read is none"
    assert published("") is None
