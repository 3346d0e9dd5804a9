"""The rows of a comparison as markdown, CSV or JSON."""

import csv
import io
from collections.abc import Iterable, Sequence

from pydantic import JsonValue

from metarun.results import experiment
from metarun.results.compare import Row
from metarun.results.experiment import keys_of, spell_rows, spell_value
from metarun.results.notes import notes
from metarun.results.runs import LeftOut, find_evaluations
from metarun.storage.records import Clusters, Metric, Published, Record
from metarun.text import format_alike, format_metric, spell_plain

CSV = (
    *("algorithm", "source"),
    *("metric", "mean", "ci95_tasks", "ci95_seeds", "validation", "model_validation", "tasks", "seeds", "shots"),
    *("published", "published_ci95", "paper", "verdict", "difference_to_published"),
    *("chosen_by", "difference_to_best", "difference_ci95", "runs"),
)
LEGEND = {
    "shots": "in the test.",
    "trained with": "settings of training that their tests have other values of.",
    "val": "best validation, by which the checkpoint was chosen; in brackets that of the run that is evaluated.",
    "± tasks": "95% interval over test tasks, for these trained models.",
    "± seeds": "95% interval over seeds of training (Student's t), by which test tasks go too, and the classes or "
    "tables that tasks share.",
    "verdict": "where the mean lies to the published interval (to ours, where none is published).",
    "to the best": "difference to the best by validation among the rows tested on the same tasks, paired, with its 95% "
    "interval over seeds (Student's t) and the classes or tables that tasks share, of one seed over tasks; a row "
    "without tasks that all of those have is apart.",
}


class TableRow(Record):
    """A configuration: its runs, one for each seed, and their mean. Accuracies are shares of 1."""

    number: int  # of the row, from 1
    keys: dict[str, JsonValue]  # what tells it apart
    algorithm: str  # what the field calls it; '' in runs of earlier versions
    source: str  # the name of the source of the test tasks; '' in runs of earlier versions
    metric: Metric
    mean: float  # of the test, over seeds
    validation: float | None  # the best, mean over seeds; None for an evaluation
    model_validation: float | None  # the same of the models: for an evaluation that of the runs that it tests
    ci95_tasks: float  # half the width of the 95% interval of the mean, over test tasks
    ci95_seeds: float | None  # the same over seeds; None with one seed
    tasks: int  # of the test of one seed
    clusters: Clusters | None  # what test tasks share
    seeds: list[int]
    shots: int | None  # in the test; None in runs of earlier versions
    budget: float
    by_step: dict[int, tuple[float, float]]  # mean and ci95_tasks after those inner steps that a paper reports
    published: Published | None
    verdict: str | None  # inside, above or below
    difference_to_published: float | None
    intervals_meet: bool | None
    compared_with: list[int] | None  # numbers of all rows on the same tasks, with its own; None where it is alone
    chosen_by: str | None  # validation or test: how the best of those was chosen
    best_on_its_tasks: bool | None
    difference_to_best: float | None  # None for the best
    difference_ci95: float | None  # over seeds, where there are several, and what tasks share; else over tasks
    runs: list[str]  # their folders


class Left(Record):
    """A folder that cannot be used, and why."""

    path: str
    reason: str


class Table(Record):
    """What `metarun table format=json` prints."""

    title: str  # what all rows have in common
    settings: dict[str, str]  # the effective settings that all rows have, in words
    dates: str  # when the runs ended: '2026-03-01', or '2026-03-01 to 2026-03-04'; '' where it is not known
    rows: list[TableRow]
    notes: list[str]  # what a reader has to know of the differences, in words
    left_out: list[Left]


def format_table(rows: Sequence[Row], left_out: Sequence[LeftOut], kind: str) -> str:
    """The rows as `markdown`, as `json`, or as `csv`, which has no place for what was left out."""
    if kind == "csv":
        return as_csv(rows).rstrip("\n")
    return as_json(rows, left_out) if kind == "json" else as_markdown(rows, left_out)


def count_evaluations(rows: Sequence[Row]) -> int:
    """How many evaluations the runs of these rows have that are in no row."""
    found = {run.rundir.path for row in rows for run in row.runs}
    return sum(path not in found for run in list(found) for path in find_evaluations(run))


