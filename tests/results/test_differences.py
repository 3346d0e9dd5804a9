"""Which rows are compared, on which tasks, which is chosen, and what the intervals of their differences are over."""

import math
import statistics
from dataclasses import replace

import pytest
from helpers.results import alter
from scipy import stats

from metarun.intervals import Clusters
from metarun.results.compare import compare_runs
from metarun.results.differences import Contender, Difference, compare_rows
from metarun.storage.rundir import RunDir

EACH = [1.0, 2.0, 3.0, 10.0]


def contenders(run, *rows, validations=None):
    """Rows of one seed each, or of several where a row is a list of lists."""
    found = []
    for number, row in enumerate(rows):
        seeds = row if isinstance(row[0], list) else [row]
        runs = [alter(run, each, seed=seed, clusters=None) for seed, each in enumerate(seeds)]
        found.append(Contender(number + 1, runs, [validations[number] if validations else None] * len(runs)))
    return found


def test_rows_of_one_seed_are_compared_task_by_task(run):
    rows = contenders(run, EACH, [1.5, 2.4, 3.6, 10.5], validations=[0.1, 0.2])
    found = compare_rows(rows, higher=False)
    assert found[1][1] == Difference(best=True)
    paired = stats.ttest_rel([1.5, 2.4, 3.6, 10.5], EACH).confidence_interval(0.95)
    other = found[2][1]
    assert (other.mean - other.ci95, other.mean + other.ci95) == pytest.approx((paired.low, paired.high), rel=1e-4)


def test_differences_of_several_seeds_are_over_seeds_paired(run):
    """The tasks of a seed agree to 0.1, the seeds differ by 3: as wide as scipy's paired test over seeds has it."""
    best = [[value + seed for value in EACH] for seed in range(3)]
    gaps = ((0.1, 0.2, 0.3, 0.4), (3.1, 3.2, 3.3, 3.4), (1.1, 1.0, 1.0, 1.1))
    other = [[v + g for v, g in zip(each, gap, strict=True)] for each, gap in zip(best, gaps, strict=True)]
    difference = compare_rows(contenders(run, best, other, validations=[0.1, 0.2]), higher=False)[2][1]
    means = [[statistics.fmean(each) for each in row] for row in (other, best)]
    paired = stats.ttest_rel(*means).confidence_interval(0.95)
    assert difference.mean == pytest.approx((paired.low + paired.high) / 2)
    assert difference.ci95 == pytest.approx((paired.high - paired.low) / 2, rel=1e-4)
    assert difference.ci95 > 3, "tasks alone would have it at 0.1"


def test_the_best_is_chosen_by_validation_not_by_the_test(run):
    rows = contenders(run, [1.0, 2.0], [3.0, 5.0], [5.0, 6.0], validations=[0.5, 0.4, 0.6])
    contest, difference = compare_rows(rows, higher=False)[1]
    assert (contest.best, contest.by, contest.best_in_test, contest.rows) == (2, "validation", 1, (1, 2, 3))
    assert difference.mean == pytest.approx(-2.5), "a row may be better in the test than the one to choose"
    contest, _ = compare_rows(rows, higher=True)[1]
    assert (contest.best, contest.best_in_test) == (3, 3)


@pytest.mark.parametrize("validations", [None, [0.5, 0.5, 0.7], [0.5, None, 0.7]])
def test_where_validation_tells_no_best_the_test_does_and_it_is_said(run, validations):
    rows = contenders(run, [3.0, 5.0], [1.0, 2.0], [5.0, 6.0], validations=validations)
    contest, _ = compare_rows(rows, higher=False)[1]
    assert (contest.best, contest.by) == (2, "test")


def test_a_run_is_before_its_evaluation_of_the_same_validation(run):
    trained, again = contenders(run, [3.0, 5.0], [1.0, 2.0], validations=[0.5, 0.5])
    again = replace(again, runs=[replace(again.runs[0], origin=RunDir(run.rundir.path))])
    assert compare_rows([trained, again], higher=False)[1][0].best == 1
    other = alter(run, [1.0, 2.0], settings={"data.shots": 3}).config  # validated on other tasks than it was tested on
    changed = replace(again, validations=[0.1], runs=[replace(again.runs[0], trained=other)])
    assert compare_rows([trained, changed], higher=False)[1][0].by == "test"


