"""Labeled pairs, read from LFW's layout, from a CSV of paths and labels, or from one folder per person."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from toolkit.errors import InputError, InsufficientError
from toolkit.faces.images import SUFFIXES
from toolkit.faces.lists import read_csv, read_text
from toolkit.files import bundled, checked_path, inside, sha256
from toolkit.text import LONGEST_NAME, listed

_LONGEST_NUMBER = 6
_COLUMNS = ("probe", "reference", "label", "fold", "probe_person", "reference_person", "group")
# What other lists call them.
_ALIASES = {
    **dict.fromkeys(("file1", "image1", "img1", "path1", "first"), "probe"),
    **dict.fromkeys(("file2", "image2", "img2", "path2", "second"), "reference"),
    **dict.fromkeys(("issame", "is_same", "same", "match", "genuine", "decision"), "label"),
    **dict.fromkeys(("person1", "name1", "identity1", "id1"), "probe_person"),
    **dict.fromkeys(("person2", "name2", "identity2", "id2"), "reference_person"),
}
# A list has these columns, and may have the others.
_NEEDED = _COLUMNS[:3]
# The numbers of columns that a list without a header may have.
_WIDTHS = (3, 4, 6, 7)
# Rates of more subgroups are not worth a report.
MOST_SUBGROUPS = 100
_LABELS = {
    **dict.fromkeys(("same", "genuine", "1", "true", "match"), True),
    **dict.fromkeys(("different", "impostor", "0", "false", "mismatch"), False),
}
# The most genuine pairs per person, so that people with many photographs do not dominate. 5 photographs give 10 pairs.
_GENUINE_PER_PERSON = 10
_T = TypeVar("_T")


@dataclass(frozen=True)
class Pair:
    """A pair of images. The attacker perturbs the probe; the reference is fixed.

    Attributes:
        probe: path of the probe, relative to the pair set's root.
        reference: path of the reference, relative to the pair set's root.
        genuine: True if both images show the same person.
        fold: the fold of the pair, counted from 1; None if there are no folds.
        probe_identity: the name of the person in the probe; None if unknown.
        reference_identity: the name of the person in the reference; None if unknown.
        subgroup: the pair's label in the column `group` of a list, for instance an age band, a sex or a camera; None
            without one. It has nothing to do with the enrolled group of `--group`, whose probes have no such label.
    """

    probe: str
    reference: str
    genuine: bool
    fold: int | None = None
    probe_identity: str | None = None
    reference_identity: str | None = None
    subgroup: str | None = None

    @property
    def id(self) -> str:
        """A string that identifies the pair. It does not depend on the file format of the pairs."""
        return f"{self.probe}|{self.reference}|{'genuine' if self.genuine else 'impostor'}"


@dataclass(frozen=True)
class PairSet:
    """A set of pairs.

    Attributes:
        root: the folder that image names are relative to.
        pairs: the pairs.
        source: a description of where the pairs come from, for reports.
    """

    root: Path
    pairs: tuple[Pair, ...]
    source: str


def embedded_pairs() -> Path:
    """Return the folder of the generated faces and pairs that are shipped with the toolkit.

    Raises:
        InputError: this installation does not have the faces.
    """
    folder = bundled("models") / "nobody" / "faces"
    if not (folder / "pairs.txt").is_file():
        raise InputError(f"{folder}: the embedded faces are missing; install the package again, or give --pairs")
    return folder


def load_pairs(
    path: Path | str, limit: int | None = None, seed: int = 0, folds: Sequence[int] | None = None
) -> PairSet:
    """Read pairs.

    Args:
        path: one of: a folder with LFW's `pairs.txt`; a CSV file, or a folder with `pairs.csv`, with the columns
            probe, reference, label, and optionally fold, probe_person, reference_person and group; a folder with one
            folder of images per person. From folders of people, at most 10 genuine pairs per person and an equal number
            of impostor pairs are drawn.
        limit: draw at most this many pairs; half genuine and half impostor, as far as there are enough.
        seed: the seed of every random choice.
        folds: keep only the pairs of these folds, counted from 1.

    Raises:
        InputError: a line or label is not valid, or an image is missing. The message says where.
        InsufficientError: no pair is left.
    """
    path = checked_path(str(path), "pairs")
    if path.is_file():
        root, pairs = path.parent, _read_csv(path, path.parent)
    elif (path / "pairs.txt").is_file():
        root, pairs = _read_lfw(path)
    elif (path / "pairs.csv").is_file():
        root, pairs = path, _read_csv(path / "pairs.csv", path)
    elif path.is_dir():
        root, pairs = path, _people_pairs(path, np.random.default_rng(seed))
    else:
        raise InputError(f"{path}: no such folder or file; give a folder of images or a list of pairs")
    source = str(path)
    if folds is not None:
        missing = sorted(set(folds) - {pair.fold for pair in pairs if pair.fold is not None})
        if missing:
            raise InputError(f"{path}: has no fold {', '.join(map(str, missing))}")
        pairs = [pair for pair in pairs if pair.fold in folds]
        source += f" folds {','.join(map(str, folds))}"
    if not pairs:
        raise InsufficientError(f"{path}: has no pairs")
    if limit is not None and limit < len(pairs):
        total, pairs = len(pairs), _balanced(pairs, limit, np.random.default_rng(seed))
        source += f" ({len(pairs)} of {total} pairs, seed {seed})"
    _check(pairs, root, path)
    return PairSet(root, tuple(pairs), source)


def find_pairs(pairs: PairSet | Path | str | None = None) -> PairSet:
    """Return the pairs of a path, or the pairs that come with the toolkit if none are given.

    Args:
        pairs: pairs that are already loaded, which are returned unchanged; or a path for `load_pairs`; or None for
            the generated faces (`embedded_pairs`).

    Raises:
        InputError: the pairs cannot be read.
        InsufficientError: there are no pairs.
    """
    return pairs if isinstance(pairs, PairSet) else load_pairs(pairs or embedded_pairs())


def has_generated_faces(pairs: PairSet) -> bool:
    """Return whether an image of the pairs is one of the embedded faces, wherever its copy lies."""
    known: dict[int, set[str]] = {}
    for path in (embedded_pairs() / "images").rglob("*.jpg"):
        known.setdefault(path.stat().st_size, set()).add(sha256(path))
    names = {name for pair in pairs.pairs for name in (pair.probe, pair.reference)}
    # Only images of such a size need to be hashed.
    sized = ((pairs.root / name, (pairs.root / name).stat().st_size) for name in sorted(names))
    return any(sha256(path) in known[size] for path, size in sized if size in known)


def _check(pairs: Sequence[Pair], root: Path, path: Path) -> None:
    """Raise InputError if labels contradict each other or an image is missing."""
    labels: dict[tuple[str, str], bool] = {}
    missing: dict[str, None] = {}
    for pair in pairs:
        if labels.setdefault((pair.probe, pair.reference), pair.genuine) != pair.genuine:
            raise InputError(f"{path}: {pair.probe} and {pair.reference} are labeled both same and different")
        for name in (pair.probe, pair.reference):
            if not _is_unicode(name):
                raise InputError(f"{root / name}: the name is not UTF-8; rename the image, or give a list of others")
            if not (root / name).is_file():
                missing[name] = None
    if len(missing) == 1:
        raise InputError(f"{root / next(iter(missing))}: no such image; the pairs of {path} need it")
    if missing:
        raise InputError(f"{path}: {len(missing)} images are missing in {root}: {listed(list(missing))}")


def _is_unicode(name: str) -> bool:
    """Return whether results can keep a name. Bytes of a file's name that are not UTF-8 become surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def read_people(path: Path) -> list[dict[str, int]]:
    """Read LFW's `people.txt`. Return one dictionary for each set, from a person's name to the number of images.

    Raises:
        InputError: a line or a count is not valid.
    """
    lines = read_text(path).split("\n")
    try:
        # The file with all sets starts with the number of sets. A development file has only one set.
        sets, at = (int(lines[0]), 1) if lines[1].strip().isdecimal() else (1, 0)
        people = []
        for _ in range(sets):
            count = int(lines[at])
            rows = [line.split("\t") for line in lines[at + 1 : at + 1 + count]]
            if len(rows) != count:
                raise InputError(f"{path}: ends early; line {at + 1} announces {count} people")
            people.append({name: int(images) for name, images in rows})
            at += 1 + count
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: is not a valid people.txt of LFW ({error})") from error
    return people


