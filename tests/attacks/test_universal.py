"""One perturbation for all faces: what it learns, and from whom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.attacks.test_attacks import linear_task
from toolkit.attacks.base import Crafted, Task
from toolkit.attacks.universal import Universal
from toolkit.audit.clean.bench import Bench
from toolkit.audit.clean.run import run_clean
from toolkit.audit.crafting.craft import Chunk, Series
from toolkit.audit.crafting.jobs import InProcess, finish
from toolkit.audit.crafting.learn import people_halves
from toolkit.audit.crafting.series import series_steps
from toolkit.errors import InputError
from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.pairs import embedded_pairs, load_pairs
from toolkit.pixels import to_unit
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.manifest import find_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier
from toolkit.verifiers.tensorflow import TensorFlowVerifier


def test_on_a_linear_verifier_it_is_the_sign_of_the_weights() -> None:
    model, task = linear_task(8)
    own = Task(
        task.probes, model.embed(task.probes) - 1e-3, np.ones(8, np.bool_), task.decision,
        (np.random.default_rng(0),) * 8,
    )  # fmt: skip
    attack = Universal(epsilon=0.02, batch=4)
    delta = attack.train(model, own)
    weights = model.weights[:, 0].reshape(delta.shape)
    # The closed form: the farthest that a step of this Linf norm goes.
    np.testing.assert_allclose(delta, 0.02 * np.sign(weights), atol=1e-6)
    crafted = attack.craft(model, replace(task, universal=np.broadcast_to(delta, task.probes.shape)))
    reach = 0.02 * np.abs(weights).sum()
    assert reach > 0.75, "so that dodging pairs must fall"
    assert crafted.success[task.dodging].all()
    assert np.abs(to_unit(crafted.probes8) - task.probes).max() <= 0.02 * (1 + 1e-4)


def test_it_must_be_trained() -> None:
    model, task = linear_task()
    with pytest.raises(InputError, match="too few people"):
        Universal().craft(model, task)


@pytest.fixture(scope="module")
def crops() -> CropSet:
    manifest = find_manifest("facenet-mini")
    assert manifest.alignment is not None
    return crop_pairs(load_pairs(embedded_pairs(), limit=40), 160, 160, manifest.alignment.template)


def test_nobody_is_attacked_by_what_was_learned_from_them(
    crops: CropSet, tmp_path: Path, facenet_mini: TensorFlowVerifier
) -> None:
    manifest = find_manifest("facenet-mini")
    runtime = RuntimeVerifier(manifest, execution=Execution("cpu", threads=1))
    clean = run_clean(runtime, crops, manifest.decision)
    taught: list[set[bytes]] = []

    class Watched(Universal):
        def train(self, model, task):  # type: ignore[no-untyped-def]
            taught.append({np.rint(255 * probe).astype(np.uint8).tobytes() for probe in task.probes})
            return super().train(model, task)

    attack = Watched(epochs=4)
    series = Series(attack, find_profile("none"), "m", crops, manifest.decision, 0, tmp_path)
    bench = Bench(manifest, Execution("cpu", threads=1), 0)
    bench.gradients = lambda profile: facenet_mini
    chunks = []
    pool = InProcess(bench)
    for (_, rows), crafted in finish(series_steps(series, clean, pool), pool):
        assert isinstance(crafted, Crafted)
        chunks.append(Chunk(rows, crafted))
    assert len(taught) == 2, "once for each half, whatever the number of chunks"
    assert len(chunks) == 2
    person = {pair.probe: str(pair.probe_identity) for pair in crops.pairs}
    owner = {crops.images[place].tobytes(): person[crops.names[place]] for place in crops.index[:, 0]}
    for half, images in enumerate(taught):
        attacked = {str(p.probe_identity) for p, h in zip(crops.pairs, people_halves(crops), strict=True) if h == half}
        assert attacked
        assert not attacked & {owner[image] for image in images}
    dodged = 0
    for chunk in chunks:
        for row, success in zip(chunk.rows, chunk.crafted.success8, strict=True):
            dodged += int(success and crops.pairs[row].genuine and clean.eligible[row])
    genuine = np.array([pair.genuine for pair in crops.pairs])
    assert dodged >= (genuine & clean.eligible).sum() / 2
