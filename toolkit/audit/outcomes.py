"""Outcomes: what came of every pair in every scenario, kept as `results.sqlite` beside `report.json`.

docs/results.md says what is in it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Bools
from toolkit.audit.assessment import Assessment
from toolkit.audit.certify import PairCertificates
from toolkit.audit.plan import GOALS, Goal
from toolkit.audit.reading import from_plain
from toolkit.audit.replay import CleanRun, Float
from toolkit.audit.sanity import Outcome
from toolkit.errors import InputError
from toolkit.faces.pairs import Pair
from toolkit.files import atomic_path
from toolkit.profiles.profile import Profile

FILE = "results.sqlite"
_VERSION = 2
# "6px!": what the file says it is, besides an SQLite database.
_APPLICATION = 0x36707821
# What is kept of every pair in a scenario, each a field of `PairOutcomes`: its SQL type, and that of its array.
COLUMNS: dict[str, tuple[str, type]] = {
    "eligible": ("INTEGER", np.bool_),
    "success": ("INTEGER", np.bool_),
    "l2": ("REAL", np.float64),
    "linf": ("REAL", np.float64),
    "rms": ("REAL", np.float64),
    "queries": ("INTEGER", np.int64),
}
_CLEAN_COLUMNS: dict[str, tuple[str, type]] = {"distance": ("REAL", np.float64), "correct": ("INTEGER", np.bool_)}
_CERTIFICATE_COLUMNS: dict[str, tuple[str, type]] = {"same": ("INTEGER", np.int64), "radius": ("REAL", np.float64)}
_LARGEST_FILE = 1 << 28
_LARGEST_DATABASE = 8 << 30
_LONGEST_VALUE = 1 << 16


def _columns(columns: dict[str, tuple[str, type]]) -> str:
    return ", ".join(f"{name} {sql} NOT NULL" for name, (sql, _) in columns.items())


_SCHEMA = {
    "pairs": "pair INTEGER PRIMARY KEY, id TEXT NOT NULL, genuine INTEGER NOT NULL",
    "profiles": "profile INTEGER PRIMARY KEY, name TEXT NOT NULL",
    "clean": (
        f"profile INTEGER NOT NULL, pair INTEGER NOT NULL, {_columns(_CLEAN_COLUMNS)}, PRIMARY KEY (profile, pair)"
    ),
    "scenarios": (
        "scenario INTEGER PRIMARY KEY, attack TEXT NOT NULL, knowledge TEXT NOT NULL, known TEXT NOT NULL, "
        "profile TEXT NOT NULL"
    ),
    "smoothings": (
        "smoothing INTEGER PRIMARY KEY, profile TEXT NOT NULL, sigma REAL NOT NULL, samples INTEGER NOT NULL, "
        "confidence REAL NOT NULL"
    ),
    "certificates": (
        f"smoothing INTEGER NOT NULL, pair INTEGER NOT NULL, {_columns(_CERTIFICATE_COLUMNS)}, "
        "PRIMARY KEY (smoothing, pair)"
    ),
    "outcomes": f"scenario INTEGER NOT NULL, pair INTEGER NOT NULL, {_columns(COLUMNS)}, PRIMARY KEY (scenario, pair)",
}
# Their rows lie in the order of their keys, without a second table that says where.
_KEYED = ("clean", "certificates", "outcomes")


@dataclass(frozen=True)
class PairOutcomes:
    """One scenario, over all n pairs of the run.

    Attributes:
        attack, knowledge, known, profile: as in `ScenarioResult`.
        eligible: (n,), see `CleanRun`.
        success: (n,), see `Replay`; False where not eligible.
        l2, linf, rms: (n,), norms of the 8-bit perturbation, to 6 digits; units as in `Replay`.
        queries: (n,), model evaluations that crafting took.
    """

    attack: str
    knowledge: str
    known: str
    profile: str
    eligible: Bools
    success: Bools
    l2: Float
    linf: Float
    rms: Float
    queries: NDArray[np.int64]


@dataclass(frozen=True)
class CleanOutcomes:
    """Distances (n,) of the pairs as they are, behind one profile, to 6 digits, and which were decided correctly."""

    profile: str
    distances: Float
    correct: Bools


@dataclass(frozen=True)
class Run:
    """A finished audit: its assessment, the ids of its n pairs, which are `genuine` (n,), and what came of each.

    Radii of certificates have 6 digits.
    """

    assessment: Assessment
    pairs: tuple[str, ...]
    genuine: Bools
    clean: tuple[CleanOutcomes, ...]
    outcomes: tuple[PairOutcomes, ...]
    certificates: tuple[PairCertificates, ...] = ()


def write_outcomes(
    folder: Path,
    pairs: Sequence[Pair],
    outcomes: Iterable[Outcome],
    clean: dict[Profile, CleanRun],
    certificates: Sequence[PairCertificates] = (),
) -> None:
    """Write `results.sqlite`, atomically; the same outcomes give the same bytes.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    with atomic_path(folder / FILE) as path:
        try:
            with closing(sqlite3.connect(path, isolation_level=None)) as database:
                _write(database, pairs, outcomes, clean, certificates)
        except sqlite3.Error as error:
            raise InputError(f"{folder / FILE}: cannot be written ({error})") from error


