"""Outcomes: the results of every pair in every scenario, stored in `results.sqlite` beside `report.json`.

docs/results.md describes the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.clean.run import CleanRun
from toolkit.audit.plan import GOALS, Goal
from toolkit.audit.replaying.certificates import PairCertificates
from toolkit.audit.replaying.replay import presentations
from toolkit.audit.replaying.sanity import Outcome
from toolkit.audit.request import Request
from toolkit.audit.results.assessment import Assessment
from toolkit.audit.results.consistency import check_consistency
from toolkit.audit.results.people import PairFaces
from toolkit.documents import from_plain, read_json
from toolkit.errors import InputError
from toolkit.faces.pairs import Pair
from toolkit.files import atomic_path
from toolkit.pixels import Bools, Float
from toolkit.profiles.profile import Profile

FILE = "results.sqlite"
_VERSION = 4
# The SQLite application id, "6px!" in ASCII.
_APPLICATION = 0x36707821
# The stored fields of `PairOutcomes`, with the types of the SQL column and of the array.
COLUMNS: dict[str, tuple[str, type]] = {
    "eligible": ("INTEGER", np.bool_),
    "success": ("INTEGER", np.bool_),
    "hits": ("INTEGER", np.int64),
    "first_hit": ("INTEGER", np.int64),
    "l2": ("REAL", np.float64),
    "linf": ("REAL", np.float64),
    "rms": ("REAL", np.float64),
    "queries": ("INTEGER", np.int64),
}
_CLEAN_COLUMNS: dict[str, tuple[str, type]] = {"distance": ("REAL", np.float64), "correct": ("INTEGER", np.bool_)}
_CERTIFICATE_COLUMNS: dict[str, tuple[str, type]] = {"same": ("INTEGER", np.int64), "radius": ("REAL", np.float64)}
# The fields of `PairFaces`, in the order of the columns.
_FACES = tuple(field.name for field in fields(PairFaces))
# Beyond these limits, reading a run would take gigabytes of memory.
_LARGEST_DATABASE = 1 << 30
_MOST_PAIRS = 1_000_000
_MOST_ROWS = 10_000
_MOST_PRESENTATIONS = 10_000
_LONGEST_VALUE = 1 << 16


def _columns(columns: dict[str, tuple[str, type]]) -> str:
    return ", ".join(f"{name} {sql} NOT NULL" for name, (sql, _) in columns.items())


_SCHEMA = {
    "pairs": (
        "pair INTEGER PRIMARY KEY, id TEXT NOT NULL, genuine INTEGER NOT NULL, probe_person TEXT NOT NULL, "
        "reference_person TEXT NOT NULL, probe_crop TEXT NOT NULL, reference_crop TEXT NOT NULL, subgroup TEXT NOT NULL"
    ),
    "profiles": "profile INTEGER PRIMARY KEY, name TEXT NOT NULL",
    "clean": (
        f"profile INTEGER NOT NULL, pair INTEGER NOT NULL, {_columns(_CLEAN_COLUMNS)}, PRIMARY KEY (profile, pair)"
    ),
    "scenarios": (
        "scenario INTEGER PRIMARY KEY, attack TEXT NOT NULL, knowledge TEXT NOT NULL, known TEXT NOT NULL, "
        "profile TEXT NOT NULL, presented INTEGER NOT NULL"
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
# These tables are stored WITHOUT ROWID, in the order of their primary keys, which saves space.
_KEYED = ("clean", "certificates", "outcomes")


@dataclass(frozen=True)
class PairOutcomes:
    """The results of one scenario on all n pairs of the run.

    Attributes:
        attack, knowledge, known, profile: see `ScenarioResult`.
        presented: how often each probe was presented; see `presentations`.
        eligible: (n,), see `CleanRun`.
        success, hits, first_hit: (n,), see `Replay`; False and 0 for pairs that are not eligible.
        l2, linf, rms: (n,), norms of the 8-bit perturbation, to 6 digits; units as in `Replay`.
        queries: (n,), number of model evaluations during crafting.
    """

    attack: str
    knowledge: str
    known: str
    profile: str
    presented: int
    eligible: Bools
    success: Bools
    hits: NDArray[np.int64]
    first_hit: NDArray[np.int64]
    l2: Float
    linf: Float
    rms: Float
    queries: NDArray[np.int64]

    def within(self, norm: str, budget: float, *, worn: bool, tries: int) -> Bools:
        """Pairs (n,) that fall within a budget.

        Args:
            norm: the norm of the budget.
            budget: the largest norm that counts.
            worn: whether the perturbation is worn, so that any size counts.
            tries: how often the attacker may present the probe.
        """
        fell = (self.first_hit > 0) & (self.first_hit <= tries)
        return fell & (worn | (getattr(self, norm) <= budget))


@dataclass(frozen=True)
class CleanOutcomes:
    """The clean results of one profile: distances (n,) to 6 digits, and whether each decision was correct (n,)."""

    profile: str
    distances: Float
    correct: Bools


@dataclass(frozen=True)
class Run:
    """A finished audit.

    Attributes:
        folder: the folder of the run.
        assessment: the contents of its report.
        pairs: the ids of its n pairs.
        genuine: (n,), whether each pair is of one person.
        faces: who is in the pairs.
        clean: the clean results of each profile.
        outcomes: the results of each scenario.
        certificates: the certificates of each profile and noise; radii have 6 digits.
        request: the request, if the audit ran in this process; None for a run that was read from its folder.
    """

    folder: Path
    assessment: Assessment
    pairs: tuple[str, ...]
    genuine: Bools
    faces: PairFaces
    clean: tuple[CleanOutcomes, ...]
    outcomes: tuple[PairOutcomes, ...]
    certificates: tuple[PairCertificates, ...] = ()
    request: Request | None = field(default=None, compare=False, repr=False)


def write_outcomes(
    folder: Path,
    pairs: Sequence[Pair],
    faces: PairFaces,
    outcomes: Iterable[Outcome],
    clean: dict[Profile, CleanRun],
    certificates: Sequence[PairCertificates] = (),
) -> None:
    """Write `results.sqlite` atomically. The same outcomes give the same bytes.

    Args:
        folder: the folder of the run.
        pairs: the n pairs.
        faces: who is in them.
        outcomes: the results of all scenarios.
        clean: the clean run of each deployed profile.
        certificates: the certificates of each profile and noise.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    with atomic_path(folder / FILE) as path:
        try:
            with closing(sqlite3.connect(path, isolation_level=None)) as database:
                _write(database, pairs, faces, outcomes, clean, certificates)
        except sqlite3.Error as error:
            raise InputError(f"{folder / FILE}: cannot be written ({error})") from error