def test_an_evaluation_that_repeats_the_test_of_its_run_makes_no_tie(run):
    """With the shots of the run, in words that say so; and twice the same, without the run."""
    rows = contenders(run, [3.0, 5.0], [3.0, 5.0], [3.0, 5.0], [1.0, 2.0], validations=[0.5, 0.5, 0.5, 0.7])
    same = alter(run, [3.0, 5.0], settings={"data.eval_shots": run.config.data["shots"]}).config
    tests = [replace(row.runs[0], origin=RunDir(run.rundir.path), config=same) for row in rows[1:3]]
    rows[1:3] = [replace(row, runs=[test]) for row, test in zip(rows[1:3], tests, strict=True)]
    for group, best in ((rows, 1), (rows[1:], 2)):
        contest, _ = compare_rows(group, higher=False)[4]
        assert (contest.best, contest.by, contest.best_in_test) == (best, "validation", 4)


def test_the_first_tasks_of_a_row_may_be_all_of_another(run):
    """Row 2 has twice the tasks of row 1; of row 3 the first are others, and of row 4 it is not known."""
    prints = [f"{n:08x}" for n in range(4)]
    rows = [
        Contender(n, [alter(run, each, digest=f"d{n}", each_digest=kept, clusters=None)], [0.1 * n])
        for n, each, kept in (
            (1, [1.0, 2.0], "".join(prints[:2])),
            (2, [2.0, 4.0, 0.0, 0.0], "".join(prints)),
            (3, [2.0, 4.0], "".join(prints[1:3])),
            (4, [2.0, 4.0], None),
        )
    ]
    found = compare_rows(rows, higher=False)
    contest, difference = found[2]
    assert (found.keys(), contest.rows, contest.tasks) == ({1, 2}, (1, 2), {1: 2, 2: 2})
    assert (difference.mean, contest.means) == (1.5, {1: 1.5, 2: 3.0})
    more = replace(
        rows[1], number=5, runs=[alter(run, [9.0, 9.0, 0.0, 1.0], digest="d2", clusters=None)], validations=[0.0]
    )
    contest, difference = compare_rows([rows[0], rows[1], more], higher=False)[2]
    assert (contest.best, contest.tasks) == (5, {1: 2, 2: 4, 5: 4}), "each is compared on all that it and the best have"
    assert difference.mean == pytest.approx(-13 / 4)
    same = replace(rows[3], runs=[alter(run, [2.0, 4.0], digest="d1", each_digest=None, clusters=None)])
    assert compare_rows([*rows[:3], same], higher=False)[4][0].rows == (1, 2, 4), "its digest is that of row 1"


def test_rows_are_compared_over_the_seeds_that_both_have(run):
    """As where one job of five failed."""
    best = [[value + seed for value in EACH] for seed in range(5)]
    other = [[value + gap for value in each] for each, gap in zip(best, (0.1, 3.1, 1.1, 9.0, 9.0), strict=True)]
    whole, few = (contenders(run, best, part, validations=[0.1, 0.2]) for part in (other, other[:3]))
    contest, difference = compare_rows(few, higher=False)[2]
    paired = stats.ttest_rel([0.1, 3.1, 1.1], [0, 0, 0]).confidence_interval(0.95)
    assert difference.mean == pytest.approx((0.1 + 3.1 + 1.1) / 3)
    assert difference.ci95 == pytest.approx((paired.high - paired.low) / 2, rel=1e-4)
    assert contest.seeds == {1: 5, 2: 3}
    missing = Contender(2, [whole[1].runs[seed] for seed in (1, 3)], [0.2, 0.2])
    assert compare_rows([whole[0], missing], higher=False)[2][1].mean == pytest.approx((3.1 + 9.0) / 2), "by seed"


