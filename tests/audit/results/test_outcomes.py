"""Results in SQLite: what is written is read, the schema is the documented one, and a hostile file is refused."""

from __future__ import annotations

import csv
import re
import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from tests.models import write_people
from tests.progress import Silent
from tests.risk.runs import Told, told, write
from toolkit.attacks.gaussian import Gaussian
from toolkit.audit.request import Request
from toolkit.audit.results.assessment import Assessment
from toolkit.audit.results.export import export_results
from toolkit.audit.results.outcomes import COLUMNS, FILE, PairOutcomes, read_run
from toolkit.audit.results.people import faces_of
from toolkit.audit.run import run_audit
from toolkit.documents import to_json
from toolkit.errors import InputError, UsageError
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import load_pairs
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.runtime import Execution

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Assessment]:
    folder = tmp_path_factory.mktemp("run")
    manifest, pairs = read_manifest(write_people(folder / "people", photos=4)), load_pairs(folder / "people")
    request = Request(
        manifest, crop_pairs(pairs, 16, 16, None), "people", (Gaussian(levels=8, draws=1),),
        (find_profile("none"), find_profile("mean3")), ("zero", "perfect"), 3, Execution("cpu", threads=1),
    )  # fmt: skip
    assessment = run_audit(request, folder, Silent())
    (folder / "report.json").write_text(to_json(assessment))
    return folder, assessment


@pytest.fixture
def copy(finished: tuple[Path, Assessment], tmp_path: Path) -> Path:
    """A run folder that may be damaged."""
    for name in ("report.json", FILE):
        (tmp_path / name).write_bytes((finished[0] / name).read_bytes())
    return tmp_path


def test_what_is_written_is_read(finished: tuple[Path, Assessment]) -> None:
    folder, assessment = finished
    run = read_run(folder)
    assert run.assessment == assessment
    assert [o.profile for o in run.outcomes] == ["none", "mean3", "mean3"]
    for o in run.outcomes:
        for name, (_, kind) in COLUMNS.items():
            assert getattr(o, name).dtype == kind
            assert getattr(o, name).shape == run.genuine.shape
    assert {f.name for f in fields(PairOutcomes)} == {"attack", "knowledge", "known", "profile", "presented", *COLUMNS}
    (bare,) = [o for o in run.outcomes if o.profile == "none"]
    np.testing.assert_allclose(bare.rms, 255 * bare.l2 / np.sqrt(16 * 16 * 3), rtol=1e-4)


def test_the_documented_schema_is_the_real_one_and_its_query_counts(finished: tuple[Path, Assessment]) -> None:
    text = (ROOT / "docs" / "results.md").read_text()
    schema, query = (block.strip() for block in re.findall(r"```sql\n(.*?)```", text, re.DOTALL))
    with closing(sqlite3.connect(finished[0] / FILE)) as database:
        found = [sql for (sql,) in database.execute("SELECT sql FROM sqlite_schema ORDER BY rootpage")]
        assert found == schema.splitlines()
        counted = {(a, k, p, bool(g)): (s, n) for a, k, p, g, s, n in database.execute(query)}
    assert counted == {
        (s.attack, s.knowledge, s.profile, s.goal == "dodging"): (s.asr.successes, s.asr.trials)
        for s in finished[1].scenarios
    }


def test_who_is_in_the_pairs_is_read_as_it_was_written(finished: tuple[Path, Assessment], tmp_path: Path) -> None:
    pairs = load_pairs(finished[0] / "people")
    faces = read_run(finished[0]).faces
    assert faces == faces_of(crop_pairs(pairs, 16, 16, None))
    assert {*faces.probe_people, *faces.reference_people} == {""}, "a list of pairs does not name people"
    scenarios = [Told("gaussian", "zero", "mean3")]
    run, _ = told(scenarios, pairs=4, people=3, copies=2)
    assert read_run(write(tmp_path / "told", scenarios, pairs=4, people=3, copies=2)).faces == run.faces


