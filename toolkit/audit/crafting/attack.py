"""One attack in one function call, without a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, Crafted, Task, flipped, is_trained
from toolkit.attacks.norms import sizes
from toolkit.attacks.settings import apply_settings
from toolkit.audit.clean.bench import Bench
from toolkit.audit.crafting.blind import with_blind_tries
from toolkit.audit.crafting.craft import pair_generator
from toolkit.errors import UsageError
from toolkit.pixels import Bools, Float, Images, to_8bit, to_unit
from toolkit.profiles.profile import Profile, find_profile
from toolkit.registry import choose, discover
from toolkit.verifiers.manifest import Manifest, find_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier


@dataclass(frozen=True)
class AttackResult:
    """The results of an attack on N pairs.

    Attributes:
        probes: (N, H, W, 3) uint8, RGB: the adversarial image if the attack succeeded, else the clean one.
        success: (N,), whether the deployed verifier's decision on the 8-bit probe meets the goal, and no detector flags
            the probe.
        eligible: (N,), whether the verifier decided the clean pair correctly. Only these pairs count: the attack
            success rate is ``success[eligible].mean()``.
        l2, linf: (N,), norms of the 8-bit perturbation, in units of the pixel range [0, 1].
        rms: (N,), root mean square of the 8-bit perturbation, in 1/255.
        pixels: (N,), the number of pixels that the 8-bit perturbation changes, whatever channels change.
        probes_float: (N, H, W, 3) float32 in [0, 1]: the probes before rounding to 8 bits.
        success_float: (N,), whether the attacked model's decision on the float probe meets the goal.
        evaluations: (N,), how many times the attack ran the model on the pair. A gradient counts as one run.
    """

    probes: NDArray[np.uint8]
    success: Bools
    eligible: Bools
    l2: Float
    linf: Float
    rms: Float
    pixels: NDArray[np.int64]
    probes_float: Images
    success_float: Bools
    evaluations: NDArray[np.int64]


def attack_verifier(
    verifier: str | Path | Manifest,
    crops: NDArray[Any],
    references: NDArray[Any],
    goal: Literal["dodging", "impersonation"],
    attack: str | Attack = "deepfool",
    *,
    settings: Sequence[str] = (),
    profile: str | Path | Profile = "none",
    seed: int = 0,
    execution: Execution | None = None,
) -> AttackResult:
    """Attack pairs of crops. The attacker knows the verifier and its profile.

    Args:
        verifier: a shipped model's name, an .onnx file with a manifest beside it, a `model.toml`, or a manifest.
        crops: (N, H, W, 3), RGB, aligned: uint8, or float in [0, 1], which is rounded to 8 bits.
        references: the references of the crops: crops (N, H, W, 3), or embeddings (N, D) from `embed_crops`.
        goal: dodging for genuine pairs, or impersonation for impostor pairs.
        attack: a name, or an attack.
        settings: parameters of the attack, as for ``--set``: ``("pgd.epsilon=4/255",)``.
        profile: the profile that the verifier is deployed with: a shipped name, a .toml file, or a profile.
        seed: seed of every random choice. The random numbers of pair i do not depend on the other pairs.
        execution: how ONNX Runtime runs the verifier.

    Raises:
        UsageError: an array has the wrong shape or values, or an attack, setting or profile does not exist.
        InputError: the verifier cannot be used, or the attack needs gradients that cannot be computed.
    """
    manifest, deployed = find_manifest(verifier), find_profile(profile)
    bench = Bench(manifest, execution or Execution(), seed)
    chosen = _chosen(attack, settings)
    probes = _images(crops, "crops", manifest)
    judge = bench.deployed(deployed)
    embeddings, start = _references(references, len(probes), judge, manifest)
    dodging = np.full(len(probes), choose("goal", [goal], {"dodging": True, "impersonation": False})[0])
    ids = [str(i) for i in range(len(probes))]
    task = Task(
        to_unit(probes),
        embeddings,
        dodging,
        manifest.decision,
        tuple(pair_generator(seed, chosen.name, one) for one in ids),
        start,
        judge.manifest.alarm,
        None if manifest.alignment is None else np.array(manifest.alignment.template),
    )
    side: Any = bench.side(chosen, deployed)
    crafted = with_blind_tries(chosen.craft(side, task), chosen, side, task, ids, seed)
    return _result(crafted, judge, task)


def embed_crops(
    verifier: str | Path | Manifest,
    crops: NDArray[Any],
    *,
    profile: str | Path | Profile = "none",
    execution: Execution | None = None,
) -> NDArray[np.float32]:
    """Compute embeddings (N, D) float32 of crops, for `attack_verifier`.

    Args:
        verifier: see `attack_verifier`.
        crops: (N, H, W, 3), see `attack_verifier`.
        profile: see `attack_verifier`.
        execution: how ONNX Runtime runs the verifier.

    Raises:
        SixpixelsError: the verifier, the profile or the crops cannot be used.
    """
    manifest = find_manifest(verifier)
    bench = Bench(manifest, execution or Execution(), 0)
    return bench.deployed(find_profile(profile)).embed(to_unit(_images(crops, "crops", manifest)))


def _chosen(attack: str | Attack, settings: Sequence[str]) -> Attack:
    found: Attack = choose("attack", [attack], discover("attack"))[0] if isinstance(attack, str) else attack
    if is_trained(found):
        raise UsageError(f"{found.name} must be trained on photos of other people first; run it in an audit instead")
    return apply_settings([found], settings)[0]


def _images(images: NDArray[Any], what: str, manifest: Manifest) -> NDArray[np.uint8]:
    """Check crops against the manifest, and round them to 8 bits."""
    array = np.asarray(images)
    shape = (manifest.input.height, manifest.input.width, 3)
    if array.ndim != 4 or array.shape[1:] != shape:
        wanted = ", ".join(map(str, shape))
        raise UsageError(f"{what} have the shape {array.shape}; {manifest.name} takes (N, {wanted})")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f" or not np.isfinite(array).all() or (array < 0).any() or (array > 1).any():
        raise UsageError(f"{what} must be uint8, or floats from 0 to 1")
    return to_8bit(array.astype(np.float32))


def _references(
    references: NDArray[Any], count: int, judge: RuntimeVerifier, manifest: Manifest
) -> tuple[NDArray[np.float32], Images | None]:
    """Embeddings (N, D) of the references, and their crops if known, because decision-based attacks start from them."""
    array = np.asarray(references)
    if len(array) != count:
        raise UsageError(f"there are {count} crops and {len(array)} references; give one reference for each crop")
    if array.ndim == 2:
        if array.shape[1] % manifest.output.size or not np.isfinite(array).all():
            raise UsageError(f"embeddings of references must be finite numbers (N, {manifest.output.size})")
        return array.astype(np.float32), None
    photographs = to_unit(_images(array, "references", manifest))
    return judge.embed(photographs), photographs


def _result(crafted: Crafted, judge: RuntimeVerifier, task: Task) -> AttackResult:
    probes = to_unit(crafted.probes8)
    (before, unnoticed_before), (after, unnoticed) = (_judged(judge, images, task) for images in (task.probes, probes))
    delta = probes - task.probes
    l2 = sizes("l2", delta)
    return AttackResult(
        probes=crafted.probes8,
        success=crafted.success8 & after & unnoticed,
        eligible=~before & unnoticed_before,
        l2=l2,
        linf=sizes("linf", delta),
        rms=255 * l2 / np.sqrt(delta[0].size if len(delta) else 1),
        pixels=sizes("l0", delta).astype(np.int64),
        probes_float=crafted.probes,
        success_float=crafted.success,
        evaluations=crafted.evaluations,
    )


def _judged(judge: RuntimeVerifier, images: Images, task: Task) -> tuple[Bools, Bools]:
    """For each image, (N,) and (N,): whether the decision meets the goal, and whether the detector lets it pass."""
    embeddings, scores = judge.embed_and_score(images)
    d = judge.compare(embeddings, task.references)
    return flipped(d, task.dodging, task.decision), scores <= task.alarm