def test_the_best_is_chosen_over_the_seeds_that_all_have(run):
    """Tasks of seed 1 are easier: the row that was trained there too is worse on seed 0, in validation and in test."""
    easier = [alter(run, each, seed=n, clusters=None) for n, each in enumerate(([3.0, 4.0], [0.0, 1.0]))]
    both, lone = Contender(1, easier, [5.2, 4.0]), Contender(2, [alter(run, [2.0, 3.5], clusters=None)], [4.9])
    contest, difference = compare_rows([both, lone], higher=False)[1]
    assert (contest.best, contest.by, contest.best_in_test, contest.means) == (2, "validation", 2, {1: 3.5, 2: 2.75})
    assert difference.mean == pytest.approx(0.75)
    other = Contender(3, [alter(run, [9.0, 9.0], seed=1, clusters=None)], [4.5])
    assert compare_rows([both, other], higher=False)[1][0].best == 1, "on seed 1"


def test_rows_without_a_seed_that_all_have_are_not_ranked(run):
    """Seed 2 has easy validation tasks: over all seeds the row that has it would be taken for the best."""
    level = {0: 3.0, 1: 4.0, 2: 1.0}
    rows = []
    for number, (seeds, worse) in enumerate((((0, 1), 0.0), ((1, 2), 0.2), ((0, 1, 2), 0.4), ((0,), 0.1)), start=1):
        each = [[level[s] + worse + place / 10 for place in range(4)] for s in seeds]
        runs = [alter(run, values, seed=s, clusters=None) for s, values in zip(seeds, each, strict=True)]
        rows.append(Contender(number, runs, [level[s] + worse for s in seeds]))
    found = compare_rows(rows, higher=False)
    contest, _ = found[1]
    assert (contest.rows, contest.best, contest.best_in_test) == ((1, 2, 3), 1, 1)
    assert found[2][1].mean == pytest.approx(0.2)
    assert 4 not in found, "it has none of the seeds that those share"
    one = [alter(run, EACH, seed=seed, digest="d", each_digest=None, clusters=None) for seed in (0, 1, 0)]
    same = [Contender(number, [run], [0.1 * number]) for number, run in enumerate(one, start=1)]
    assert compare_rows(same, higher=False)[3][0].rows == (1, 2, 3), "all have the same tasks"


def test_rows_whose_tasks_were_not_kept_are_not_compared(run):
    nothing = [replace(row, runs=[replace(row.runs[0], digest=None, each=[])]) for row in contenders(run, EACH, EACH)]
    assert compare_rows(nothing, higher=False) == {}, "their tasks were not kept"


def test_differences_are_clustered_as_their_tasks_are(run):
    """Two tables: a difference that one of them makes. The clusters are known where any run on the tasks kept them."""
    each, gaps = [1.0, 2.0, 3.0, 10.0, 5.0, 6.0], [0.1, 0.1, 0.2, 0.8, 0.9, 0.9]
    clusters = Clusters([[3], [3], [3], [8], [8], [8]])
    other = [value + gap for value, gap in zip(each, gaps, strict=True)]
    means = [statistics.fmean(gaps[:3]), statistics.fmean(gaps[3:])]
    expected = 12.7062 * statistics.stdev(means) / math.sqrt(2)
    runs = [alter(run, each, clusters=clusters), alter(run, other, settings={"algo.inner_lr": 0.5})]
    assert compare_runs(runs)[0][1].to_best.ci95 == pytest.approx(expected)


def test_seeds_do_not_average_out_what_their_tasks_share(run):
    """Two tables, of which one makes the whole difference, in each of three seeds: others may be as the other one."""
    clusters = Clusters([[3]] * 300 + [[8]] * 300)
    gaps = [[2.0 * seed] * 300 + [1.0 + 2.0 * seed] * 300 for seed in range(3)]
    same, other = [[0.0] * 600] * 3, gaps
    rows = []
    for number, each in enumerate((same, other), start=1):
        runs = [alter(run, values, seed=seed, clusters=clusters) for seed, values in enumerate(each)]
        rows.append(Contender(number, runs, [float(number)] * 3))
    difference = compare_rows(rows, higher=False)[2][1]
    over_tables = 12.7062 * statistics.stdev([0.0, 1.0]) / math.sqrt(2)
    over_seeds = 4.30265 * statistics.stdev([0.0, 2.0, 4.0]) / math.sqrt(3)
    assert difference.mean == pytest.approx(2.5)
    assert difference.ci95 == pytest.approx(math.hypot(over_tables, over_seeds), rel=1e-3)