def as_json(rows: Sequence[Row], left_out: Sequence[LeftOut]) -> str:
    """Everything, in numbers: accuracies are shares of 1. See Table."""
    table = Table(
        title=experiment.title(rows),
        settings=experiment.common_settings(rows),
        dates=experiment.describe_dates(rows),
        rows=[record_row(row) for row in rows],
        notes=[note for group in _by_metric(rows) for note in notes(group)],
        left_out=[Left(path=folder.path, reason=folder.reason) for folder in left_out],
    )
    return table.to_document()


def record_row(row: Row) -> TableRow:
    """The row in numbers."""
    behind = None if row.to_best is None or row.to_best.best else row.to_best
    first = row.runs[0]
    return TableRow(
        number=row.number,
        keys=row.keys,
        algorithm=first.summary.algorithm,
        source=first.summary.source.name if first.summary.source else "",
        metric=row.metric,
        mean=row.mean,
        validation=row.validation,
        model_validation=row.model_validation,
        ci95_tasks=row.ci95_tasks,
        ci95_seeds=row.ci95_seeds,
        tasks=first.summary.test.tasks,
        clusters=first.summary.test.clusters,
        seeds=[run.trained.seed for run in row.runs],
        shots=first.summary.source.shots if first.summary.source else None,
        budget=float(first.config.budget),
        by_step=row.by_step,
        published=row.published,
        verdict=row.verdict and row.verdict.where,
        difference_to_published=row.verdict and row.verdict.away,
        intervals_meet=row.verdict and row.verdict.meet,
        compared_with=row.contest and list(row.contest.rows),
        chosen_by=row.contest and row.contest.by,
        best_on_its_tasks=row.to_best and row.to_best.best,
        difference_to_best=behind and behind.mean,
        difference_ci95=behind and behind.ci95,
        runs=[str(run.rundir.short) for run in row.runs],
    )


def as_csv(rows: Sequence[Row]) -> str:
    """A line for each row; accuracies are shares of 1, and a missing value is empty."""
    keys, out = keys_of(rows), io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["number", *keys, *CSV])
    for row in rows:
        values, published = record_row(row).model_dump(), row.published
        values |= {"seeds": len(row.runs), "runs": ";".join(values["runs"]), "paper": published and published.paper}
        values |= {"published": published and published.mean, "published_ci95": published and published.ci95}
        cells = [spell_plain(row.keys.get(key, "")) for key in keys]
        writer.writerow([row.number, *cells, *(values[name] for name in CSV)])
    return out.getvalue()


