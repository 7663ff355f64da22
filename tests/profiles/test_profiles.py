"""Profiles, and the hardened verifier as one graph."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.models import checker_node, write_linear
from toolkit.defenses.mean import Mean
from toolkit.errors import InputError, UsageError
from toolkit.files import sha256
from toolkit.profiles.harden import harden, write_hardened
from toolkit.profiles.profile import find_profile, read_profile, shipped_profiles
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.runtime import RuntimeVerifier, read_model

SIDE = 16


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
@pytest.mark.parametrize(
    "range_", [{"range": [0, 1]}, {"range": [0, 255], "mean": [127.5, 120.0, 110.0], "std": [128.0, 60.0, 50.0]}]
)
def test_hardened_graph_equals_defense_then_verifier(tmp_path: Path, layout: str, channels: str, range_: dict) -> None:  # type: ignore[type-arg]
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(SIDE * SIDE * 3, 4)).astype(np.float32)
    path = write_linear(tmp_path, weights=weights, side=SIDE, layout=layout, channels=channels, **range_)
    manifest, profile = read_manifest(path), find_profile("mean3")
    model = read_model(manifest)
    hardened = harden(model, manifest, profile)
    crops = rng.random((5, SIDE, SIDE, 3), np.float32)
    staged = RuntimeVerifier(manifest).embed(profile.numpy(crops))
    fused = RuntimeVerifier(manifest, hardened).embed(crops)
    np.testing.assert_allclose(fused, staged, rtol=1e-4, atol=1e-3 * np.abs(staged).max())
    assert np.abs(fused - RuntimeVerifier(manifest).embed(crops)).max() > 0.01 * np.abs(staged).max()

    before, after = checker_node(model).graph, checker_node(hardened).graph
    assert list(before.input) == list(after.input)
    assert list(before.output) == list(after.output)


def test_hardened_file_needs_nothing_of_this_project(tmp_path: Path) -> None:
    weights = np.ones((SIDE * SIDE * 3, 2), np.float32)
    manifest = read_manifest(write_linear(tmp_path, weights=weights, side=SIDE))
    hardened = harden(read_model(manifest), manifest, find_profile("mean3"))
    session = onnxruntime.InferenceSession(hardened, providers=["CPUExecutionProvider"])
    flat = np.full((2, SIDE, SIDE, 3), 0.5, np.float32)
    np.testing.assert_allclose(session.run(None, {"input": flat})[0], 0.5 * SIDE * SIDE * 3, rtol=1e-5)


def test_a_hardened_file_runs_in_a_process_that_has_only_onnxruntime(tmp_path: Path) -> None:
    weights = np.ones((SIDE * SIDE * 3, 2), np.float32)
    manifest = read_manifest(write_linear(tmp_path, weights=weights, side=SIDE))
    written = write_hardened(manifest, find_profile("mean3"), tmp_path / "out" / "hardened.onnx")
    program = (
        "import sys, numpy, onnxruntime\n"
        f"s = onnxruntime.InferenceSession({str(written.path)!r}, providers=['CPUExecutionProvider'])\n"
        f"y = s.run(None, {{'input': numpy.full((2, {SIDE}, {SIDE}, 3), 0.5, 'float32')}})[0]\n"
        "assert 'toolkit' not in sys.modules\n"
        "print(y[0, 0], s.get_modelmeta().custom_metadata_map['sixpixels.profile'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    value, profile = done.stdout.split(" ", 1)
    assert float(value) == pytest.approx(0.5 * SIDE * SIDE * 3, rel=1e-5)
    assert profile.strip() == find_profile("mean3").text.strip()


def test_a_hardened_file_is_a_verifier_with_its_own_manifest(tmp_path: Path) -> None:
    weights = np.random.default_rng(1).normal(size=(SIDE * SIDE * 3, 3)).astype(np.float32)
    manifest = read_manifest(write_linear(tmp_path, weights=weights, side=SIDE))
    profile = find_profile("mean3")
    written = write_hardened(manifest, profile, tmp_path / "hardened.onnx")
    own = read_manifest(written.path)
    assert own.name == "linear+mean3"
    assert (own.sha256, own.decision, own.input) == (written.sha256, manifest.decision, manifest.input)
    crops = np.random.default_rng(2).random((2, SIDE, SIDE, 3), np.float32)
    expected = RuntimeVerifier(manifest).embed(profile.numpy(crops))
    np.testing.assert_allclose(RuntimeVerifier(own).embed(crops), expected, rtol=1e-3, atol=1e-3)
    metadata = {p.key: p.value for p in checker_node(written.path.read_bytes()).metadata_props}
    assert metadata["sixpixels.verifier_sha256"] == sha256(manifest.model)
    with pytest.raises(UsageError, match="is the verifier itself"):
        write_hardened(manifest, profile, manifest.model)


def test_what_cannot_be_hardened_is_refused_with_the_place(tmp_path: Path) -> None:
    weights = np.ones((SIDE * SIDE * 3, 2), np.float32)
    manifest = read_manifest(write_linear(tmp_path, weights=weights, side=SIDE))
    profile = find_profile("mean3")

    def refused(change: Callable[[onnx.ModelProto], object], message: str) -> None:
        proto = onnx.load_model_from_string(read_model(manifest))
        change(proto)
        with pytest.raises(InputError, match=message):
            harden(proto.SerializeToString(), manifest, profile)

    def external(proto: onnx.ModelProto) -> None:
        tensor = proto.graph.initializer[0]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../secret")

    def custom(proto: onnx.ModelProto) -> None:
        proto.graph.node[0].domain, proto.graph.node[0].name = "their.ops", "odd"

    refused(lambda p: p.graph.input.add(name="mask"), r"inputs are \['input', 'mask'\]")
    refused(external, "'weights' is in another file")
    refused(custom, "'odd' is the custom operator their.ops.Flatten")


def test_the_empty_profile_changes_nothing(tmp_path: Path) -> None:
    weights = np.ones((SIDE * SIDE * 3, 2), np.float32)
    manifest = read_manifest(write_linear(tmp_path, weights=weights, side=SIDE))
    model = read_model(manifest)
    assert harden(model, manifest, find_profile("none")) == model


def test_per_image_standardization_cannot_be_hardened(tmp_path: Path) -> None:
    weights = np.ones((SIDE * SIDE * 3, 2), np.float32)
    path = write_linear(tmp_path, weights=weights, side=SIDE)
    toml = path.with_suffix(".toml")
    toml.write_text(toml.read_text().replace("[output]", 'standardization = "per-image"\n[output]'))
    manifest = read_manifest(path)
    with pytest.raises(InputError, match="each image is standardized before the graph"):
        harden(read_model(manifest), manifest, find_profile("mean3"))


def test_shipped_profiles_are_valid_and_named_like_their_files() -> None:
    for name, path in shipped_profiles().items():
        assert read_profile(path).name == name
    assert find_profile("mean3").defenses == (Mean(3),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('schema = 1\nname = "x"\n[[defence]]\nname = "mean"', "did you mean 'defense'"),
        ('schema = 1\nname = "x"\n[[defense]]\nname = "men"', "did you mean 'mean'"),
        ('schema = 1\nname = "x"\n[[defense]]\nname = "mean"\nsiz = 3', "did you mean 'size'"),
        ('schema = 1\nname = "x"\n[[defense]]\nname = "mean"\nsize = 99', "from 2 to 31"),
        ('schema = 1\nname = "x"\n[[defense]]\nname = "mean"\nsize = "3"', "type int"),
        ('schema = 2\nname = "x"', "schema"),
        ("schema = 1", "name"),
        ("schema = ", "not valid TOML"),
        (f"schema = {'9' * 5000}", "not valid TOML"),
        (f"schema = 1\ndefense = {'[' * 5000}{']' * 5000}", "not valid TOML"),
        (
            f'schema = 1\nname = "x"\n[[defense]]\nname = "noise"\nsigma = 1{"0" * 400}',
            "sigma must be an integer of at most 64 bits",
        ),
        ('schema = 1\nname = "x"\n[[defense]]\nname = "noise"\nsigma = nan', "sigma must be finite"),
        ('schema = 1\nname = "x"\n[[defense]]\nname = "choice"\noptions = [{ name = "mean", siz = 3 }]', "mean 'size'"),
    ],
)
def test_broken_profiles_name_the_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_profile(path)
    assert "p.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("step", "smallest"),
    [
        ('name = "mean"\nsize = 31', 16),
        ('name = "wiener"\nsize = 31', 16),
        ('name = "gaussian-blur"\nsigma = 5', 16),
        ('name = "bilateral"\nsize = 9', 5),
        ('name = "choice"\noptions = [{ name = "mean", size = 3 }, { name = "mean", size = 31 }]', 16),
    ],
)
def test_what_is_wider_than_the_crop_is_refused_and_what_just_fits_is_run(
    tmp_path: Path, step: str, smallest: int
) -> None:
    path = tmp_path / "p.toml"
    path.write_text(f'schema = 1\nname = "wide"\n[[defense]]\nname = "median"\n[[defense]]\n{step}')
    profile = read_profile(path)
    for side in (max(8, smallest - 1), max(8, smallest)):
        weights = np.ones((side * side * 3, 2), np.float32)
        manifest = read_manifest(write_linear(tmp_path, weights=weights, side=side, name=f"side{side}"))
        if side < smallest:
            place = rf"profile wide: defense 2 \(.*\) needs crops of at least {smallest} x {smallest} .* {side} x"
            with pytest.raises(InputError, match=place):
                harden(read_model(manifest), manifest, profile)
        else:
            hardened = RuntimeVerifier(manifest, harden(read_model(manifest), manifest, profile), seed=0)
            assert np.isfinite(hardened.embed(np.full((2, side, side, 3), 0.5, np.float32))).all()


def test_unknown_profile_offers_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'median3'"):
        find_profile("mediam3")
