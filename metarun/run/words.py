"""A summary's facts in words: the title of a run, its settings, its closing words. Imports no torch."""

from collections.abc import Sequence

from metarun.storage.records import Clusters, EarlierTest, Inner, Position, Source, Summary, Training
from metarun.text import count_of, format_duration, format_metric


def name_source(source: Source) -> str:
    """The task source in short, such as 'omniglot 5-way 1-shot'."""
    kind, regression = (f" {source.ways}-way", "") if source.ways is not None else ("", " regression")
    return f"{source.name}{kind} {source.shots}-shot{regression}"


def describe_source(source: Source) -> str:
    """The task source, such as 'omniglot 5-way 1-shot (queries: 1)'."""
    notes = [f"queries: {source.queries}"]
    trained = [f"ways: {source.train_ways}"] if source.train_ways is not None else []
    if (source.train_shots, source.train_queries) != (source.shots, source.queries):
        trained += [f"shots: {source.train_shots}", f"queries: {source.train_queries}"]
    if source.train_tasks is not None:
        trained.append(f"tasks: {source.train_tasks}")
    notes += [f"trained with {', '.join(trained)}"] if trained else []
    notes += [f"{_spell_name(name)}: {value}" for name, value in source.more.items()]
    return f"{name_source(source)} ({', '.join(notes)})"


def describe_inner(inner: Inner) -> str:
    """The inner loop, such as 'SGD, rate 0.4, steps: 1 in training, 3 in test'."""
    if not inner.steps and not inner.eval_steps:
        return "none"
    verb = "from" if inner.rule == "learned rates" else "rate"
    rate = f", {verb} {inner.lr:g}" if inner.lr is not None else ""
    if inner.lr_on_mean is not None:
        rate += f" per shot, that is {inner.lr_on_mean:g} on the mean support loss"
    return f"{inner.rule}{rate}, steps: {inner.steps} in training, {inner.eval_steps} in test"


def describe_training(training: Training) -> str:
    """How long a run trained, such as '6000 outer steps of 32 tasks (budget 0.1 of 60000)'."""
    if not training.trains:
        return "without meta-training"
    done, total = training.steps, training.outer_steps
    steps = count_of(total, "outer step") if done == total else f"{done} of {count_of(total, 'outer step')}"
    share = f" (budget {training.budget:g} of {training.meta_steps})" if training.budget < 1 else ""
    return f"{steps} of {count_of(training.meta_batch, 'task')}{share}"


def describe_position(position: Position) -> str:
    """How a running process stands, such as 'loss 1.234, val accuracy 45.1 %, 3 min 20 s left'; '' before its start."""
    parts = [f"loss {position.loss:.4g}"] if position.loss is not None else []
    if position.metric is not None and position.validation is not None:
        parts.append(f"val {position.metric} {format_metric(position.metric, position.validation)}")
    if position.seconds_left is not None:
        parts.append(f"{format_duration(position.seconds_left)} left")
    return ", ".join(parts)


def describe_clusters(clusters: Clusters) -> str:
    """How many classes or tables the tasks of a test are made of, such as '423 classes, 5 in each task'."""
    noun = clusters.kind if clusters.number > 1 else clusters.kind.removesuffix("s")
    if clusters.number == clusters.in_task:
        return f"{clusters.number} {noun}, in every task: the interval says nothing of other {clusters.kind}"
    return f"{clusters.number} {noun}" + (f", {clusters.in_task} in each task" if clusters.in_task > 1 else "")


def name_of(summary: Summary) -> str:
    """The algorithm and its task source, without how long it trained."""
    if summary.source is None:
        return (summary.title or "").rpartition(", ")[0]  # of a summary from before there were facts
    return f"{summary.algorithm} on {describe_source(summary.source)}"


def title(summary: Summary) -> str:
    """What ran, on what, and how long."""
    if summary.training is None:
        return summary.title or ""
    trained = summary.trained.source if summary.trained and summary.trained.other_data else None
    on = f"trained on {trained.name} for " if trained else ""
    return f"{name_of(summary)}, {on}{describe_training(summary.training)}"


def settings(summary: Summary) -> dict[str, str]:
    """The effective settings that a reader of the result has to know, in words by name."""
    if summary.training is None:
        return (summary.settings or {}) | _describe_earlier(summary)
    found = {}
    if learner := summary.learner:
        form = f" with {learner.form}" if learner.form else ""
        found["learner"] = f"{learner.name}{form}, {summary.parameters:,} meta-parameters"
    if summary.inner:
        found["inner loop"] = describe_inner(summary.inner)
    found |= {_spell_name(name): words for name, words in summary.details.items()}
    if learner and learner.norm != "none":
        found["batch norm"] = f"{learner.norm} statistics"
    if trained := summary.trained:
        if trained.source:
            found["trained on"] = describe_source(trained.source)
        other = [describe_inner(trained.inner)] if trained.inner else []
        other += [f"{_spell_name(name)} {words}" for name, words in trained.details.items()]
        other += [f"{trained.norm} statistics in batch norm"] if trained.norm else []
        found |= {"trained with": "; ".join(other)} if other else {}
    if summary.checkpoint:
        found["checkpoint"] = _describe_checkpoint(summary)
    return found | _describe_earlier(summary)


def _spell_name(name: str) -> str:
    """The name of a detail for people, such as 'meta-gradient' for meta_gradient."""
    return name.replace("meta_", "meta-").replace("_", " ")


def _describe_earlier(summary: Summary) -> dict[str, str]:
    """The tests at earlier ends of a run that was extended; {} where there were none."""
    return {"tested before": describe_tests(summary.metric, summary.earlier)} if summary.earlier else {}


def describe_tests(metric: str, tests: Sequence[EarlierTest]) -> str:
    """The tests at earlier ends of a run."""
    results = [f"{format_metric(metric, t.mean, t.ci95)} after {t.outer_steps} outer steps" for t in tests]
    return f"{', '.join(results)} (on the same tasks)"


def _describe_checkpoint(summary: Summary) -> str:
    assert summary.checkpoint is not None
    where = f"outer step {summary.checkpoint.step}"
    if summary.checkpoint.run is not None:
        return f"{where} of {summary.checkpoint.run}"
    best = summary.validation
    by = f", best by validation: {summary.metric} {format_metric(summary.metric, best.mean)}" if best else ""
    return f"{where}{f' of {summary.steps}' if summary.steps else ''}{by}"


def closing_words(summary: Summary, more: dict[str, str]) -> str:
    """The closing words of a run or an evaluation: what ran, the result, what it depends on, where it is.

    Args:
        summary: of the run.
        more: further lines by name, such as files.
    """
    metric, test = summary.metric, summary.test
    last = len(test.by_step) - 1
    some = [k for k in range(last + 1) if last <= 12 or k in (1, 2, 5) or k % 10 == 0 or k == last]
    steps = "  ".join(f"{k}: {format_metric(metric, test.by_step[k].mean)}" for k in some)
    result = f"{metric} {format_metric(metric, test.mean, test.ci95)} (mean and 95% interval over {test.tasks} tasks)"
    lines = {"test": result}
    if test.clusters:
        lines["independent"] = describe_clusters(test.clusters)
    if last:
        lines["by step"] = f"{steps} (after that many inner steps)"
    lines |= settings(summary) | more
    return "\n".join(["", title(summary), *(f"{name:<13} {text}" for name, text in lines.items())])
