"""What a report is made of: its rows with their names and colours, and its sections of a table and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from metarun.results import figures
from metarun.results.compare import Row
from metarun.results.figures import Picture, Series
from metarun.results.runs import Run
from metarun.storage.metrics import Event
from metarun.storage.records import Metric

MOST_DRAWN = 20  # rows in a picture


@dataclass(frozen=True)
class Entry:
    """A row of the table with its name and a short one, the events of its runs, its colour; None: it is not drawn."""

    row: Row
    name: str
    short: str
    number: int | None
    events: list[list[Event]]

    @property
    def label(self) -> str:
        """Its number and its short name."""
        return f"{self.row.number} {self.short}"

    @property
    def color(self) -> int:
        """The number of its colour, of an entry that is drawn."""
        assert self.number is not None
        return self.number

    def name_run(self, run: Run) -> str:
        """The name of a run of this row."""
        return f"{self.name}, seed {run.trained.seed}" if len(self.row.runs) > 1 else self.name


@dataclass(frozen=True)
class Table:
    """The results: the cells of each column, for these rows; which columns are numbers; sentences below."""

    columns: dict[str, list[str]]
    entries: list[Entry]
    numbers: set[str]
    notes: list[str]


@dataclass(frozen=True)
class Section:
    """A part of the page: pictures have the lines of their captions, examples their run, data address and text."""

    anchor: str
    heading: str
    table: Table | None = None
    pictures: list[tuple[Picture, list[str]]] = field(default_factory=list)
    examples: list[tuple[str, str, str]] = field(default_factory=list)


def drawn(entries: list[Entry]) -> list[Entry]:
    """Those that are in the pictures."""
    return [entry for entry in entries if entry.number is not None]


def describe_axis(metric: Metric, rows: Sequence[Row]) -> str:
    """Whether up is good, and where chance lies."""
    if metric == "mse":
        return "Less is better."
    ways = sorted({source.ways for row in rows if (source := row.runs[0].summary.source) and source.ways})
    chance = ", ".join(f"{100 / way:.3g} % of {way} ways" for way in ways)
    return f"More is better; chance is {chance}." if chance else "More is better."


def draw_lines(
    metric: Metric,
    subject: str,
    spoken: list[str],
    xlabel: str,
    panels: dict[str, list[Series]],
    caption: list[str],
    entries: list[Entry],
    swept: bool = False,
) -> list[tuple[Picture, list[str]]]:
    """The picture of the curves with its caption; none where no curve has two points."""
    series = [line for found in panels.values() for line in found]
    if all(len(line.points) < 2 for line in series):
        return []
    if any(0 < len(found) <= figures.MOST_BANDS for found in panels.values()):
        caption = [*caption, "Bands are 95% intervals."]
    if metric == "mse" and max(mean for line in series for _, mean, _ in line.points) > figures.top_of_frame(series):
        caption = [*caption, "What leaves the frame is over a thousand times the median."]
    picture = figures.draw_lines(f"{subject}: {'; '.join(spoken)}", metric, xlabel, panels, swept)
    return [(picture, [*caption, describe_axis(metric, [entry.row for entry in entries])])]
