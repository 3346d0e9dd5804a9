"""The HTML pages that metarun writes: one file each that needs nothing else, from the templates in this folder."""

import shlex
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from metarun.results import figures
from metarun.text import format_duration

GENERATOR = '<meta name="generator" content="metarun">'


def render(template: str, title: str, **facts: Any) -> str:
    """The page that a template makes of these facts; everything is escaped."""
    loader = FileSystemLoader(Path(__file__).parent)
    jinja = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.filters |= {"shell": shlex.join, "duration": format_duration}
    return jinja.get_template(template).render(title=title, generator=Markup(GENERATOR), figures=figures, **facts)


def is_page(path: Path) -> bool:
    """Whether a file is a page of metarun's. Raises OSError: it cannot be read."""
    with path.open("rb") as file:
        return GENERATOR.encode() in file.read(2000)
