"""The rows of a comparison as markdown, CSV or JSON."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from metarun.results.compare import Row
from metarun.results.runs import LeftOut
from metarun.storage.records import Metric
from metarun.text import format_alike, format_metric

CSV = (
    *("metric", "mean", "ci95_tasks", "ci95_seeds", "validation", "tasks", "seeds", "published", "published_ci95"),
    *("paper", "verdict", "difference_to_published", "difference_to_best", "difference_ci95", "runs"),
)
LEGEND = {
    "± tasks": "95% interval over test tasks, for these trained models.",
    "± seeds": "95% interval over seeds of training (Student's t), by which test tasks go too.",
    "verdict": "where the mean lies to the published interval (to ours, where none is published).",
    "to the best": "difference to the best of the rows whose seeds were all tested on the very same tasks, task by "
    "task, with its 95% interval; rows tested on other tasks have a best of their own.",
}


def format_table(rows: Sequence[Row], left_out: Sequence[LeftOut], kind: str) -> str:
    """The rows as `markdown`, as `json`, or as `csv`, which has no place for what was left out."""
    if kind == "csv":
        return as_csv(rows).rstrip("\n")
    return as_json(rows, left_out) if kind == "json" else as_markdown(rows, left_out)


def as_json(rows: Sequence[Row], left_out: Sequence[LeftOut]) -> str:
    """Everything, in numbers: accuracies are shares of 1."""
    content = {"rows": [_values(row) for row in rows], "left_out": [asdict(folder) for folder in left_out]}
    return json.dumps(content, indent=2)


def _values(row: Row) -> dict[str, Any]:
    behind = None if row.to_best is None or row.to_best.best else row.to_best
    return {
        **{name: getattr(row, name) for name in ("keys", "metric", "mean", "validation", "ci95_tasks", "ci95_seeds")},
        "tasks": row.runs[0].summary.test.tasks,
        "clusters": (clusters := row.runs[0].summary.test.clusters) and clusters.plain(),
        "seeds": [run.trained.seed for run in row.runs],
        "budget": row.runs[0].config.budget,
        "by_step": row.by_step,
        "published": row.published and row.published.plain(),
        "verdict": row.verdict and row.verdict.where,
        "difference_to_published": row.verdict and row.verdict.away,
        "intervals_meet": row.verdict and row.verdict.meet,
        "best_on_its_tasks": row.to_best and row.to_best.best,
        "difference_to_best": behind and behind.mean,
        "difference_ci95": behind and behind.ci95,
        "runs": [str(run.rundir.short) for run in row.runs],
    }


def as_csv(rows: Sequence[Row]) -> str:
    """A line for each row; accuracies are shares of 1, and a missing value is empty."""
    keys, out = keys_of(rows), io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*keys, *CSV])
    for row in rows:
        values = _values(row)
        published = values["published"] or {}
        values |= {"seeds": len(row.runs), "runs": ";".join(values["runs"]), "paper": published.get("paper")}
        values |= {"published": published.get("mean"), "published_ci95": published.get("ci95")}
        writer.writerow([*(cell(row.keys.get(key, "")) for key in keys), *(values[name] for name in CSV)])
    return out.getvalue()


def as_markdown(rows: Sequence[Row], left_out: Sequence[LeftOut]) -> str:
    """A table for each metric, in people's units, with what each column means; and what was left out."""
    parts = []
    for metric in dict.fromkeys(row.metric for row in rows):
        found, lines = columns([row for row in rows if row.metric == metric]), []
        for line in (found, *zip(*found.values(), strict=True)):
            lines.append("| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in line) + " |")
        lines.insert(1, "|" + "---|" * len(found))
        parts += ["\n".join(lines), legend(found)]
    if left_out:
        parts.append("Left out:\n\n" + "\n".join(f"- {folder.path}: {folder.reason}" for folder in left_out))
    return "\n\n".join(parts)


def columns(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Rows of one metric for people: the headings, each with the cells beneath it. Empty columns are left out."""
    metric, keys = rows[0].metric, keys_of(rows)
    found = {key: [_short(row.keys.get(key, "")) for row in rows] for key in keys}
    if not any(map(any, found.values())):
        more = [f" and {len(row.runs) - 1} more" if len(row.runs) > 1 else "" for row in rows]
        found["run"] = [f"{row.runs[0].rundir.short}{words}" for row, words in zip(rows, more, strict=True)]
    numbers = [(row.mean, row.ci95_tasks, row.ci95_seeds) for row in rows]
    written = [format_optional(metric, values, values[1]) for values in numbers]
    names = (metric + (" (%)" if metric == "accuracy" else ""), "± tasks", "± seeds")
    found |= {name: list(cells) for name, cells in zip(names, zip(*written, strict=True), strict=True)}
    found |= {
        "tasks": [str(row.runs[0].summary.test.tasks) for row in rows],
        "seeds": [str(len(row.runs)) for row in rows],
    }
    for step in dict.fromkeys(step for row in rows for step in row.by_step):
        found[f"after {step}"] = [_after(row, step) for row in rows]
    found |= {"published": [_published(row) for row in rows], "verdict": [_verdict(row) for row in rows]}
    found |= {"to the best": [_difference(row) for row in rows]}
    found |= {"paper": [row.published.paper if row.published else "" for row in rows]}
    return {name: cells for name, cells in found.items() if any(cells)}


def legend(columns: Iterable[str]) -> str:
    """What these headings mean."""
    after = ", ".join(name for name in columns if name.startswith("after "))
    words = [f"{after}: after that many inner steps (published)."] if after else []
    return " ".join([*words, *(f"{name}: {text}" for name, text in LEGEND.items() if name in columns)])


def keys_of(rows: Sequence[Row]) -> list[str]:
    """The keys of a config that tell rows apart."""
    return list(dict.fromkeys(key for row in rows for key in row.keys))


def cell(value: Any) -> str:
    """A value of a config as one types it."""
    return value if isinstance(value, str) else json.dumps(value)


def _short(value: Any) -> str:
    """The same, with six digits of a number."""
    return f"{value:.6g}" if isinstance(value, float) else cell(value)


def format_optional(metric: Metric, values: Sequence[float | None], ci95: float) -> list[str]:
    """See format_alike(); '' for a value that there is not."""
    written = iter(format_alike(metric, [value for value in values if value is not None], ci95))
    return ["" if value is None else next(written) for value in values]


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


def _difference(row: Row) -> str:
    if row.to_best is None or row.to_best.best:
        return "best" if row.to_best else ""
    if row.to_best.mean == row.to_best.ci95 == 0:
        return "equal on every task"
    sign = "−" if row.to_best.mean < 0 else "+"
    size = format_metric(row.metric, abs(row.to_best.mean), row.to_best.ci95)
    return f"{sign}{size.removesuffix(' %')}"
