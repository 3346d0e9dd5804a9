"""The words that follow a verb, and the verb's help: its options are typed as settings, `format=csv`."""

import argparse
import os
import textwrap
from typing import Any, NoReturn

from metarun.commands.words import as_settings, refuse_blanks
from metarun.errors import UsageError
from metarun.results.run_names import find_by_end
from metarun.text import nearest

WIDTH = 110
SETTINGS = "key=value"  # the metavar of words that are settings
PLACES = ("DIR", "RUN", "FILE")  # metavars of files and folders begin so


class Parser(argparse.ArgumentParser):
    """Raises where argparse would print and exit.

    Args:
        name: of the verb.
        verb: its module: add_arguments(parser), main(args), a docstring that is its help, and perhaps PRINTS, the
            dotted name of the record that format=json prints.
    """

    def __init__(self, name: str, verb: Any):
        super().__init__(prog=f"metarun {name}", description=verb.__doc__, allow_abbrev=False, add_help=False)
        self.name, self.prints = name, getattr(verb, "PRINTS", None)
        verb.add_arguments(self)

    def read(self, words: list[str]) -> argparse.Namespace:
        """What the words say. Raises UsageError: the verb does not take them."""
        if self.takes_settings:
            words = as_settings(words, self._option_string_actions)
        else:
            refuse_blanks(words)
        spelled = [self._spell(word) for word in words]
        self._refuse_twice(spelled)
        return self.parse_intermixed_args(spelled)

    def _refuse_twice(self, words: list[str]) -> None:
        """Raises UsageError: an option is given twice, of which argparse would take the last."""
        names = [word.partition("=")[0] for word in words]
        for action in self._actions:
            given = [name for name in names if name in action.option_strings]
            if given[1:] and action.nargs != 0 and not isinstance(action.default, list):
                name = f"{given[0][2:]}=" if given[0][2:] in self.settings else given[0]
                raise UsageError(f"{name} (command line): given twice; expected it once, see {self.prog} --help")

    @property
    def positionals(self) -> list[argparse.Action]:
        """The arguments that are known by their place."""
        return [action for action in self._actions if not action.option_strings]

    @property
    def settings(self) -> dict[str, argparse.Action]:
        """The options that are typed as settings, by name."""
        long = {option: action for action in self._actions for option in action.option_strings if option[:2] == "--"}
        return {
            name[2:]: action for name, action in long.items() if action.nargs != 0 and len(action.option_strings) == 1
        }

    @property
    def takes_settings(self) -> bool:
        """Whether it takes settings of a config."""
        return any(SETTINGS in str(action.metavar) for action in self.positionals)

    @property
    def takes_places(self) -> bool:
        """Whether all that it takes besides options are files and folders."""
        return not self.takes_settings and all(str(action.metavar).startswith(PLACES) for action in self.positionals)

    def _spell(self, word: str) -> str:
        """A word for argparse: format=csv is --format=csv where the verb has that option, -WORD is --remove=WORD."""
        options, (option, equals, _) = self._option_string_actions, word.partition("=")
        if "--remove" in options and word[:1] == "-" and word[:2] != "--" and word not in options:
            return f"--remove={word[1:]}"
        if equals and f"--{option}" in options:
            return f"--{word}"
        if equals and option.isidentifier() and self.takes_places and not self._is_place(word):
            known = ", ".join(f"{name}=" for name in self.settings) or "no settings"
            remedy = nearest(option, self.settings)
            raise UsageError(f"{word!r} (command line): no such setting; {self.prog} has {known}{remedy}")
        return word

    def _is_place(self, word: str) -> bool:
        """Whether it is a path, or the end of a run's: a sweep names its runs as algo=maml,seed=0."""
        takes_runs = any(str(action.metavar).startswith("RUN") for action in self.positionals)
        return os.path.exists(word) or (takes_runs and find_by_end(word) is not None)

    def error(self, message: str) -> NoReturn:
        """Raises UsageError with the message."""
        if message.startswith("unrecognized arguments: ") and {"-cd", "--config-dir"} & set(message.split()):
            rule = (
                f"{self.prog} has no such option: saved runs hold their settings; runs, check, eval and explain have it"
            )
            raise UsageError(f"-cd (command line): {rule}")
        raise UsageError(f"{message} (command line): expected {self.synopsis()}; see {self.prog} --help")

    def synopsis(self) -> str:
        """The command in one line, such as `metarun table DIR [DIR ...] [format=markdown|csv|json]`."""
        if self.usage:
            return self.usage
        return " ".join([self.prog, *map(_place, self.positionals), *(f"[{name}]" for name in self._options())])

    def _options(self) -> dict[str, argparse.Action]:
        """The options as one types them."""
        found = {}
        for action in self._actions:
            if action.option_strings and action.help != argparse.SUPPRESS:
                found[_option(action)] = action
        return found

    def format_help(self) -> str:
        """The help: what the verb does, how it is typed, and each argument."""
        title, _, more = (self.description or "").strip().partition("\n")
        rows = [(_name(action), action.help) for action in self.positionals]
        rows += [(name, action.help) for name, action in self._options().items()]
        width = min(max((len(name) for name, _ in rows), default=0), 28)
        usage = textwrap.wrap(f"usage: {self.synopsis()}", WIDTH, subsequent_indent=" " * 11)
        lines = [title, "", *usage]
        lines += ["", more.strip()] if more.strip() else []
        lines += ["", "Arguments:"] if rows else []
        for name, said in rows:
            begin = f"    {name:<{width}}  "
            text = " ".join(str(said or "").replace("%%", "%").split())
            rest = textwrap.wrap(text, WIDTH, initial_indent=begin, subsequent_indent=" " * (width + 6))
            lines += rest or [begin.rstrip()]
        if self.prints:
            lines += ["", f"format=json prints one JSON document, whose fields metarun explain json.{self.name} lists."]
        return "\n".join(lines) + "\n"


def _name(action: argparse.Action) -> str:
    return str(action.metavar or action.dest)


def _place(action: argparse.Action) -> str:
    name = _name(action)
    return {"*": f"[{name} ...]", "+": f"{name} [{name} ...]", "?": f"[{name}]"}.get(str(action.nargs), name)


def _option(action: argparse.Action) -> str:
    """An option as one types it: format=markdown|csv|json, -cd DIR, -m."""
    short = [option for option in action.option_strings if option[:2] != "--"]
    if action.nargs == 0:
        return (short or action.option_strings)[0]
    choices = "|".join(map(str, action.choices)) if action.choices else ""
    value = str(action.metavar or choices or action.dest.upper())
    return f"{short[0]} {value}" if short else f"{action.option_strings[0][2:]}={value}"