def _is_number(text: str) -> bool:
    """Return whether a string is a non-negative integer with at most `_LONGEST_NUMBER` digits."""
    return text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER


def _read_lfw(folder: Path) -> tuple[Path, list[Pair]]:
    path = folder / "pairs.txt"
    lines = read_text(path).split("\n")
    header = lines[0].split() if lines else []
    if len(header) not in (1, 2) or not all(_is_number(n) and int(n) for n in header):
        raise InputError(
            f"{path}:1: must have the number of folds and the number of pairs per kind, not {' '.join(header)[:40]!r}"
        )
    half = int(header[-1])
    n_folds = int(header[0]) if len(header) == 2 else 1
    rows = [(i, line.split("\t")) for i, line in enumerate(lines[1:], 2) if line.strip()]
    if len(rows) != n_folds * 2 * half:
        raise InputError(f"{path}: has {len(rows)} pairs, but its first line announces {n_folds * 2 * half}")
    root = _lfw_images(folder)
    # Most photographs are in several pairs, and to look for one takes longer than to read its line.
    known: dict[tuple[str, int], str] = {}
    pairs = []
    for index, (number, fields) in enumerate(rows):
        numbers = [fields[1], fields[-1]] if len(fields) in (3, 4) else []
        if not numbers or not all(map(_is_number, numbers)):
            raise InputError(f"{path}:{number}: must be 'name n n' or 'name n name n' with tabs between the fields")
        people = (fields[0], fields[0]) if len(fields) == 3 else (fields[0], fields[2])
        if len(fields) == 4 and people[0] == people[1]:
            raise InputError(f"{path}:{number}: must name two different people, but both are {people[0]!r}")
        names = []
        for photograph in zip(people, map(int, numbers), strict=True):
            if photograph not in known:
                known[photograph] = _lfw_name(root, *photograph, f"{path}:{number}")
            names.append(known[photograph])
        fold = index // (2 * half) + 1 if len(header) == 2 else None
        pairs.append(Pair(names[0], names[1], len(fields) == 3, fold, people[0], people[1]))
    return root, pairs


