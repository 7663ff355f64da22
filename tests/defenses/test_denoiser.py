"""The denoisers: one thing in three forms at any size, and nothing begins with a wrong file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.defenses.test_agreement import run_onnx
from tests.models import write_linear
from toolkit.defenses import denoiser
from toolkit.defenses.base import sides
from toolkit.defenses.choice import Choice
from toolkit.defenses.denoiser import Denoiser, shipped_denoisers
from toolkit.defenses.mean import Mean
from toolkit.errors import InputError
from toolkit.files import bundled, sha256
from toolkit.profiles.harden import harden
from toolkit.profiles.profile import find_profile, read_profile
from toolkit.profiles.sizes import check_sizes
from toolkit.verifiers.manifest import find_manifest, read_manifest
from toolkit.verifiers.runtime import RuntimeVerifier, read_model

PROFILES = {
    "unet": "n2c", "red30": "red30", "dncnn": "dncnn", "smoothing": "smoothed", "unet-robust": "unet-robust",
}  # fmt: skip


def test_all_are_shipped_with_profile_and_card() -> None:
    assert shipped_denoisers() == sorted(PROFILES)
    for model, profile in PROFILES.items():
        assert find_profile(profile).defenses[-1] == Denoiser(model)
        assert (bundled("models") / model / "CARD.md").is_file()
        assert max(p.stat().st_size for p in (bundled("models") / model).iterdir()) < 5 << 20


@pytest.mark.parametrize("model", sorted(PROFILES))
@pytest.mark.parametrize("shape", [(2, 64, 64), (3, 45, 71), (1, 3, 40)])
def test_the_three_forms_agree(model: str, shape: tuple[int, int, int]) -> None:
    crops = np.random.default_rng(0).random((*shape, 3), np.float32)
    defense = Denoiser(model)
    expected = defense.numpy(crops)
    assert expected.min() >= 0
    assert expected.max() <= 1
    np.testing.assert_allclose(run_onnx(defense, crops), expected, atol=1e-4)
    np.testing.assert_allclose(defense.tensorflow(crops).numpy(), expected, atol=1e-4)


# unet-robust was trained on attacks alone.
@pytest.mark.parametrize("model", sorted(set(PROFILES) - {"unet-robust"}))
def test_noise_is_taken_off_a_flat_image(model: str) -> None:
    clean = np.full((1, 64, 64, 3), 0.5, np.float32)
    noisy = clean + np.random.default_rng(1).normal(0, 25 / 255, clean.shape).astype(np.float32)
    left = Denoiser(model).numpy(noisy) - clean
    assert left.std() < 0.3 * (noisy - clean).std()


def test_gradients_are_of_the_deployed_network_even_if_it_is_first_built_inside_a_trace() -> None:
    from toolkit.verifiers.tensorflow import TensorFlowVerifier

    denoiser._network.cache_clear()
    manifest, profile = find_manifest("facenet-mini"), find_profile("n2c")
    crops = np.random.default_rng(5).random((2, 160, 160, 3), np.float32)
    deployed = RuntimeVerifier(manifest, harden(read_model(manifest), manifest, profile)).embed(crops)
    np.testing.assert_allclose(TensorFlowVerifier(manifest, profile.tensorflow).embed(crops), deployed, atol=1e-4)


@pytest.mark.parametrize("opset", [13, 15, 21])
def test_a_verifier_of_another_opset_is_hardened(tmp_path: Path, opset: int) -> None:
    weights = np.random.default_rng(2).normal(size=(32 * 32 * 3, 4)).astype(np.float32)
    path = write_linear(tmp_path, weights=weights, side=32)
    older = onnx.version_converter.convert_version(onnx.load(path), opset)
    path.write_bytes(older.SerializeToString())
    manifest, profile = read_manifest(path), find_profile("n2c")
    crops = np.random.default_rng(3).random((2, 32, 32, 3), np.float32)
    fused = RuntimeVerifier(manifest, harden(read_model(manifest), manifest, profile)).embed(crops)
    staged = RuntimeVerifier(manifest).embed(profile.numpy(crops))
    np.testing.assert_allclose(fused, staged, rtol=1e-3, atol=1e-3)


def write_profile(folder: Path, model: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(f'schema = 1\nname = "mine"\n[[defense]]\nname = "denoiser"\nmodel = "{model}"\n')
    return path


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A profile of one's own with a copy of the U-Net beside it."""
    shutil.copytree(bundled("models") / "unet", tmp_path / "own")
    return write_profile(tmp_path, "own/denoiser.toml")