def test_a_crop_is_told_by_its_pixels_and_a_person_by_the_folder(tmp_path: Path) -> None:
    write_people(tmp_path, photos=2)
    (tmp_path / "pairs.csv").unlink()
    shutil.copy(tmp_path / "a" / "0.png", tmp_path / "b" / "holiday.png")
    crops = crop_pairs(load_pairs(tmp_path), 16, 16, None)
    faces = faces_of(crops)
    of_image: dict[str, str] = {}
    for i, pair in enumerate(crops.pairs):
        assert faces.probe_people[i] == pair.probe.split("/")[0]
        assert faces.reference_people[i] == pair.reference.split("/")[0]
        of_image |= {pair.probe: faces.probe_crops[i], pair.reference: faces.reference_crops[i]}
    assert of_image["a/0.png"] == of_image["b/holiday.png"]
    assert len(set(of_image.values())) == len(of_image) - 1
    assert all(re.fullmatch("[0-9a-f]{64}", crop) for crop in of_image.values())
    alone = faces_of(replace(crops, gallery=np.array([0])))
    assert set(alone.reference_crops) == {""}, "a group has no reference"
    assert alone.probe_crops == faces.probe_crops


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE outcomes SET success = 1 - success WHERE eligible = 1", "contradict each other"),
        ("UPDATE outcomes SET eligible = 2", "truth value is not 0 or 1"),
        ("UPDATE outcomes SET l2 = 9e999", "number is not finite"),
        ("DELETE FROM outcomes WHERE pair = 1", "does not have all 17 pairs"),
        ("UPDATE outcomes SET pair = 99 WHERE pair = 1", "does not have all 17 pairs"),
        ("CREATE VIEW more AS SELECT * FROM pairs", "not a results database"),
        ("CREATE TRIGGER more AFTER UPDATE ON pairs BEGIN DELETE FROM pairs; END", "not a results database"),
        ("DROP TABLE outcomes", "not a results database"),
        ("ALTER TABLE pairs DROP COLUMN probe_crop", "not a results database"),
        ("PRAGMA user_version = 9", "not a results database of version 4"),
        ("PRAGMA application_id = 1", "not a results database"),
        ("UPDATE scenarios SET attack = 'pgd'", "contradict each other"),
        ("UPDATE scenarios SET knowledge = 'query' WHERE profile = 'none'", "have different scenarios"),
        ("UPDATE profiles SET name = 'other' WHERE profile = 1", "lacks a profile of the run"),
        ("UPDATE profiles SET name = 'none'", "has a profile twice"),
        ("UPDATE outcomes SET rms = -1 WHERE success = 1", "a norm of a success is not from 0"),
        ("UPDATE outcomes SET linf = 1e300 WHERE success = 1", "a norm of a success is not from 0"),
        ("UPDATE outcomes SET queries = -1", "a number of queries is negative"),
        ("UPDATE outcomes SET first_hit = 0", "first hits of a scenario are not those of its successes"),
        ("UPDATE outcomes SET hits = 0", "without a first one, or a first one without hits"),
        ("UPDATE outcomes SET hits = 2 WHERE success = 1", "more hits than its probe was presented"),
        ("UPDATE outcomes SET first_hit = -1, hits = 0 WHERE success = 0", "more hits than its probe was presented"),
        ("UPDATE scenarios SET presented = 0", "presentations is not an integer from 1 to"),
        (f"UPDATE scenarios SET presented = {2**63 - 1}", "presentations is not an integer from 1 to"),
    ],
)
def test_a_changed_database_is_refused(copy: Path, statement: str, message: str) -> None:
    with closing(sqlite3.connect(copy / FILE, isolation_level=None)) as database:
        database.execute(statement)
    with pytest.raises(InputError, match=message):
        read_run(copy)


def test_a_view_in_place_of_a_table_is_not_asked(copy: Path) -> None:
    """What a view would run is the file's choice, so nothing but our own tables is ever read."""
    with closing(sqlite3.connect(copy / FILE, isolation_level=None)) as database:
        database.execute("ALTER TABLE outcomes RENAME TO hidden")
        database.execute("CREATE VIEW outcomes AS SELECT * FROM hidden")
    with pytest.raises(InputError, match="not a results database"):
        read_run(copy)


def test_any_bytes_in_its_place_are_one_clear_line(copy: Path) -> None:
    path = copy / FILE
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    # A number that was changed into another one is not found: it is the probes that have checksums.
    for at in rng.integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        with suppress(InputError):
            read_run(copy)
    for content in (b"", b"junk", whole[:5000], whole[:100], bytes(5000)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"results\.sqlite"):
            read_run(copy)
    path.unlink()
    with pytest.raises(InputError, match=r"results\.sqlite: cannot be read"):
        read_run(copy)


def test_reading_leaves_nothing_beside_the_file(copy: Path) -> None:
    before = sorted(path.name for path in copy.iterdir())
    read_run(copy)
    assert sorted(path.name for path in copy.iterdir()) == before


def test_exports_say_what_the_run_says(finished: tuple[Path, Assessment], tmp_path: Path) -> None:
    run = read_run(finished[0])
    groups = tuple(f"g{i % 2}" for i in range(len(run.pairs)))
    run = replace(run, faces=replace(run.faces, subgroups=groups))
    assert export_results(run, tmp_path / "all.csv") == 3 * len(run.pairs)
    with (tmp_path / "all.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * len(run.pairs)
    assert [row["pair"] for row in rows] == 3 * list(run.pairs)
    assert [row["group"] for row in rows] == 3 * list(groups)
    for i, o in enumerate(run.outcomes):
        mine = rows[i * len(run.pairs) : (i + 1) * len(run.pairs)]
        assert {row["profile"] for row in mine} == {o.profile}
        assert [float(row["l2"]) for row in mine] == o.l2.tolist()
        assert [row["success"] == "1" for row in mine] == o.success.tolist()
    with pytest.raises(UsageError, match=r"\.csv or \.parquet"):
        export_results(run, tmp_path / "all.xlsx")
    parquet = pytest.importorskip("pyarrow.parquet")
    export_results(run, tmp_path / "all.parquet")
    table = parquet.read_table(tmp_path / "all.parquet").to_pydict()
    assert list(table) == list(rows[0])
    assert table["success"] == [bool(int(row["success"])) for row in rows]
    assert table["clean_distance"] == [float(row["clean_distance"]) for row in rows]