def _lfw_name(root: Path, person: str, number: int, where: str) -> str:
    """The name of a photograph. Aligned copies of LFW have other suffixes than .jpg.

    Raises:
        InputError: the name leaves the folder.
    """
    stem = f"{person}/{person}_{number:04d}"
    inside(root, stem + max(SUFFIXES, key=len), where)
    return next((f"{stem}{suffix}" for suffix in SUFFIXES if (root / f"{stem}{suffix}").is_file()), f"{stem}.jpg")


def _lfw_images(folder: Path) -> Path:
    for candidate in [folder / "images", *sorted(folder.glob("lfw*")), folder]:
        if candidate.is_dir() and any(child.is_dir() for child in candidate.iterdir()):
            return candidate
    raise InputError(f"{folder}: has pairs.txt, but no folder of images; expected images/NAME/NAME_0001.jpg")


def _read_csv(path: Path, root: Path) -> list[Pair]:
    pairs: list[Pair] = []
    header: list[str] | None = None
    for number, fields in read_csv(path):
        if header is None and not pairs:
            names = [_ALIASES.get(field.lower(), field.lower()) for field in fields]
            if set(_NEEDED) <= set(names):
                header = _checked_header(names, f"{path}:{number}")
                continue
            if len(fields) >= len(_NEEDED) and not _could_be_pair(fields):
                raise InputError(
                    f"{path}:{number}: has the columns {listed([field[:40] for field in fields], 7)}; a list of pairs "
                    f"begins with probe, reference, label, or names the columns {', '.join(_COLUMNS)} in any order"
                )
        pairs.append(_csv_pair(fields, header, root, f"{path}:{number}"))
    if len({pair.subgroup for pair in pairs} - {None}) > MOST_SUBGROUPS:
        raise InputError(f"{path}: has more than {MOST_SUBGROUPS} groups; give each group more pairs")
    return pairs


def _could_be_pair(fields: list[str]) -> bool:
    """Whether the first row of a list is a pair, and not names of columns that nobody knows."""
    return fields[2].lower() in _LABELS or any(Path(field).suffix for field in fields[:2])


def _checked_header(names: list[str], where: str) -> list[str]:
    for name in names:
        if name not in _COLUMNS or names.count(name) > 1:
            raise InputError(
                f"{where}: the column {name[:40]!r} is not one of {', '.join(_COLUMNS)}, or is there twice"
            )
    return names


