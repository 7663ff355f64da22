"""What a server may not make visible: the secrets that it was sent, in any form in which it may send them back."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

from toolkit.text import shown

_HIDDEN = "[hidden]"
_SHOWN = 200
# Longer text is cut before it is searched.
_SEARCHED = 1 << 12
# So many characters in a row of a secret are hidden.
_PART = 8
_SHORTEST = 4
_LONGEST_ESCAPE = 10
_ROUNDS = 3
_ESCAPE = re.compile(
    r"%[0-9a-f]{2}|\\u[0-9a-f]{4}|\\x[0-9a-f]{2}|&\#(?:x[0-9a-f]{1,6}|[0-9]{1,7});|&[a-z]{2,8};|\\[^\s\w]|\s+|\\[nrt]|.",
    re.IGNORECASE | re.DOTALL,
)
_SPACES = ("\\n", "\\r", "\\t")
# Base64 has two alphabets.
_ONE_ALPHABET = str.maketrans("-_", "+/")


class Secrets:
    """Secrets to hide in text: as they are, in base64, in hexadecimal, and each of these with escaped characters.

    Parts of them are hidden as well: whatever has a few characters in a row in common with one of these forms.
    """

    def __init__(self, values: Iterable[str]) -> None:
        """Remember secrets. Empty ones are left out."""
        forms = {form.lower().translate(_ONE_ALPHABET) for value in values if value for form in _forms(value)}
        sizes = [(form, min(len(form), _PART)) for form in forms]
        self._parts = {form[i : i + size] for form, size in sizes for i in range(len(form) - size + 1)}
        self._sizes = {size for _, size in sizes}

    def shown(self, text: str) -> str:
        """Return the beginning of a text of a server as one printable line without the secrets."""
        hidden = self.hide(text[:_SEARCHED])
        if len(text) > _SEARCHED:  # a part that is too short to be known may stand at the cut
            hidden = hidden[: -_LONGEST_ESCAPE * _PART]
        return shown(hidden, _SHOWN)

    def hide(self, text: str) -> str:
        """Return the text with every secret replaced."""
        plain = [(c, i, i + 1) for i, c in enumerate(text)] if self._parts else []
        found = list(self._places(plain))
        for _ in range(_ROUNDS):  # escapes may be escaped
            before, plain = len(plain), list(_unescaped(plain))
            found += self._places(plain)
            if len(plain) == before:
                break
        return _without(text, found)

    def _places(self, plain: list[tuple[str, int, int]]) -> Iterator[tuple[int, int]]:
        # The lower case of some characters is longer than one character.
        line = "".join(c.lower() if len(c.lower()) == 1 else c for c, _, _ in plain).translate(_ONE_ALPHABET)
        for size in self._sizes:
            for at in range(len(line) - size + 1):
                if line[at : at + size] in self._parts:
                    yield plain[at][1], plain[at + size - 1][2]


def _forms(value: str) -> Iterator[str]:
    content = value.encode()
    yield value
    yield content.hex()
    # In base64, a secret looks in three ways, by its place in the text around it. Characters that it shares with its
    # neighbors are left out.
    for before in range(3):
        text = base64.b64encode(b"\0" * before + content).decode()
        part = text[-(-before * 8 // 6) : (before + len(content)) * 8 // 6]
        if len(part) >= _SHORTEST:
            yield part


def _unescaped(plain: list[tuple[str, int, int]]) -> Iterator[tuple[str, int, int]]:
    """Undo one layer of escapes, and leave out white space. Each character keeps its place in the original text."""
    for match in _ESCAPE.finditer("".join(c for c, _, _ in plain)):
        text, begin, end = match.group(), plain[match.start()][1], plain[match.end() - 1][2]
        if text.isspace() or text.lower() in _SPACES:
            continue
        for c in _meaning(text):
            yield c, begin, end


def _meaning(text: str) -> str:
    if len(text) == 1:
        return text
    if text[0] == "&":
        return html.unescape(text)
    digits = text.lstrip("%\\").lstrip("uxUX")
    return chr(int(digits, 16)) if digits.isalnum() else text[1]


def _without(text: str, places: list[tuple[int, int]]) -> str:
    merged: list[list[int]] = []
    for begin, end in sorted(places):
        if merged and begin <= merged[-1][1]:
            merged[-1][1] = max(end, merged[-1][1])
        else:
            merged.append([begin, end])
    edges = [0, *(edge for place in merged for edge in place), len(text)]
    kept = [text[begin:end] for begin, end in list(pairwise(edges))[::2]]
    return _HIDDEN.join(kept)
