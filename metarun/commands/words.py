"""The words of a command line as settings: `--key=value` as agents of sweeps type it, and slips of the keyboard.

A shell cuts a command at blanks, so that `algo = maml` is three words and `seed=0, 1` two. Without a line of its own
the rest of such a setting would be called unknown, which it is not.
"""

import re
from collections.abc import Iterable

from metarun.errors import UsageError

SETTING = re.compile(r"--?([A-Za-z_][\w./@]*)=(.*)", re.DOTALL)
NAME = re.compile(r"--([A-Za-z_][\w.]*)")


def as_settings(words: list[str], options: Iterable[str]) -> list[str]:
    """The words, with `--key=value` as key=value where there is no such option.

    Args:
        words: of the command line.
        options: the names of the options that there are, such as --multirun.

    Raises:
        UsageError: a setting is written with blanks, or as two words.
    """
    refuse_blanks(words)
    options, settings = set(options), []
    for number, word in enumerate(words):
        following = words[number + 1] if number + 1 < len(words) else ""
        if (found := SETTING.fullmatch(word)) and word.partition("=")[0] not in options:
            word = f"{found[1]}={found[2]}"
        elif (found := NAME.fullmatch(word)) and word not in options and following and not set("=-") & set(following):
            both = f"{word} {following}"
            raise UsageError(f"{both!r} (command line): expected key=value; write {found[1]}={following}")
        settings.append(word)
    return settings


def refuse_blanks(words: list[str]) -> None:
    """Raises UsageError for blanks around a = or after a comma of a setting."""
    for number, word in enumerate(words):
        before = words[number - 1] if number else ""
        after = words[number + 1] if number + 1 < len(words) else ""
        if word.startswith("=") and before:
            parts = [before, word] + ([after] if word == "=" else [])
            rule = "no blanks around ="
        elif word.endswith("=") and after and "=" not in after and not after.startswith("-") and len(word) > 1:
            parts, rule = [word, after], "no blanks around ="
        elif "=" in word and word.endswith(",") and after and "=" not in after:
            parts, rule = [word, after], "no blanks after a comma"
        else:
            continue
        raise UsageError(f"{' '.join(parts)!r} (command line): expected {rule}; write {''.join(parts)}")
