import pytest
import yaml

from metarun.config.folders import conf_dir
from metarun.config.yaml_text import read_text


def test_comments_beside_above_and_over_several_lines_are_found(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "# @package _global_\n# What it is.\n# More of it.\ndefaults: [{/model: mlp}, _self_]\n"
        'a: "x # no comment" # beside\n# above\nb: 1\nc: # of settings\n  d: [1, 2] # of a list\n'
        "  e: 1e-3\nf:\n  - 1 # of an item\n  - 2\n# of the last,\n# in two lines\ng: null\n"
    )
    text = read_text(file)
    assert text.header == "What it is.\nMore of it."
    assert text.is_global
    assert text.defaults == [{"/model": "mlp"}, "_self_"]
    assert [(line.key, line.value, line.comment) for line in text.lines] == [
        ("a", '"x # no comment"', "beside"),
        ("b", "1", "above"),
        ("c", None, "of settings"),
        ("c.d", "[1, 2]", "of a list"),
        ("c.e", "1e-3", ""),
        ("f", "- 1 - 2", ""),
        ("g", "null", "of the last, in two lines"),
    ]


@pytest.mark.parametrize("text", ["- 1\n", "a: [\n", "a: &x\n  b: *x\n", "defaults: 3\n"])
def test_what_is_no_file_of_settings_is_refused(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"no mapping|parsing|recursion"):
        read_text(tmp_path / "mine.yaml")


def test_every_key_of_a_file_is_there_with_its_value():
    """PyYAML's own reading is the oracle."""
    for path in conf_dir().rglob("*.yaml"):
        if path.name == "published.yaml":
            continue
        text, plain = read_text(path), yaml.safe_load(path.read_text())
        for line in text.lines:
            node = plain
            for part in line.key.split("."):
                node = node[part]
            assert isinstance(node, dict) and node if line.value is None else yaml.safe_load(line.value) == node, line