def _write(
    database: sqlite3.Connection,
    pairs: Sequence[Pair],
    faces: PairFaces,
    outcomes: Iterable[Outcome],
    clean: dict[Profile, CleanRun],
    certificates: Sequence[PairCertificates],
) -> None:
    # No journal is needed, because the file is renamed only when it is complete.
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

    people = (getattr(faces, name) for name in _FACES)
    fill("pairs", ((i, p.id, int(p.genuine), *one) for i, (p, *one) in enumerate(zip(pairs, *people, strict=True))))
    for number, (profile, run) in enumerate(clean.items()):
        fill("profiles", [(number, profile.name)])
        fill("clean", _rows(number, {"distance": run.distances, "correct": run.correct}))
    for number, (s, replay) in enumerate(outcomes):
        eligible = clean[s.profile].eligible
        # All other columns are fields of the replay.
        of_run = {"eligible": eligible, "queries": replay.evaluations}
        of_run |= {name: eligible * getattr(replay, name) for name in ("success", "hits", "first_hit")}
        columns = {name: of_run[name] if name in of_run else getattr(replay, name) for name in COLUMNS}
        who = (s.attack.name, s.knowledge, s.known.name, s.profile.name)
        fill("scenarios", [(number, *who, presentations(s.profile))])
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
    """Yield a row for each pair, with floats rounded to 6 digits."""
    values = [
        [float(f"{v:.6g}") for v in column] if column.dtype.kind == "f" else column.astype(np.int64).tolist()
        for column in columns.values()
    ]
    return ((number, pair, *row) for pair, row in enumerate(zip(*values, strict=True)))


def read_run(folder: Path | str) -> Run:
    """Read a finished audit's `report.json` and `results.sqlite`.

    Raises:
        InputError: one of them is missing, damaged or of another version, or they are not of the same audit.
    """
    folder = Path(folder)
    report, path = read_json(folder / "report.json", "assessment"), folder / FILE
    try:
        assessment = from_plain(Assessment, report, "report")
    except (ValueError, InputError) as error:  # a value does not fit its type, or a rate is impossible
        raise InputError(
            f"{folder / 'report.json'}: does not have this version's format ({error}); give the same audit again"
        ) from error
    with closing(_open(path)) as database:
        try:
            run = _read(database, folder, assessment)
        except (sqlite3.Error, OverflowError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: does not have this version's format ({error}); give the same audit again"
            ) from error
    if _counts(run) != {
        (s.attack, s.known, s.profile, s.goal): (s.asr.successes, s.asr.trials) for s in assessment.scenarios
    }:
        raise InputError(f"{folder}: {FILE} and report.json contradict each other; give the same audit again")
    try:
        check_consistency(run)
    except ValueError as error:
        raise InputError(f"{folder}: is not one whole run ({error}); give the same audit again") from error
    return run


