"""What the sentences below a table say: how its best rows were chosen, and what the differences leave out."""

from collections.abc import Mapping, Sequence

from metarun.results.compare import Row
from metarun.results.differences import Contest
from metarun.results.experiment import spell_rows
from metarun.text import count_of, format_alike

FEW_SEEDS = 2


def notes(rows: Sequence[Row]) -> list[str]:
    """A sentence for each thing that a reader of these rows has to know, for rows of one metric."""
    contests: dict[tuple[int, ...], Contest] = {}
    for row in rows:
        if row.contest:
            contests.setdefault(row.contest.rows, row.contest)
    found = []
    for contest in contests.values():
        found += [_describe_choice(contest, rows)] if contest.by == "test" else _describe_doubt(contest, rows)
        found += _describe_choosing(contest, rows)
        found += _describe_tasks(contest, rows)
        found += _describe_other_seeds(contest, rows)
    found += _describe_seeds(list(contests.values()))
    return found


def _describe_choice(contest: Contest, rows: Sequence[Row]) -> str:
    return (
        f"Validation does not tell {_name(contest, rows)} apart, so that differences are to the one that is best in "
        "the test itself, which flatters it: no other test confirms it."
    )


def _describe_doubt(contest: Contest, rows: Sequence[Row]) -> list[str]:
    """Where the test would choose another row than validation does."""
    if contest.best_in_test == contest.best:
        return []
    means = [contest.means[number] for number in (contest.best_in_test, contest.best)]
    theirs, ours = format_alike(rows[0].metric, means, abs(means[0] - means[1]))
    of = "" if len(contest.rows) == len(rows) else f" of {spell_rows(contest.rows)}"
    return [
        f"Validation chooses row {contest.best}{of}; the test would choose row {contest.best_in_test} ({theirs} "
        f"against {ours}), but the best of several tests is no test."
    ]


def _describe_choosing(contest: Contest, rows: Sequence[Row]) -> list[str]:
    """Where the best is chosen over fewer seeds than the columns are means over."""
    if not contest.chosen_over:
        return []
    seeds = f"seed{'s' if contest.chosen_over[1:] else ''} {', '.join(map(str, contest.chosen_over))}"
    of = "" if len(contest.rows) == len(rows) else f" of {spell_rows(contest.rows)}"
    return [
        f"The best{of} is chosen over {seeds} alone, which all these rows have; val and the metric are means over all "
        "seeds of a row."
    ]


def _describe_tasks(contest: Contest, rows: Sequence[Row]) -> list[str]:
    """Where a row or the best has more tasks than those that it is compared on."""
    has = {row.number: min(len(run.each) for run in row.runs) for row in rows if row.number in contest.rows}
    return [
        f"The difference of {'row' if len(found) == 1 else 'rows'} {spell_rows(found)} is over the first {tasks} test "
        "tasks of each seed, those that the best has too."
        for tasks, found in _group_by_shared(contest.tasks, has, contest.best).items()
    ]


def _describe_other_seeds(contest: Contest, rows: Sequence[Row]) -> list[str]:
    """Where a row or the best has more seeds than those that it is compared over."""
    has = {row.number: len(row.runs) for row in rows if row.number in contest.rows}
    return [
        f"The difference of {'row' if len(found) == 1 else 'rows'} {spell_rows(found)} is over the "
        f"{count_of(seeds, 'seed')} that the best has too."
        if seeds
        else f"{'Row' if len(found) == 1 else 'Rows'} {spell_rows(found)} and the best have no seed in common."
        for seeds, found in _group_by_shared(contest.seeds, has, contest.best).items()
    ]


def _group_by_shared(shared: Mapping[int, int], has: Mapping[int, int], best: int) -> dict[int, list[int]]:
    """By how many they share with the best, the numbers of the rows that have more than that, or whose best has."""
    fewer: dict[int, list[int]] = {}
    for number, count in shared.items():
        if count < max(has[number], has[best]):
            fewer.setdefault(count, []).append(number)
    return fewer


def _describe_seeds(contests: Sequence[Contest]) -> list[str]:
    """What the intervals of the differences leave out."""
    found = []
    seeds = {number for contest in contests for number in contest.seeds.values()}
    if 1 in seeds:
        found.append(
            "With one seed, the interval of a difference is over test tasks, for these trained models: it leaves out "
            "that training again, with another seed, gives other models (seed=0,1,2,3,4)."
        )
    if FEW_SEEDS in seeds:
        found.append("Two seeds are few: an interval over them is some seven times as wide as over five.")
    if any(max(contest.seeds.values()) > 1 and contest.shared for contest in contests):
        found.append(
            "All seeds were tested on the same tasks: an interval over seeds says nothing of other tasks, but for the "
            "classes or tables that these share."
        )
    return found


def _name(contest: Contest, rows: Sequence[Row]) -> str:
    return "the rows" if len(contest.rows) == len(rows) else f"rows {spell_rows(contest.rows)}"