def test_a_denoiser_of_ones_own(copied: Path) -> None:
    crops = np.random.default_rng(4).random((1, 32, 32, 3), np.float32)
    profile = read_profile(copied)
    np.testing.assert_array_equal(profile.numpy(crops), find_profile("n2c").numpy(crops))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("range = [0, 1]", "range = [0, 255]", r"input.range must be \[0, 1\]"),
        ('channels = "RGB"', 'channels = "BGR"', "input.channels must be 'RGB'"),
        ('layout = "NCHW"', 'layout = "NHWC"', "input.layout must be 'NCHW'"),
        ('file = "unet.onnx"', 'file = "../../unet.onnx"', "leaves the folder"),
        ('file = "unet.onnx"', 'file = "other.onnx"', "is missing"),
        ('sha256 = "', 'sha256 = "0', "was changed or damaged"),
        ("[input]", "[inputs]", "layout is missing"),
        ("schema = 1", "schema = 1\nextra = 2", "extra is not a known key"),
    ],
)
def test_a_wrong_manifest_is_refused(copied: Path, old: str, new: str, message: str) -> None:
    manifest = copied.parent / "own" / "denoiser.toml"
    manifest.write_text(manifest.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_profile(copied)


def test_a_network_of_one_channel_is_refused(copied: Path) -> None:
    manifest, model = copied.parent / "own" / "denoiser.toml", copied.parent / "own" / "unet.onnx"
    proto = onnx.load(model)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    before = sha256(model)
    model.write_bytes(proto.SerializeToString())
    manifest.write_text(manifest.read_text().replace(before, sha256(model)))
    with pytest.raises(InputError, match=r"takes and gives float \(N, 3, H, W\)"):
        read_profile(copied)


def test_a_network_of_fixed_sides_is_refused_before_a_verifier_of_others(copied: Path, tmp_path: Path) -> None:
    manifest, model = copied.parent / "own" / "denoiser.toml", copied.parent / "own" / "unet.onnx"
    proto = onnx.load(model)
    for value in (proto.graph.input[0], proto.graph.output[0]):
        for dimension, side in zip(value.type.tensor_type.shape.dim[2:], (48, 32), strict=True):
            dimension.dim_value = side
    before = sha256(model)
    model.write_bytes(proto.SerializeToString())
    manifest.write_text(manifest.read_text().replace(before, sha256(model)))
    verifier = read_manifest(write_linear(tmp_path, weights=np.ones((32 * 32 * 3, 2), np.float32), side=32))
    with pytest.raises(InputError, match=r"defense 1 \(denoiser\) is a network for crops of 32 x 48 pixels.* 32 x 32"):
        harden(read_model(verifier), verifier, read_profile(copied))
    fixed = Denoiser(str(manifest))
    chosen = Choice((Mean(), fixed))
    assert sides(chosen) == sides(fixed) == (48, 32)
    with pytest.raises(InputError, match=r"defense 1 \(choice\) is a network for crops of 32 x 48 pixels.* 32 x 32"):
        check_sizes([chosen], verifier.input, "profile x")
    assert sides(Choice((Mean(), Denoiser()))) == (None, None)


@pytest.mark.parametrize("model", ["nowhere", "../unet", "/etc/denoiser.toml", "own/nothing.toml"])
def test_a_model_that_is_not_there_is_named(tmp_path: Path, model: str) -> None:
    with pytest.raises(InputError, match=r"no such denoiser|must be a shipped name|leaves the folder"):
        read_profile(write_profile(tmp_path, model))


def test_other_weights_are_another_profile(copied: Path) -> None:
    before = read_profile(copied).sha256
    folder = copied.parent / "other"
    shutil.copytree(copied.parent / "own", folder)
    model, manifest = folder / "unet.onnx", folder / "denoiser.toml"
    old = sha256(model)
    proto = onnx.load(model)
    proto.doc_string = "another file"
    model.write_bytes(proto.SerializeToString())
    manifest.write_text(manifest.read_text().replace(old, sha256(model)))
    shutil.rmtree(copied.parent / "own")
    folder.rename(copied.parent / "again")
    copied.write_text(copied.read_text().replace("own/", "again/"))
    changed = read_profile(copied)
    copied.write_text(copied.read_text())
    assert changed.sha256 != before
    assert changed.defenses[0].sha256 != old  # type: ignore[attr-defined]