def _open(path: Path) -> sqlite3.Connection:
    """Open a database that may be hostile: it cannot run code, and any schema but our own is refused."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if size > _LARGEST_DATABASE:
        raise InputError(f"{path}: is larger than {_LARGEST_DATABASE} bytes")
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
        raise InputError(f"{path}: is not a results database ({error}); give the same audit again") from error
    if head != (_APPLICATION, _VERSION) or schema != _statements():
        database.close()
        raise InputError(f"{path}: is not a results database of version {_VERSION}; give the same audit again")
    return database


def _read(database: sqlite3.Connection, folder: Path, assessment: Assessment) -> Run:
    pairs = _rows_of(
        database,
        "SELECT id, genuine, probe_person, reference_person, probe_crop, reference_crop, subgroup FROM pairs "
        "ORDER BY pair",
        _MOST_PAIRS,
    )
    count = len(pairs)
    clean = []
    for number, profile in _rows_of(database, "SELECT profile, name FROM profiles ORDER BY profile"):
        found = _arrays(database, "clean", "profile", number, _CLEAN_COLUMNS, count)
        clean.append(CleanOutcomes(_text(profile), found["distance"], found["correct"]))
    outcomes = []
    for number, *of_scenario, presented in _rows_of(
        database, "SELECT scenario, attack, knowledge, known, profile, presented FROM scenarios ORDER BY scenario"
    ):
        found = _arrays(database, "outcomes", "scenario", number, COLUMNS, count)
        attack, knowledge, known, profile = map(_text, of_scenario)
        if type(presented) is not int or not 1 <= presented <= _MOST_PRESENTATIONS:
            raise ValueError(f"a number of presentations is not an integer from 1 to {_MOST_PRESENTATIONS}")
        outcomes.append(PairOutcomes(attack, knowledge, known, profile, presented, **found))
    certificates = []
    for number, profile, sigma, samples, confidence in _rows_of(
        database, "SELECT smoothing, profile, sigma, samples, confidence FROM smoothings ORDER BY smoothing"
    ):
        found = _arrays(database, "certificates", "smoothing", number, _CERTIFICATE_COLUMNS, count)
        if (type(sigma), type(samples), type(confidence)) != (float, int, float):
            raise TypeError("a setting of the certificates is not a number")
        how = (sigma, samples, confidence)
        certificates.append(PairCertificates(_text(profile), *how, same=found["same"], radius=found["radius"]))
    genuine = _column([genuine for _, genuine, *_ in pairs], np.bool_)
    names, *who = (tuple(_text(row[i]) for row in pairs) for i in (0, *range(2, 7)))
    return Run(folder, assessment, names, genuine, PairFaces(*who), tuple(clean), tuple(outcomes), tuple(certificates))


def _rows_of(database: sqlite3.Connection, query: str, most: int = _MOST_ROWS) -> list[tuple[Any, ...]]:
    rows = database.execute(query).fetchmany(most + 1)
    if len(rows) > most:
        raise ValueError(f"a table has more than {most} rows")
    return rows


def _arrays(
    database: sqlite3.Connection, table: str, key: str, number: object, columns: dict[str, tuple[str, type]], count: int
) -> dict[str, NDArray[Any]]:
    """Read the columns of one profile, scenario or smoothing, over all pairs in order."""
    rows = database.execute(
        f"SELECT pair, {', '.join(columns)} FROM {table} WHERE {key} = ? ORDER BY pair",  # noqa: S608 - our own names
        (number,),
    ).fetchmany(count + 1)
    if [row[0] for row in rows] != list(range(count)):
        raise ValueError(f"{table}: {key} {number} does not have all {count} pairs")
    return {name: _column([row[i] for row in rows], kind) for i, (name, (_, kind)) in enumerate(columns.items(), 1)}


def _column(values: list[object], kind: type) -> NDArray[Any]:
    expected = float if kind is np.float64 else int
    if any(type(value) is not expected for value in values):
        raise ValueError(f"a number is not of type {expected.__name__}")
    column = np.array(values, np.float64 if expected is float else np.int64)
    if not np.isfinite(column).all() or (kind is np.bool_ and not np.isin(column, (0, 1)).all()):
        raise ValueError("a number is not finite, or a truth value is not 0 or 1")
    return column.astype(kind)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a name is not text")
    return value


def _counts(run: Run) -> dict[tuple[str, str, str, Goal], tuple[int, int]]:
    """Count successes and eligible pairs by attack, known profile, profile and goal."""
    goals: tuple[Goal, ...] = GOALS if run.assessment.group is None else ("group", "group")
    return {
        (o.attack, o.known, o.profile, goal): (int((o.success & kind).sum()), int((o.eligible & kind).sum()))
        for o in run.outcomes
        for goal, kind in zip(goals, (run.genuine, ~run.genuine), strict=True)
        if kind.any()
    }
