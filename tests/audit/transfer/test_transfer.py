"""Probes on another verifier: where the answer is known, and on real verifiers."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest

from tests.commands import process, refused, sixpixels
from tests.models import write_linear
from tests.servers import Rekognition, Seen, Triton, answered, serving
from toolkit.attacks.fgsm import Fgsm
from toolkit.attacks.gaussian import Gaussian
from toolkit.audit.request import Request
from toolkit.audit.results.assessment import Assessment
from toolkit.audit.results.record import Record, read_record, write_record
from toolkit.audit.run import run_audit
from toolkit.audit.transfer.judge import Judge, local_judge, remote_judge
from toolkit.audit.transfer.transfer import Transfer, run_transfer
from toolkit.documents import to_json
from toolkit.errors import InputError
from toolkit.faces.alignment import LandmarkFinder
from toolkit.faces.carry import View, between, carry, view_matrix
from toolkit.faces.crops import crop_pairs
from toolkit.faces.detection import PARTS
from toolkit.faces.images import read_image
from toolkit.faces.pairs import embedded_pairs, load_pairs
from toolkit.profiles.profile import find_profile
from toolkit.progress import SILENT
from toolkit.report.schemas import transfer_schema
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.manifest import Alignment, Manifest, find_manifest, read_manifest
from toolkit.verifiers.runtime import Execution

SIDE = 16
CPU = Execution("cpu", threads=1)
LIMITS = "[limits]\ncalls_per_second = 10000\nmax_calls = {}\nretries = 0\n"


def audited(
    manifest: Manifest, pairs: Path, folder: Path, attacks: Any, profiles: str, limit: int | None = None
) -> tuple[Assessment, Record]:
    """A finished run, made and read back."""
    pair_set, names = load_pairs(pairs, limit=limit), profiles.split(",")
    template = manifest.alignment.template if manifest.alignment else None
    crops = crop_pairs(pair_set, manifest.input.width, manifest.input.height, template)
    request = Request(
        manifest, crops, pair_set.source, attacks, tuple(map(find_profile, names)), ("zero", "perfect"), 3, CPU
    )
    assessment = run_audit(request, folder, SILENT)
    write_record(request, folder, pair_set.root, str(manifest.path), names)
    return assessment, read_record(folder)


def transferred(record: Record, judge: Judge) -> Transfer:
    result = run_transfer(record, judge, CPU, SILENT)
    jsonschema.validate(json.loads(to_json(result)), transfer_schema())
    return result


def people(folder: Path, images: int = 4) -> Path:
    """Three people who differ in brightness."""
    rng = np.random.default_rng(0)
    for person, level in (("a", 60), ("b", 120), ("c", 190)):
        (folder / "people" / person).mkdir(parents=True)
        for i in range(images):
            image = np.clip(rng.normal(level, 6, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / "people" / person / f"{i}.png"), image)
    return folder / "people"


def brightness(folder: Path, name: str = "linear", decide: float = 0.12) -> Path:
    """A verifier that sees brightness and fine structure."""
    size = SIDE * SIDE * 3
    fine = np.random.default_rng(1).choice([-1, 1], size) / size * 12
    weights = np.stack([np.full(size, 1 / size), fine], 1)
    return write_linear(folder, weights=weights, side=SIDE, threshold=decide, name=name)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Assessment]:
    """A folder with a verifier, linear.onnx, three people and a run on them."""
    folder = tmp_path_factory.mktemp("linear")
    manifest = read_manifest(brightness(folder))
    attacks = (Fgsm(), Gaussian(levels=10, draws=2))
    assessment, _ = audited(manifest, people(folder), folder / "run", attacks, "none,mean3")
    return folder, assessment


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory, facenet_network: Any) -> tuple[Assessment, Record]:
    """A run of facenet-mini on generated faces, with small perturbations and with large ones."""
    attacks = (Fgsm(), Gaussian(levels=1, draws=1, largest=0.45))
    folder = tmp_path_factory.mktemp("faces") / "run"
    return audited(find_manifest("facenet-mini"), embedded_pairs(), folder, attacks, "none", 8)


def asr(results: Any, known: str = "none") -> dict[tuple[str, str], Rate]:
    return {(r.attack, r.goal): r.asr for r in results if r.known == known}


def test_on_the_same_verifier_transfer_is_replay(faces: tuple[Assessment, Record]) -> None:
    assessment, record = faces
    result = transferred(record, local_judge(record.manifest, find_profile("none"), CPU, record.seed))
    assert asr(result.results) == {(s.attack, s.goal): s.asr for s in assessment.scenarios}
    assert {(r.attack, r.goal): r.crafted for r in result.results} == {
        (s.attack, s.goal): s.crafted for s in assessment.scenarios
    }
    assert all(b.flips == Rate(0, b.pairs) for b in result.baseline), "nothing is resampled, so nothing flips"
    for r in result.results:
        assert r.l2 == r.l2_source
        assert r.beyond_resampling == r.asr.successes
    assert (result.geometry.scale, result.geometry.covered, result.complete) == (1, 1, True)
    assert any(r.asr.successes for r in result.results)


def test_behind_a_profile_transfer_is_replay_with_zero_knowledge(linear: tuple[Path, Assessment]) -> None:
    folder, assessment = linear
    record = read_record(folder / "run")
    for profile in ("none", "mean3"):
        result = transferred(record, local_judge(record.manifest, find_profile(profile), CPU, record.seed))
        assert all(c.accuracy.value == 1 for c in assessment.clean), "so the eligible pairs are the same"
        for known, knowledge in (("none", "zero"), ("mean3", "perfect")):
            if profile == "none":
                knowledge, known = "perfect", "none"  # noqa: PLW2901
            replayed = [s for s in assessment.scenarios if (s.profile, s.knowledge) == (profile, knowledge)]
            assert asr(result.results, known) == {(s.attack, s.goal): s.asr for s in replayed}
            assert result.profile == profile


def test_a_few_pairs_at_a_time_give_what_all_at_once_give(
    linear: tuple[Path, Assessment], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = read_record(linear[0] / "run")
    judge = local_judge(record.manifest, find_profile("mean3"), CPU, record.seed)
    whole, sizes = transferred(record, judge), []

    def counted(crops: Any) -> Any:
        sizes.append(len(crops))
        return judge.embed_and_score(crops)

    monkeypatch.setattr("toolkit.audit.transfer.judge._BATCH", 7)
    monkeypatch.setattr("toolkit.audit.transfer.judge._MOST_KNOWN", 9)
    assert transferred(record, replace(judge, embed_and_score=counted, _known={})) == whole
    assert max(sizes) == 7


def test_a_pair_counts_only_if_both_verifiers_decide_it_rightly(
    linear: tuple[Path, Assessment], tmp_path: Path
) -> None:
    folder, _ = linear
    strict = read_manifest(brightness(tmp_path, name="strict", decide=0.01))
    assessment, record = audited(strict, folder / "people", tmp_path / "run", (Fgsm(),), "none")
    (wrong,) = [s.clean_errors for s in assessment.scenarios if s.goal == "dodging"]
    assert 0 < wrong < 18
    target = local_judge(read_manifest(folder / "linear.onnx"), find_profile("none"), CPU, record.seed)
    there = {r.goal: r for r in transferred(record, target).results}
    assert there["dodging"].eligible == there["dodging"].asr.trials == 18 - wrong
    lenient = read_record(folder / "run")
    back = transferred(lenient, local_judge(strict, find_profile("none"), CPU, record.seed))
    assert {b.goal: b.clean_errors for b in back.baseline} == {"dodging": wrong, "impersonation": 0}
    assert {r.eligible for r in back.results if r.goal == "dodging"} == {18 - wrong}


def test_large_perturbations_survive_another_crop_of_the_same_model(faces: tuple[Assessment, Record]) -> None:
    _, record = faces
    assert record.manifest.alignment is not None
    template = tuple((0.93 * x + 8, 0.93 * y + 3) for x, y in record.manifest.alignment.template)
    other = dataclasses.replace(record.manifest, name="other crop", alignment=Alignment(template))
    result = transferred(record, local_judge(other, find_profile("none"), CPU, record.seed))
    assert result.geometry.scale == pytest.approx(0.93, abs=1e-3)
    assert 0.8 < result.geometry.covered < 1
    (large,) = [r for r in result.results if (r.attack, r.goal) == ("gaussian", "dodging")]
    (small,) = [r for r in result.results if (r.attack, r.goal) == ("fgsm", "dodging")]
    assert large.eligible >= 3
    assert large.crafted == large.eligible
    assert large.of_crafted.value is not None
    assert large.of_crafted.value >= 0.75
    assert large.asr.successes >= small.asr.successes, "the smallest perturbations are the first to be lost"
    assert large.l2 is not None
    assert large.l2_source is not None
    assert 0.4 * large.l2_source < large.l2 < large.l2_source, "resampling averages noise"


def test_a_probe_that_the_targets_detector_flags_is_no_success(faces: tuple[Assessment, Record]) -> None:
    _, record = faces
    detector = local_judge(record.manifest, find_profile("detector"), CPU, record.seed)
    assert np.isfinite(detector.alarm)
    result = transferred(record, detector)
    (large,) = [r for r in result.results if (r.attack, r.goal) == ("gaussian", "dodging")]
    assert large.failed == large.crafted > 0
    assert large.asr.successes == 0


@pytest.mark.shared
def test_from_facenet_mini_to_dlib(shared: Path, faces: tuple[Assessment, Record]) -> None:
    _, record = faces
    dlib = find_manifest(str(shared / "verifiers" / "dlib_resnet.onnx"))
    result = transferred(record, local_judge(dlib, find_profile("none"), CPU, record.seed))
    assert (result.geometry.source, result.geometry.target) == ((160, 160), (150, 150))
    assert result.geometry.covered > 0.95
    assert sum(b.clean_errors for b in result.baseline) <= 1
    assert sum(b.flips.successes for b in result.baseline) <= 1, "the crops are nearly the same"
    found = asr(result.results)
    assert found["gaussian", "dodging"].successes > 0
    assert found["gaussian", "impersonation"].successes == 0, "noise makes nobody somebody else"


@pytest.mark.shared
def test_from_facenet_mini_to_dlib_on_photographs(shared: Path, tmp_path: Path, facenet_network: Any) -> None:
    attacks = (Gaussian(levels=1, draws=1, largest=0.45),)
    _, record = audited(find_manifest("facenet-mini"), shared / "lfw", tmp_path / "run", attacks, "none", 6)
    dlib = find_manifest(str(shared / "verifiers" / "dlib_resnet.onnx"))
    result = transferred(record, local_judge(dlib, find_profile("none"), CPU, record.seed))
    assert sum(r.eligible for r in result.results) >= 4
    assert asr(result.results)["gaussian", "dodging"].successes > 0


# Crops and what carries them.


def test_carrying_by_whole_pixels_moves_them_and_the_photograph_fills_the_rest() -> None:
    rng = np.random.default_rng(0)
    crop, onto = (rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(2))
    np.testing.assert_array_equal(carry(crop, np.eye(3), onto), crop)
    nearly = np.eye(3) + 1e-13
    np.testing.assert_array_equal(carry(crop, nearly, onto), crop)
    moved = carry(crop, np.array([[1, 0, 2], [0, 1, -3], [0, 0, 1.0]]), onto)
    np.testing.assert_array_equal(moved[:5, 2:], crop[3:, :6])
    np.testing.assert_array_equal(moved[5:], onto[5:])
    np.testing.assert_array_equal(moved[:, :2], onto[:, :2])


def test_a_crop_is_carried_to_where_the_other_crop_sees_it() -> None:
    manifest, pairs = find_manifest("facenet-mini"), load_pairs(embedded_pairs(), limit=2)
    assert manifest.alignment is not None
    template = manifest.alignment.template
    small = tuple((0.5 * x + 20, 0.5 * y + 10) for x, y in template)
    views = View(160, 160, template), View(112, 96, small)
    finder = LandmarkFinder(pairs.root)
    source, target = (crop_pairs(pairs, view.width, view.height, view.template) for view in views)
    for i, name in enumerate(source.names):
        photograph = read_image(pairs.root / name)
        for view, crops in zip(views, (source, target), strict=True):
            matrix = view_matrix(view, name, finder)[:2]
            size = (view.width, view.height)
            again = cv2.warpAffine(photograph, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
            np.testing.assert_array_equal(again, crops.images[i])
        carried = carry(source.images[i], between(*views, name, finder), target.images[i])
        off = np.abs(carried.astype(float) - target.images[i]).mean()
        shifted = np.abs(np.roll(carried, 1, axis=1).astype(float) - target.images[i]).mean()
        assert off < 0.5 * shifted, "a pixel more would be worse"


def aligned(folder: Path, name: str, offset: float) -> Manifest:
    """A verifier of a fine checkerboard in a crop that begins at `offset` pixels of the photograph."""
    board = np.indices((SIDE, SIDE)).sum(0) % 2 * 2.0 - 1
    weights = np.repeat(board.ravel(), 3)[:, None] / (SIDE * SIDE * 3)
    path = write_linear(folder, weights=weights, side=SIDE, threshold=0.01, name=name)
    points = [[float(x - offset), float(y - offset)] for x, y in POINTS]
    with path.with_suffix(".toml").open("a") as stream:
        stream.write(f"[alignment]\ntemplate = {points}\n")
    return read_manifest(path)


POINTS = ((8, 8), (20, 9), (14, 14), (9, 20), (19, 21))


def test_what_resampling_alone_flips_is_counted_apart(tmp_path: Path) -> None:
    """Probes have a checkerboard that half a pixel of bilinear resampling wipes out; references have it too."""
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    board = (np.indices((28, 28)).sum(0) % 2 * 2.0 - 1)[..., None]
    rows = [",".join(["image", "confidence", *(f"{part}_{axis}" for part in PARTS for axis in "xy")])]
    for i in range(4):
        cv2.imwrite(str(photographs / f"{i}.png"), np.broadcast_to(128 + 40 * board, (28, 28, 3)).astype(np.uint8))
        rows.append(f"{i}.png,1," + ",".join(f"{x},{y}" for x, y in POINTS))
    (photographs / "landmarks.csv").write_text("\n".join(rows))
    (photographs / "pairs.csv").write_text("0.png,1.png,same\n2.png,3.png,same\n1.png,2.png,same\n")
    halfway, exact = aligned(tmp_path, "halfway", 4.5), aligned(tmp_path, "exact", 4.0)
    attacks = (Gaussian(levels=4, draws=8, largest=0.5),)
    _, record = audited(halfway, photographs, tmp_path / "run", attacks, "none")
    result = transferred(record, local_judge(exact, find_profile("none"), CPU, 0))
    assert [(b.goal, b.clean_errors, b.flips) for b in result.baseline] == [("dodging", 0, Rate(3, 3))]
    (dodging,) = result.results
    assert (dodging.crafted, dodging.asr, dodging.beyond_resampling) == (3, Rate(3, 3), 0), "none is the attack's own"


# Remote targets.


def triton_toml(folder: Path, url: str, max_calls: int = 1000) -> Path:
    tables = (folder / "linear.toml").read_text()
    path = folder / f"remote-{max_calls}.toml"
    path.write_text(
        f'schema = 1\nkind = "open-inference"\nname = "far"\nurl = "{url}"\nmodel = "linear"\nbatch = 16\n'
        + tables[tables.index("[input]") :]
        + LIMITS.format(max_calls)
    )
    return path


def test_a_remote_target_gives_what_the_same_verifier_gives_here(linear: tuple[Path, Assessment]) -> None:
    folder, _ = linear
    record = read_record(folder / "run")
    near = transferred(record, local_judge(record.manifest, find_profile("none"), CPU, record.seed))
    with serving(Triton(folder / "linear.onnx", "linear")) as server:
        far = transferred(record, remote_judge(triton_toml(folder, server.url), np.random.default_rng(0)))
        assert far.calls == len(server.seen)
        sent = [tensor for seen in server.seen if seen.document for tensor in seen.document["inputs"]]
    assert far.results == near.results
    assert far.baseline == near.baseline
    images = [np.array(t["data"], np.float32).reshape(t["shape"]) for t in sent]
    distinct = {image.tobytes() for batch in images for image in batch}
    assert len(distinct) == sum(map(len, images)), "no crop is paid for twice"


def test_what_was_judged_before_the_calls_ended_is_kept(linear: tuple[Path, Assessment]) -> None:
    folder, _ = linear
    record = read_record(folder / "run")
    with serving(Triton(folder / "linear.onnx", "linear")) as server:
        everything = transferred(record, remote_judge(triton_toml(folder, server.url), np.random.default_rng(0)))
        assert everything.calls is not None
        path = triton_toml(folder, server.url, everything.calls - 1)
        result = transferred(record, remote_judge(path, np.random.default_rng(0)))
        assert not result.complete
        assert "used up" in result.unavailable[-1].reason
        kept = {(r.attack, r.known) for r in result.results}
        assert kept
        assert result.results == tuple(r for r in everything.results if (r.attack, r.known) in kept)
        done = sixpixels("replay", folder / "run", "--remote", path)
        assert done.returncode == 0, done.stderr
        assert "NOT TESTED" in done.stdout
        none_left = triton_toml(folder, server.url, 3)
        refused(sixpixels("replay", folder / "run", "--remote", none_left), "nothing was transferred.*used up", 3)
        refused(sixpixels("replay", folder / "run", "--remote", triton_toml(folder, server.url, 2)), "used up")


def test_a_face_that_the_service_does_not_find_fails_its_pair_alone(
    linear: tuple[Path, Assessment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "example")
    record, service = read_record(linear[0] / "run"), Rekognition()
    unseen = cv2.imread(str(record.pairs.root / record.pairs.pairs[0].probe))

    def no_face_in_one(seen: Seen) -> Any:
        found = service(seen)
        gone = any(np.array_equal(image, unseen[..., ::-1]) for image in service.images[-2:])
        return answered({"__type": "InvalidParameterException"}, 400) if gone else found

    path = tmp_path / "remote.toml"
    with serving(no_face_in_one) as server:
        path.write_text(
            f'schema = 1\nkind = "rekognition"\nname = "amazon"\nregion = "eu-west-1"\nurl = "{server.url}"\n'
            f"threshold = 75\n[input]\nwidth = {SIDE}\nheight = {SIDE}\n" + LIMITS.format(1000)
        )
        result = transferred(record, remote_judge(path, np.random.default_rng(0)))
        assert result.calls == len(server.seen)
    affected = [p for p in record.pairs.pairs if record.pairs.pairs[0].probe in (p.probe, p.reference)]
    assert sum(b.failed for b in result.baseline) == len(affected) > 0
    assert sum(b.clean_errors for b in result.baseline) == 0
    pairs = {b.goal: b.pairs - b.failed for b in result.baseline}
    assert all(r.eligible == pairs[r.goal] for r in result.results)
    assert result.complete


def test_nothing_remote_is_called_unless_it_is_named(linear: tuple[Path, Assessment], tmp_path: Path) -> None:
    folder, _ = linear
    with serving(Triton(folder / "linear.onnx", "linear")) as server:
        for place in (tmp_path, folder):
            shutil.copy(triton_toml(folder, server.url), place / "remote.toml")
        environment = {**os.environ, "SIXPIXELS_REMOTE": str(tmp_path / "remote.toml")}
        arguments = ["--pairs", folder / "people", "--attacks", "gaussian", "--profiles", "none", "--provider", "cpu"]
        audit = ["audit", folder / "linear.onnx", *arguments, "--run", tmp_path / "run"]
        refused(sixpixels(*audit, cwd=tmp_path, env=environment), "SIXPIXELS_REMOTE: .* name it on the command", 4)
        for command, around in (
            (audit, None),
            (["evaluate", folder / "linear.onnx", "--pairs", folder / "people"], environment),
            (["replay", tmp_path / "run", "--on", folder / "linear.onnx"], environment),
        ):
            done = sixpixels(*command, cwd=tmp_path, env=around)
            assert done.returncode == 0, done.stderr
        assert not server.seen
        done = sixpixels("replay", tmp_path / "run", "--remote", tmp_path / "remote.toml", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert server.seen


# The command, and the run that it reads.


def on_itself(folder: Path) -> list[object]:
    return ["replay", folder / "run", "--on", folder / "linear.onnx", "--profile", "mean3"]


def test_the_page_fits_and_the_file_is_valid(linear: tuple[Path, Assessment]) -> None:
    folder, _ = linear
    for encoding in ("utf-8", "ascii"):
        environment = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": encoding}
        done = process(*on_itself(folder), env=environment)
        assert done.returncode == 0, done.stderr
        assert max(map(len, done.stdout.splitlines())) <= 80
        assert "…" not in done.stdout
        assert encoding != "ascii" or done.stdout.isascii()
        for expected in ("transfer: dodging", "transfer: impersonation", "fgsm", "gaussian", "mean3", "resampling"):
            assert expected in done.stdout
    (path,) = (folder / "run").glob("transfer-linear-mean3.json")
    jsonschema.validate(json.loads(path.read_text()), transfer_schema())
    done = sixpixels(*on_itself(folder), "--json")
    assert done.stdout == path.read_text()


def test_one_verifier_is_named(linear: tuple[Path, Assessment]) -> None:
    folder, _ = linear
    refused(sixpixels("replay", folder / "run"), "--on VERIFIER, or --remote", 4)
    refused(sixpixels("replay", folder / "run", "--on", "facenet-mini", "--remote", "r.toml"), "name one verifier", 4)
    refused(sixpixels("replay", folder / "run", "--remote", "r.toml", "--profile", "mean3"), "--profile", 4)
    refused(sixpixels("replay", folder / "run", "--remote", folder / "none.toml"), "none.toml: cannot be read")
    refused(sixpixels("replay", folder, "--on", "facenet-mini"), "is not the folder of a finished audit")


def test_a_run_whose_probes_are_gone_says_so(linear: tuple[Path, Assessment], tmp_path: Path) -> None:
    folder, _ = linear
    shutil.copytree(folder / "run", tmp_path / "run")
    one = min((tmp_path / "run" / "probes").glob("*.probes"))
    one.write_bytes(one.read_bytes()[:-20])
    record = read_record(tmp_path / "run")
    result = transferred(record, local_judge(record.manifest, find_profile("none"), CPU, record.seed))
    assert len(result.unavailable) == 1
    assert "missing or damaged" in result.unavailable[0].reason
    assert len(result.results) == 2 * 3, "of four sets of probes three are there, each with two goals"


def altered(content: dict[str, Any], key: str, value: Any) -> str:
    return json.dumps({**content, key: value})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schema", 9, "schema is 9"),
        ("model_sha256", "0" * 64, "has changed since the audit"),
        ("profiles", [["none", "0" * 64]], "profile none has changed"),
        ("profiles", [["nothing", ""]], "unknown profile"),
        ("profiles", "none", "is damaged"),
        ("attacks", [["gausian", {}]], "did you mean 'gaussian'"),
        ("attacks", [["gaussian", {"levels": 3}]], "has the parameters"),
        ("attacks", [3], "is damaged"),
        ("pairs", [["../../../etc/passwd", "a/0.png", True]], "leaves the folder"),
        ("pairs", [["a/77.png", "a/0.png", True]], "is missing; restore it"),
        ("pairs", [["a/0.png"]], "is damaged"),
        ("knowledge", ["all"], "must be one of zero, partial, perfect, query"),
        ("seed", "x", "is damaged"),
        ("root", 7, "is damaged"),
    ],
)
def test_a_record_is_not_believed(
    linear: tuple[Path, Assessment], tmp_path: Path, key: str, value: Any, message: str
) -> None:
    content = json.loads((linear[0] / "run" / "request.json").read_text())
    (tmp_path / "request.json").write_text(altered(content, key, value))
    with pytest.raises(InputError, match=message):
        read_record(tmp_path)
    del content[key]
    (tmp_path / "request.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="is damaged"):
        read_record(tmp_path)


def test_a_record_brings_the_request_back(linear: tuple[Path, Assessment], faces: tuple[Assessment, Record]) -> None:
    record = read_record(linear[0] / "run")
    assert record.attacks == (Fgsm(), Gaussian(levels=10, draws=2))
    assert [p.name for p in record.profiles] == ["none", "mean3"]
    assert (record.seed, record.knowledge) == (3, ("zero", "perfect"))
    assert record.manifest == read_manifest(linear[0] / "linear.onnx")
    content = json.loads((faces[1].folder / "request.json").read_text())
    assert content["root"] is None, "the embedded faces are wherever the toolkit is"