def _write(
    database: sqlite3.Connection,
    pairs: Sequence[Pair],
    outcomes: Iterable[Outcome],
    clean: dict[Profile, CleanRun],
    certificates: Sequence[PairCertificates],
) -> None:
    # A file that is renamed when it is whole needs no journal.
    for pragma in (
        "page_size = 4096",
        "journal_mode = OFF",
        "synchronous = OFF",
        f"application_id = {_APPLICATION}",
        f"user_version = {_VERSION}",
    ):
        database.execute(f"PRAGMA {pragma}")
    for statement in _statements():
        database.execute(statement)
    database.execute("BEGIN")

    def fill(table: str, rows: Iterable[Sequence[object]]) -> None:
        marks = ", ".join("?" * _SCHEMA[table].count("NULL")) + (", ?" if table not in _KEYED else "")
        database.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608 - our own names

    fill("pairs", ((i, pair.id, int(pair.genuine)) for i, pair in enumerate(pairs)))
    for number, (profile, run) in enumerate(clean.items()):
        fill("profiles", [(number, profile.name)])
        fill("clean", _rows(number, {"distance": run.distances, "correct": run.correct}))
    for number, (s, replay) in enumerate(outcomes):
        eligible = clean[s.profile].eligible
        # Whatever else is kept of a pair is a field of its replay.
        of_run = {"eligible": eligible, "success": eligible & replay.success, "queries": replay.evaluations}
        columns = {name: of_run[name] if name in of_run else getattr(replay, name) for name in COLUMNS}
        fill("scenarios", [(number, s.attack.name, s.knowledge, s.known.name, s.profile.name)])
        fill("outcomes", _rows(number, columns))
    for number, c in enumerate(certificates):
        fill("smoothings", [(number, c.profile, c.sigma, c.samples, c.confidence)])
        fill("certificates", _rows(number, {name: getattr(c, name) for name in _CERTIFICATE_COLUMNS}))
    database.execute("COMMIT")


def _statements() -> list[str]:
    return [
        f"CREATE TABLE {name} ({columns}) STRICT{', WITHOUT ROWID' if name in _KEYED else ''}"
        for name, columns in _SCHEMA.items()
    ]


def _rows(number: int, columns: dict[str, NDArray[Any]]) -> Iterator[tuple[object, ...]]:
    """A row for each pair; floats to 6 digits."""
    values = [
        [float(f"{v:.6g}") for v in column] if column.dtype.kind == "f" else column.astype(np.int64).tolist()
        for column in columns.values()
    ]
    return ((number, pair, *row) for pair, row in enumerate(zip(*values, strict=True)))


def read_run(folder: Path) -> Run:
    """Read a finished audit's `report.json` and `results.sqlite`.

    Raises:
        InputError: one of them is missing, damaged or of another version, or they are not of the same audit.
    """
    report, path = read_json(folder / "report.json", "assessment"), folder / FILE
    try:
        assessment = from_plain(Assessment, report, "report")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder}: its report is not as this version writes it ({error!r})") from error
    with closing(_open(path)) as database:
        try:
            run = _read(database, assessment)
        except (sqlite3.Error, OverflowError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: is not as this version writes it ({error}); give the same audit again"
            ) from error
    if _counts(run) != {
        (s.attack, s.known, s.profile, s.goal): (s.asr.successes, s.asr.trials) for s in assessment.scenarios
    }:
        raise InputError(f"{folder}: {FILE} does not count what report.json says; give the same audit again")
    return run


