"""metarun complete: what the shells call on TAB, with the scripts of metarun completion. It never says an error.

metarun complete bash LINE BREAKS    the line up to the cursor; the characters at which bash cuts words
metarun complete zsh|fish WORD...    the words after the command; the last one is being typed
"""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from metarun.text import printable

SPECIAL = " \t\"'\\`$&|;<>()[]{}*?!#"
MEANS = 70  # signs of what a candidate means


def main(argv: list[str], verbs: Mapping[str, Any]) -> None:
    """Prints the candidates, a line for each; nothing where there are none, or something is wrong."""
    with suppress(Exception), open(os.devnull, "w", encoding="utf-8") as nowhere:
        answer = "".join(f"{line}\n" for line in _answer(argv, verbs, nowhere))
        encoding = sys.stdout.encoding or "utf-8"  # a terminal may have no θ
        sys.stdout.write(answer.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()


def _answer(argv: list[str], verbs: Mapping[str, Any], nowhere: Any) -> list[str]:
    from metarun.commands.candidates import find_candidates

    stderr, sys.stderr = sys.stderr, nowhere
    try:
        shell, *rest = argv
        if shell == "bash":
            (*words, current), quote = split(rest[0])
            found = find_candidates(words[1:], current, verbs)
            cut = max((current.rfind(sign) for sign in "=:" if sign in rest[1] and not quote), default=-1) + 1
            return [_quoted(text[cut:], quote) + " " * (whole and not quote) for text, _, whole in found]
        *words, current = rest
        found = find_candidates(words, split(current)[0][-1], verbs)
        if shell == "fish":
            return [f"{text}\t{_short(means)}" for text, means, _ in found]
        return [f"{'whole' if whole else 'part'}\t{text}\t{_short(means)}" for text, means, whole in found]
    finally:
        sys.stderr = stderr


def _short(means: str) -> str:
    text = printable(" ".join(means.split()))
    return text if len(text) <= MEANS else f"{text[: MEANS - 3]}..."


def _quoted(text: str, quote: str = "") -> str:
    """A text as it stands in a command line, after the quote that is open in it: a name of $(...) runs nothing."""
    if quote == "'":
        return text.replace("'", "'\\''")
    special = '"\\`$' if quote else SPECIAL
    return "".join(f"\\{sign}" if sign in special else sign for sign in text)


def split(line: str) -> tuple[list[str], str]:
    """The words of a line that is being typed, the last one perhaps empty; and the quote that is open in it, or ''."""
    words, quote, begun, escaped = [""], "", False, False
    for sign in line:
        if escaped:
            words[-1], escaped = words[-1] + sign, False
        elif sign == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote, words[-1] = ("", words[-1]) if sign == quote else (quote, words[-1] + sign)
        elif sign in "\"'":
            quote, begun = sign, True
        elif sign in " \t\n":
            if words[-1] or begun:
                words.append("")
            begun = False
        else:
            words[-1] += sign
    return words, quote