def _csv_pair(fields: list[str], header: list[str] | None, root: Path, where: str) -> Pair:
    if header is not None and len(fields) != len(header):
        raise InputError(f"{where}: has {len(fields)} fields, but the header names {len(header)}")
    if header is None and len(fields) not in _WIDTHS:
        raise InputError(
            f"{where}: has {len(fields)} fields; must be probe, reference, label, optionally fold, optionally "
            "probe_person and reference_person after it, and optionally group; or name the columns in a header"
        )
    row = dict.fromkeys(_COLUMNS, "") | dict(zip(header or _COLUMNS, fields, strict=False))
    probe, reference, label, fold, one, other, subgroup = (row[name] for name in _COLUMNS)
    if label.lower() not in _LABELS:
        raise InputError(f"{where}: {label!r} is not a label; write same or different (or 1 or 0)")
    # Where other columns come after it, the fold may be left empty.
    if (len(fields) == _WIDTHS[1] and header is None) or fold:
        _check_fold(fold, where)
    if probe == reference:
        raise InputError(f"{where}: probe and reference are the same image, {probe!r}")
    for name in (probe, reference):
        if not name:
            raise InputError(f"{where}: an image path is empty")
        inside(root, name, where)
    genuine = _LABELS[label.lower()]
    if one and other and (one == other) != genuine:
        raise InputError(f"{where}: {one!r} and {other!r} do not fit the label {label!r}")
    if len(subgroup) > LONGEST_NAME:
        raise InputError(f"{where}: the group has {len(subgroup)} characters; the most is {LONGEST_NAME}")
    return Pair(probe, reference, genuine, int(fold) if fold else None, one or None, other or None, subgroup or None)


def _check_fold(text: str, where: str) -> None:
    if not (_is_number(text) and int(text) > 0):
        raise InputError(f"{where}: fold must be an integer of at least 1, not {text[:20]!r}")


def _people_pairs(folder: Path, rng: np.random.Generator) -> list[Pair]:
    people = {
        person.name: sorted(f"{person.name}/{p.name}" for p in person.iterdir() if _is_image(p))
        for person in sorted(folder.iterdir())
        if person.is_dir() and not person.name.startswith(".")
    }
    people = {name: images for name, images in people.items() if images}
    if not people:
        raise InsufficientError(
            f"{folder}: has neither pairs.txt nor pairs.csv nor folders of images ({', '.join(SUFFIXES)})"
        )
    genuine = [
        Pair(a, b, genuine=True, probe_identity=name, reference_identity=name)
        for name, images in people.items()
        for a, b in _sample(list(itertools.combinations(images, 2)), _GENUINE_PER_PERSON, rng)
    ]
    names = list(people)
    wanted = len(genuine) if len(names) > 1 else 0
    impostor: dict[str, Pair] = {}
    for _ in range(20 * wanted):  # the same pair may be drawn twice, and few images may give fewer pairs than wanted
        if len(impostor) == wanted:
            break
        a, b = (names[i] for i in rng.choice(len(names), 2, replace=False))
        pair = Pair(
            people[a][rng.integers(len(people[a]))],
            people[b][rng.integers(len(people[b]))],
            genuine=False,
            probe_identity=a,
            reference_identity=b,
        )
        impostor.setdefault(pair.id, pair)
    return [*genuine, *impostor.values()]


def _is_image(path: Path) -> bool:
    """Whether a file's name is that of an image. Those with a dot at the start are a system's: ._a.jpg."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _balanced(pairs: Sequence[Pair], limit: int, rng: np.random.Generator) -> list[Pair]:
    """Draw at most `limit` pairs, half of each kind as far as there are enough. The order of pairs is kept."""
    kinds = [[i for i, p in enumerate(pairs) if p.genuine is kind] for kind in (True, False)]
    half = [min(len(kinds[0]), (limit + 1) // 2), min(len(kinds[1]), limit // 2)]
    half = [min(len(kinds[k]), limit - half[1 - k]) for k in (0, 1)]
    chosen = [i for kind, count in zip(kinds, half, strict=True) for i in _sample(kind, count, rng)]
    return [pairs[i] for i in sorted(chosen)]


def _sample(items: Sequence[_T], count: int, rng: np.random.Generator) -> Iterable[_T]:
    if len(items) <= count:
        return items
    return [items[i] for i in sorted(rng.choice(len(items), count, replace=False))]