def _open(path: Path) -> sqlite3.Connection:
    """Open somebody's database: nothing in it is carried out, and its schema is exactly ours or it is refused."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if size > _LARGEST_DATABASE:
        raise InputError(f"{path}: larger than {_LARGEST_DATABASE} bytes")
    try:
        database = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1", uri=True)
    except sqlite3.Error as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
    try:
        for pragma in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON", "mmap_size = 0"):
            database.execute(f"PRAGMA {pragma}")
        head = tuple(database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        schema = [sql for (sql,) in database.execute("SELECT sql FROM sqlite_schema ORDER BY rootpage LIMIT 20")]
    except (sqlite3.Error, ValueError) as error:
        database.close()
        raise InputError(f"{path}: is no database of results ({error})") from error
    if head != (_APPLICATION, _VERSION) or schema != _statements():
        database.close()
        raise InputError(f"{path}: is no database of results of version {_VERSION}; give the same audit again")
    return database


def _read(database: sqlite3.Connection, assessment: Assessment) -> Run:
    pairs = database.execute("SELECT id, genuine FROM pairs ORDER BY pair").fetchall()
    count = len(pairs)
    clean = []
    for number, profile in database.execute("SELECT profile, name FROM profiles ORDER BY profile").fetchall():
        found = _arrays(database, "clean", "profile", number, _CLEAN_COLUMNS, count)
        clean.append(CleanOutcomes(_text(profile), found["distance"], found["correct"]))
    outcomes = []
    for number, *names in database.execute(
        "SELECT scenario, attack, knowledge, known, profile FROM scenarios ORDER BY scenario"
    ).fetchall():
        found = _arrays(database, "outcomes", "scenario", number, COLUMNS, count)
        attack, knowledge, known, profile = map(_text, names)
        outcomes.append(PairOutcomes(attack, knowledge, known, profile, **found))
    certificates = []
    for number, profile, sigma, samples, confidence in database.execute(
        "SELECT smoothing, profile, sigma, samples, confidence FROM smoothings ORDER BY smoothing"
    ).fetchall():
        found = _arrays(database, "certificates", "smoothing", number, _CERTIFICATE_COLUMNS, count)
        how = (float(sigma), int(samples), float(confidence))
        certificates.append(PairCertificates(_text(profile), *how, same=found["same"], radius=found["radius"]))
    genuine = _column([g for _, g in pairs], np.bool_)
    names = tuple(_text(name) for name, _ in pairs)
    return Run(assessment, names, genuine, tuple(clean), tuple(outcomes), tuple(certificates))


def _arrays(
    database: sqlite3.Connection, table: str, key: str, number: object, columns: dict[str, tuple[str, type]], count: int
) -> dict[str, NDArray[Any]]:
    """The columns of one profile or scenario, over all pairs in their order."""
    rows = database.execute(
        f"SELECT pair, {', '.join(columns)} FROM {table} WHERE {key} = ? ORDER BY pair",  # noqa: S608 - our own names
        (number,),
    ).fetchall()
    if [row[0] for row in rows] != list(range(count)):
        raise ValueError(f"{table}: {count} pairs are expected in {key} {number}")
    return {name: _column([row[i] for row in rows], kind) for i, (name, (_, kind)) in enumerate(columns.items(), 1)}


def _column(values: list[object], kind: type) -> NDArray[Any]:
    expected = float if kind is np.float64 else int
    if any(type(value) is not expected for value in values):
        raise ValueError(f"numbers of type {expected.__name__} are expected")
    column = np.array(values, np.float64 if expected is float else np.int64)
    if not np.isfinite(column).all() or (kind is np.bool_ and not np.isin(column, (0, 1)).all()):
        raise ValueError("finite numbers are expected, and 0 or 1 for what is true or not")
    return column.astype(kind)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a name is expected")
    return value


def _counts(run: Run) -> dict[tuple[str, str, str, Goal], tuple[int, int]]:
    """Successes and eligible pairs by attack, known profile, profile and goal."""
    goals: tuple[Goal, ...] = GOALS if run.assessment.group is None else ("group", "group")
    return {
        (o.attack, o.known, o.profile, goal): (int((o.success & kind).sum()), int((o.eligible & kind).sum()))
        for o in run.outcomes
        for goal, kind in zip(goals, (run.genuine, ~run.genuine), strict=True)
        if kind.any()
    }


def read_json(path: Path, kind: str, version: int = 1) -> dict[str, Any]:
    """Read a document that the toolkit wrote, of one kind and version.

    Raises:
        InputError: it cannot be read, is too large, or is something else.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(f"{path}: larger than {_LARGEST_FILE} bytes")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error})") from error
    if not isinstance(content, dict) or (content.get("schema"), content.get("kind")) != (version, kind):
        raise InputError(f"{path}: is no {kind} of version {version}")
    return content
