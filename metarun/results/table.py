"""The rows of a comparison as markdown, CSV or JSON."""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from metarun.errors import UsageError
from metarun.results.compare import Row
from metarun.results.runs import LeftOut
from metarun.text import format_metric as shown
from metarun.text import nearest


def formatted(rows: list[Row], left_out: list[LeftOut], kind: str) -> str:
    """The rows as `markdown`, `csv` (which has no place for what was left out) or `json`.

    Raises:
        UsageError: another kind.
    """
    if kind == "csv":
        return as_csv(rows).rstrip("\n")
    if kind == "json":
        return as_json(rows, left_out)
    if kind == "markdown":
        return as_markdown(rows, left_out)
    kinds = ["markdown", "csv", "json"]
    raise UsageError(f"{kind!r} (format): expected one of {', '.join(kinds)}{nearest(kind, kinds)}")


def as_json(rows: list[Row], left_out: list[LeftOut]) -> str:
    """Everything, in numbers: accuracies are shares of 1."""
    return json.dumps({"rows": [_values(row) for row in rows], "left_out": [asdict(one) for one in left_out]}, indent=2)


def _values(row: Row) -> dict[str, Any]:
    difference, interval = row.difference or (None, None)
    return {
        "keys": row.keys,
        "metric": row.metric,
        "mean": row.mean,
        "validation": row.validation,
        "ci95_tasks": row.ci95_tasks,
        "ci95_seeds": row.ci95_seeds,
        "tasks": row.tasks,
        "seeds": [run.trained.seed for run in row.runs],
        "budget": row.runs[0].config.budget,
        "by_step": {step: list(pair) for step, pair in row.by_step.items()},
        "published": row.published,
        "verdict": row.verdict and row.verdict.where,
        "difference_to_published": row.verdict and row.verdict.away,
        "intervals_meet": row.verdict and row.verdict.meet,
        "best_on_its_tasks": row.best,
        "difference_to_best": difference,
        "difference_ci95": interval,
        "runs": [str(run.rundir.short) for run in row.runs],
    }


def as_csv(rows: list[Row]) -> str:
    """One line for each row; accuracies are shares of 1, and what there is none of is empty."""
    keys = keys_of(rows)
    single = ("metric", "mean", "ci95_tasks", "ci95_seeds", "validation", "tasks")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [
        *single,
        "seeds",
        "published",
        "published_ci95",
        "paper",
        "verdict",
        "difference_to_published",
        "difference_to_best",
        "difference_ci95",
        "runs",
    ]
    writer.writerow([*keys, *names])
    for row in rows:
        values, published = _values(row), row.published or {}
        writer.writerow(
            [
                *(cell(row.keys.get(key, "")) for key in keys),
                *(values[name] for name in single),
                *(len(row.runs), published.get("mean"), published.get("ci95"), published.get("paper")),
                *(values[name] for name in ("verdict", "difference_to_published")),
                *(values["difference_to_best"], values["difference_ci95"], ";".join(values["runs"])),
            ]
        )
    return out.getvalue()


def as_markdown(rows: list[Row], left_out: list[LeftOut]) -> str:
    """A table for each metric, in people's units, with what each column means; and what was left out."""
    parts = [
        _markdown([row for row in rows if row.metric == metric]) for metric in dict.fromkeys(r.metric for r in rows)
    ]
    if left_out:
        parts.append("Left out:\n\n" + "\n".join(f"- {one.path}: {one.reason}" for one in left_out))
    return "\n\n".join(parts)


def _markdown(rows: list[Row]) -> str:
    found = columns(rows)
    lines = ["| " + " | ".join(map(_bars, line)) + " |" for line in (found, *zip(*found.values(), strict=True))]
    lines.insert(1, "|" + "---|" * len(found))
    return "\n".join(lines) + "\n\n" + " ".join(legend(found))


