"""Text from outside, made safe to show: names, paths and messages that other people and programs wrote."""

from __future__ import annotations

import html
from collections.abc import Sequence

# The most characters of a message, and of the name of a verifier, profile, policy or attack.
LONGEST = 500
LONGEST_NAME = 200
# The most characters of a paragraph in a report, which may quote several names.
LONGEST_SENTENCES = 2000
_GAP = " ... "


def visible(text: str) -> str:
    r"""Write every character that cannot be seen as an escape, for example ``\x1b`` or ``\u202e``.

    Such characters are control characters, marks of writing direction, characters without width, surrogates, and
    characters that Unicode does not define. They could move the cursor, ring a bell, or show a name in another order.
    Every kind of space and every line break becomes one space.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else _escape(c) for c in text)


def visible_lines(text: str) -> str:
    """Make a text of several lines visible; see `visible`. Line breaks are kept."""
    return "\n".join(map(visible, text.split("\n")))


def shown(text: object, longest: int = LONGEST) -> str:
    """Make a text visible, in one line of at most `longest` characters.

    A longer text is cut in its middle, because messages start with the place and end with what to do.
    """
    line = visible(" ".join(cut(str(text), longest).split()))
    return cut(line, longest)


def escaped(text: str) -> str:
    """Make a text visible, and escape it for HTML."""
    return html.escape(shown(text, LONGEST_SENTENCES))


def cut(text: str, longest: int) -> str:
    """Replace the middle of a text that has more than `longest` characters by an ellipsis."""
    if len(text) <= longest:
        return text
    end = longest // 3
    return text[: longest - len(_GAP) - end] + _GAP + text[len(text) - end :]


def listed(names: Sequence[str], most: int = 3) -> str:
    """Name some of many: "a, b, c, and 9 more"."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f", and {rest} more" if rest > 0 else "")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
