import pytest

from metarun.cli import VERBS
from metarun.commands.parser import Parser
from metarun.errors import UsageError
from metarun.results.explained import Explained
from metarun.results.listing import Listed
from metarun.results.listing_text import Listing
from metarun.results.shapes import explain_shape
from metarun.storage import records
from metarun.storage.records import Position, Summary


def _fields(found, record):
    return {field.name.partition(".")[2]: field for field in found.settings if field.name.startswith(f"{record}.")}


@pytest.mark.parametrize(
    ("name", "record"), [("ls", Listing), ("ls", Listed), ("summary", Summary), ("summary", records.Test)]
)
def test_the_fields_are_those_of_the_record(name, record):
    """Pydantic's own view of the class is the oracle: names in JSON, also of base classes."""
    found = explain_shape(f"json.{name}")
    expected = {field.alias or name for name, field in record.model_fields.items()}
    assert set(_fields(found, record.__name__)) == expected


def test_types_and_comments_are_in_plain_words():
    found = explain_shape("json.status")
    fields = _fields(found, "Status")
    assert fields["status"].type == "running | done | failed | stopped"
    assert fields["steps"].type == "int | None"
    assert fields["steps"].means == "outer steps that the run has in all; None in older runs"
    assert {record.name for record in found.choices} == {"Status", "Position"}
    assert set(_fields(found, "Position")) == set(Position.model_fields)


def test_json_lists_what_there_is_and_a_wrong_name_is_refused(metarun):
    names = {choice.name for choice in explain_shape("json").choices}
    assert names >= {"json.ls", "json.adapt", "json.doctor", "json.explain", "json.summary", "json.environment"}
    with pytest.raises(UsageError, match=r"did you mean json\.ls\?"):
        explain_shape("json.lss")
    code, out, _ = metarun("explain", "json.explain", "format=json")
    assert code == 0
    assert {field.name for field in Explained.from_json(out).settings} >= {"Explained.name", "Named.default"}
    assert "    steps: int | None" in metarun("explain", "json.status")[1]


def test_every_verb_that_prints_json_names_its_record():
    for name, verb in VERBS.items():
        option = Parser(name, verb).settings.get("format")
        if option and "json" in (option.choices or ()):
            assert explain_shape(f"json.{name}").settings, name
