"""Judges: verifiers that decide pairs of 8-bit crops. They run here, on a model server, or as a remote service."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Measurer
from toolkit.errors import UsageError
from toolkit.faces.carry import View
from toolkit.pixels import Bools, Float, Images, to_unit
from toolkit.profiles.harden import deploy
from toolkit.profiles.profile import Profile, find_profile
from toolkit.verifiers.crops import view_of
from toolkit.verifiers.manifest import Decision, Manifest, find_manifest
from toolkit.verifiers.onnx_file import model_sha256
from toolkit.verifiers.remote.calls import Caller
from toolkit.verifiers.remote.config import read_remote
from toolkit.verifiers.remote.described import described
from toolkit.verifiers.remote.ledger import Ledger
from toolkit.verifiers.remote.service import open_service
from toolkit.verifiers.remote.verifier import RemoteVerifier
from toolkit.verifiers.runtime import Execution, read_model
from toolkit.verifiers.scores import is_same

Crops = NDArray[np.uint8]
# Crops per batch of embeddings.
_BATCH = 256
# Embeddings that are kept. Replaying the probes of many pairs must not fill the memory.
_MOST_KNOWN = 20_000


class Judge(Protocol):
    """A verifier that decides pairs.

    Attributes:
        name: name of the verifier.
        identity: SHA-256 of its file, or its address.
        view: the size and alignment of its crops.
        profile: name of its profile. For a remote verifier, the profile is unknown and this is "none".
        caller: counts the calls of a remote verifier; None for a local one.
    """

    name: str
    identity: str
    view: View
    profile: str
    caller: Caller | None

    def same(self, probes: Crops, references: Crops) -> tuple[Bools, Bools]:
        """Decide pairs of crops (N, H, W, 3).

        Returns:
            Two arrays (N,): whether the pair is "same", and whether the verifier rejects the probe without a decision
            (because it finds no face, or its detector flags the probe).
        """
        ...


@dataclass
class EmbeddingJudge:
    """Decides by the distance of embeddings. It embeds each distinct crop once, as long as it remembers it."""

    name: str
    identity: str
    view: View
    embed_and_score: Callable[[Images], tuple[NDArray[np.float32], NDArray[np.float32]]]
    compare: Measurer
    decision: Decision
    alarm: float = np.inf
    profile: str = "none"
    caller: Caller | None = None
    _known: dict[bytes, tuple[NDArray[np.float32], np.float32]] = field(default_factory=dict)

    def same(self, probes: Crops, references: Crops) -> tuple[Bools, Bools]:
        """See `Judge`. Probes with an attack score above `alarm`, and pairs without a face, are rejected."""
        d, scores = self.measure(probes, references)
        return is_same(self.decision, d), (scores > self.alarm) | np.isnan(d)

    def measure(self, probes: Crops, references: Crops) -> tuple[Float, NDArray[np.float32]]:
        """Return the distances (N,) of pairs of crops (N, H, W, 3), and the attack scores (N,) of the probes."""
        if not len(probes):
            return np.zeros(0), np.zeros(0, np.float32)
        (embeddings, scores), (others, _) = self._embedded(probes), self._embedded(references)
        return self.compare(embeddings, others), scores

    def _embedded(self, crops: Crops) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        keys = [_digest(crop) for crop in crops]
        new = list({key: i for i, key in enumerate(keys) if key not in self._known}.values())
        for start in range(0, len(new), _BATCH):
            rows = new[start : start + _BATCH]
            for row, *known in zip(rows, *self.embed_and_score(to_unit(crops[rows])), strict=True):
                self._known[keys[row]] = (known[0], known[1])
        embeddings, scores = zip(*(self._known[key] for key in keys), strict=True)
        return np.stack(embeddings), np.stack(scores)


@dataclass
class RemoteJudge:
    """Decides by a service. Each distinct request is asked once."""

    name: str
    identity: str
    view: View
    verifier: RemoteVerifier
    caller: Caller | None
    profile: str = "none"

    def same(self, probes: Crops, references: Crops) -> tuple[Bools, Bools]:
        """See `Judge`. Pairs in which the service finds no face are rejected."""
        verifier = self.verifier
        d = verifier.compare(*(verifier.embed(to_unit(crops)) for crops in (probes, references)))
        return is_same(verifier.decision, d), np.isnan(d)


def find_judge(on: str | None, remote: Path | None, profile: str, execution: Execution, seed: int) -> Judge:
    """Find the verifier that a user names.

    Args:
        on: a local verifier, or None.
        remote: the `remote.toml` of a remote verifier, or None.
        profile: the profile that the local verifier is deployed with.
        execution: how ONNX Runtime runs the local verifier.
        seed: seed of a random profile, or of the pauses between repeated calls.

    Raises:
        UsageError: both verifiers are named, or none, or a profile for a remote one.
        SixpixelsError: see `local_judge` and `remote_judge`.
    """
    if (on is None) == (remote is None):
        raise UsageError("name one verifier to replay on: --on VERIFIER, or --remote remote.toml")
    if on is not None:
        return local_judge(find_manifest(on), find_profile(profile), execution, seed)
    if remote is None or profile != "none":
        raise UsageError("--profile works only with --on; a remote verifier has its own defenses")
    return remote_judge(remote, np.random.default_rng(seed))


def local_judge(manifest: Manifest, profile: Profile, execution: Execution, seed: int) -> EmbeddingJudge:
    """Load a local verifier with a profile.

    Args:
        manifest: the verifier.
        profile: the profile that it is deployed with.
        execution: how ONNX Runtime runs it.
        seed: see `RuntimeVerifier`.

    Raises:
        SixpixelsError: the verifier cannot be loaded, or does not fit the profile.
    """
    verifier = deploy(read_model(manifest), manifest, profile, execution, seed)
    return EmbeddingJudge(
        name=manifest.name,
        identity=model_sha256(manifest.model),
        view=view_of(manifest.input, manifest.alignment),
        embed_and_score=verifier.embed_and_score,
        compare=verifier.compare,
        decision=manifest.decision,
        alarm=verifier.manifest.alarm,
        profile=profile.name,
    )


def remote_judge(path: Path, rng: np.random.Generator) -> Judge:
    """Connect to a remote verifier.

    Args:
        path: the `remote.toml` that describes it.
        rng: randomizes the pauses between repeated calls.

    Raises:
        SixpixelsError: the file is not valid, or the server does not answer, refuses, or has another model.
    """
    remote = read_remote(path)
    caller = Caller(str(path), remote.limits, rng)
    verifier = RemoteVerifier(described(remote), open_service(remote, caller), caller, Ledger(None, remote.identity))
    return RemoteJudge(remote.name, remote.address, view_of(remote, remote.alignment), verifier, caller)


def decided_rightly(judge: Judge, probes: Crops, references: Crops, genuine: Bools) -> tuple[Bools, Bools]:
    """For each pair, (N,) and (N,): whether it is decided correctly, and whether its probe is rejected."""
    same, failed = judge.same(probes, references)
    return (same == genuine) & ~failed, failed


def all_decided_rightly(
    judge: Judge, see: Callable[[NDArray[np.intp]], tuple[Crops, Crops]], genuine: Bools, places: NDArray[np.intp]
) -> tuple[Bools, Bools]:
    """Do what `decided_rightly` does for the pairs `places` (m,), with the crops of a few pairs at a time in memory.

    Args:
        judge: who decides.
        see: returns the crops (k, H, W, 3) of the probes and the references of some pairs.
        genuine: (n,), whether each pair is of one person.
        places: (m,), pairs out of n.

    Returns:
        For each of the n pairs, (n,) and (n,): whether it is decided correctly, and whether its probe is rejected. Both
        are false for pairs that are not in `places`.
    """
    right, failed = np.zeros((2, len(genuine)), np.bool_)
    for start in range(0, len(places), _BATCH):
        few = places[start : start + _BATCH]
        right[few], failed[few] = decided_rightly(judge, *see(few), genuine[few])
    return right, failed


def _digest(crop: Crops) -> bytes:
    return hashlib.sha256(crop.tobytes()).digest()