def _bars(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def columns(rows: list[Row]) -> dict[str, list[str]]:
    """Rows of one metric for people: the headings, each with the cells beneath it."""
    metric, keys = rows[0].metric, keys_of(rows)
    steps = list(dict.fromkeys(step for row in rows for step in row.by_step))
    unit = " (%)" if metric == "accuracy" else ""
    found = {key: [_short(row.keys.get(key, "")) for row in rows] for key in keys}
    found |= {} if any(map(any, found.values())) else {"run": [_runs(row) for row in rows]}
    found |= {f"{metric}{unit}": [_number(metric, row.mean) for row in rows]}
    found |= {"± tasks": [_number(metric, row.ci95_tasks, 1) for row in rows]}
    found |= {"± seeds": ["" if row.ci95_seeds is None else _number(metric, row.ci95_seeds, 1) for row in rows]}
    found |= {"tasks": [str(row.tasks) for row in rows], "seeds": [str(len(row.runs)) for row in rows]}
    for step in steps:
        found[f"after {step}"] = [_after(row, step) for row in rows]
    found |= {"published": [_published(row) for row in rows], "verdict": [_verdict(row) for row in rows]}
    found |= {"to the best": [_difference(row) for row in rows]}
    found |= {"paper": [(row.published or {}).get("paper", "") for row in rows]}
    return {name: cells for name, cells in found.items() if any(cells)}


def legend(columns: Iterable[str]) -> list[str]:
    """What these headings mean."""
    words = {
        "± tasks": "± tasks: 95% interval over test tasks, for these trained models.",
        "± seeds": "± seeds: 95% interval over seeds of training (Student's t), by which test tasks go too.",
        "verdict": "verdict: where the mean lies to the published interval (to ours, where none is published).",
        "to the best": "to the best: difference to the best row that was tested on the very same tasks, task by task "
        "(of the seeds that all of them have), with its 95% interval.",
    }
    after = [name for name in columns if name.startswith("after ")]
    said = [f"{', '.join(after)}: after that many inner steps (published)."] if after else []
    return said + [text for name, text in words.items() if name in columns]


def _runs(row: Row) -> str:
    more = f" and {len(row.runs) - 1} more" if len(row.runs) > 1 else ""
    return f"{row.runs[0].rundir.short}{more}"


def keys_of(rows: list[Row]) -> list[str]:
    """The keys of a config that tell rows apart."""
    return list(dict.fromkeys(key for row in rows for key in row.keys))


def cell(value: Any) -> str:
    """A value of a config as one types it."""
    return value if isinstance(value, str) else json.dumps(value)


def _short(value: Any) -> str:
    """The same, with six digits of a number."""
    return f"{value:.6g}" if isinstance(value, float) else cell(value)


def _number(metric: str, value: float, digits: int = 0) -> str:
    """A mean, or with `digits` an interval, without its unit."""
    if metric == "accuracy":
        return f"{100 * value:.{2 if digits and 100 * value < 0.1 else 1}f}"
    return f"{value:.{2 if digits else 4}g}"


def _published(row: Row) -> str:
    if not row.published:
        return ""
    mean, ci95 = row.published["mean"], row.published.get("ci95")
    if row.metric != "accuracy":
        return shown(row.metric, mean, ci95)
    shares = [mean] if ci95 is None else [mean, ci95]
    digits = 1 if all(round(share, 3) == share for share in shares) else 2  # as many as the paper has
    return " ± ".join(f"{100 * share:.{digits}f}" for share in shares) + " %"


def _verdict(row: Row) -> str:
    if row.verdict is None or row.verdict.where == "inside":
        return "inside" if row.verdict else ""
    far = _number(row.metric, abs(row.verdict.away), 1)
    return f"{row.verdict.where} by {far}" + (", intervals meet" if row.verdict.meet else "")


def _after(row: Row, step: int) -> str:
    if step not in row.by_step or row.published is None:
        return ""
    mean, ci95 = row.by_step[step]
    published = row.published["by_step"][step]
    return f"{shown(row.metric, mean, ci95)} ({_number(row.metric, published)})"


def _difference(row: Row) -> str:
    if row.best:
        return "best"
    if row.difference is None:
        return ""
    mean, ci95 = row.difference
    sign = "−" if mean < 0 else "+"
    return f"{sign}{_number(row.metric, abs(mean))} ± {_number(row.metric, ci95, 1)}"
