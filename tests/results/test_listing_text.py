"""Listed runs as text, CSV and JSON."""

import csv
import io
import json
import os
import time

from metarun.results.listing import Listed
from metarun.results.listing_text import Listing, as_csv, as_text, describe_age, describe_state
from metarun.storage.records import Position


def listed(**fields):
    facts = {"status": "done", "algorithm": "maml", "source": "omniglot", "began": time.time() - 7200}
    return Listed(**{"folder": "outputs/a", **facts, **fields})


RUNS = [
    listed(metric="accuracy", validation=0.9, test=0.875, ci95=0.0125, differs={"seed": "1", "meta_steps": "4"}),
    listed(folder="outputs/b", status="failed", reason='no, "bad"', differs={"seed": "2", "meta_steps": "4"}),
]


def test_json_parses_back_into_its_record_with_every_key():
    listing = Listing(runs=RUNS, not_shown=3)
    assert Listing.from_json(listing.to_document()) == listing
    assert set(json.loads(listing.to_document())["runs"][1]) == set(Listed.model_fields), "keys do not come and go"


def test_csv_has_a_line_for_each_run():
    first, second = csv.DictReader(io.StringIO(as_csv(RUNS)))
    assert (first["test"], first["differs"], first["reason"]) == ("0.875", "seed=1 meta_steps=4", "")
    assert (second["test"], second["reason"]) == ("", 'no, "bad"')


def test_settings_that_all_share_are_said_once():
    heading, first, second, _, shared = as_text(RUNS, None).splitlines()
    assert "seed=1" in first
    assert "seed=2" in second
    assert shared == "all: algo=maml data=omniglot meta_steps=4"
    assert "algo" not in heading.split()
    assert "repeats=outputs/a" in as_text([listed(reproduces=os.path.abspath("outputs/a"))], None)
    alone = as_text(RUNS[:1], None)
    assert "meta_steps=4" in alone
    assert "maml" in alone


def test_on_a_terminal_keys_are_short_where_they_stay_apart():
    runs = [listed(differs={"algo.inner_lr": n, "data.shots": n, "algo.shots": "1" + n}) for n in "12"]
    first = as_text(runs, 200).splitlines()[1]
    assert " inner_lr=1 data.shots=1 algo.shots=11 " in first
    assert "algo.inner_lr=1" in as_text(runs, None)


def test_how_it_is_with_a_run():
    position = Position(doing="validating", seconds_left=65.0)
    running = listed(status="running", step=5, steps=20, position=position, seconds_left=65.0)
    assert describe_state(running) == "running 5/20 validating, 1 min 05 s left"
    assert describe_state(listed(status="stale", step=5)) == "stale 5"
    assert describe_state(listed(status="failed", step=5, steps=20, reason="x")) == "failed 5/20: x"


def test_ages_are_in_their_largest_unit():
    ages = {-3: "0 s", 59: "59 s", 60: "1 min", 3600: "1 h", 86399: "23 h", 86400: "1 d"}
    assert {seconds: describe_age(seconds) for seconds in ages} == ages