def as_markdown(rows: Sequence[Row], left_out: Sequence[LeftOut]) -> str:
    """A table for each metric, in people's units, with its experiment and what columns mean; and what was left out."""
    parts = []
    for group in _by_metric(rows):
        found, lines = columns(group), []
        above, found["folder"] = experiment.folders(group)
        for line in (found, *zip(*found.values(), strict=True)):
            lines.append("| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in line) + " |")
        lines.insert(1, "|" + "---|" * len(found))
        settings = "; ".join(f"{name}: {text}" for name, text in experiment.common_settings(group).items())
        where = f"Runs in {above}" + (f", {dates}" if (dates := experiment.describe_dates(group)) else "")
        parts += [f"**{experiment.title(group)}**", f"{settings}. {where}." if settings else f"{where}."]
        parts += ["\n".join(lines), legend(found), *notes(group)]
    if left_out:
        parts.append("Left out:\n\n" + "\n".join(f"- {folder.path}: {folder.reason}" for folder in left_out))
    return "\n\n".join(" ".join(part.split("\n")) if part.startswith("**") else part for part in parts)


def _by_metric(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each metric."""
    return [[row for row in rows if row.metric == metric] for metric in dict.fromkeys(row.metric for row in rows)]


def columns(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Rows of one metric for people: the headings, each with the cells beneath it. Empty columns are left out."""
    metric, keys = rows[0].metric, keys_of(rows)
    found = {"row": [str(row.number) for row in rows]}
    headings = {"data.eval_shots": "shots"} if "data.shots" not in keys else {}
    found |= {headings.get(key, key): [spell_value(row.keys.get(key, "")) for row in rows] for key in keys}
    written = [_write_numbers(row) for row in rows]
    names = ("val", metric + (" (%)" if metric == "accuracy" else ""), "± tasks", "± seeds")
    found |= {name: list(cells) for name, cells in zip(names, zip(*written, strict=True), strict=True)}
    found |= {
        "tasks": [str(row.runs[0].summary.test.tasks) for row in rows],
        "seeds": [str(len(row.runs)) for row in rows],
    }
    for step in dict.fromkeys(step for row in rows for step in row.by_step):
        found[f"after {step}"] = [_after(row, step) for row in rows]
    found |= {"published": [_published(row) for row in rows], "verdict": [_verdict(row) for row in rows]}
    found |= {"to the best": [_difference(row, len(rows)) for row in rows]}
    found |= {"paper": [row.published.paper if row.published else "" for row in rows]}
    return {name: cells for name, cells in found.items() if any(cells)}


def legend(columns: Iterable[str]) -> str:
    """What these headings mean."""
    after = ", ".join(name for name in columns if name.startswith("after "))
    words = [f"{after}: after that many inner steps (published)."] if after else []
    return " ".join([*words, *(f"{name}: {text}" for name, text in LEGEND.items() if name in columns)])


def _write_numbers(row: Row) -> list[str]:
    """Validation, mean and intervals, these with the decimals of the interval over tasks; '' for what there is not.

    An interval over seeds that is narrower has its own: it would be 0 or have one digit.
    """
    validation = "" if row.model_validation is None else _write_validation(row.metric, row.model_validation)
    validation = f"({validation})" if validation and row.validation is None else validation
    written = format_alike(row.metric, [row.mean, row.ci95_tasks], row.ci95_tasks)
    if row.ci95_seeds is None:
        return [validation, *written, ""]
    if row.ci95_seeds < row.ci95_tasks:
        return [validation, *written, *format_alike(row.metric, [row.ci95_seeds], row.ci95_seeds)]
    return [validation, *format_alike(row.metric, [row.mean, row.ci95_tasks, row.ci95_seeds], row.ci95_tasks)]


def _write_validation(metric: Metric, value: float) -> str:
    """A mean without an interval, in four digits of which all are written, so that a column can be compared."""
    return f"{100 * value:.1f}" if metric == "accuracy" else f"{value:#.4g}".removesuffix(".")


def _published(row: Row) -> str:
    if not row.published:
        return ""
    mean, ci95 = row.published.mean, row.published.ci95
    if row.metric != "accuracy":
        return format_metric(row.metric, mean, ci95)
    shares = [mean] if ci95 is None else [mean, ci95]
    digits = 1 if all(round(share, 3) == share for share in shares) else 2  # as many as the paper has
    return " ± ".join(f"{100 * share:.{digits}f}" for share in shares) + " %"


def _verdict(row: Row) -> str:
    if row.verdict is None or row.verdict.where == "inside":
        return "inside" if row.verdict else ""
    away = abs(row.verdict.away)
    (far,) = format_alike(row.metric, [away], min(away, row.ci95_tasks))
    return f"{row.verdict.where} by {far}" + (", intervals meet" if row.verdict.meet else "")


def _after(row: Row, step: int) -> str:
    if not row.published or step not in row.by_step:
        return ""
    theirs = format_metric(row.metric, row.published.by_step[step]).removesuffix(" %")
    return f"{format_metric(row.metric, *row.by_step[step])} ({theirs})"


def _difference(row: Row, number: int) -> str:
    """The cell of a table of so many rows. The best is named with the rows that it is the best of, unless all are."""
    if row.to_best is None:
        return ""
    if row.to_best.best:
        contest = row.contest
        best = "best in test" if contest and contest.by == "test" else "best"
        return f"{best} of {spell_rows(contest.rows)}" if contest and len(contest.rows) < number else best
    if row.to_best.equal:
        return "equal on every task"
    sign = "−" if row.to_best.mean < 0 else "+"
    size = format_metric(row.metric, abs(row.to_best.mean), row.to_best.ci95)
    return f"{sign}{size.removesuffix(' %')}"
