"""The bench: builds the verifier behind each profile once, as it is deployed and as attackers see it."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import cache, cached_property
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, Runtime
from toolkit.pixels import Images
from toolkit.profiles.harden import deploy, hardened_manifest
from toolkit.profiles.profile import Profile
from toolkit.verifiers.lipschitz import check_lipschitz
from toolkit.verifiers.manifest import Manifest
from toolkit.verifiers.parity import rounding_of, takes_bytes
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, open_model, try_model

if TYPE_CHECKING:
    from toolkit.verifiers.tensorflow import TensorFlowVerifier
    from toolkit.verifiers.white_box import WhiteBox

V = TypeVar("V")

# For a random profile, gradients are averaged over this many draws (expectation over transformation).
_DRAWS = 8
# For a vote, over this many, because single draws differ much.
_VOTING_DRAWS = 8


class Deployed(Runtime, Protocol):
    """A verifier that decides whether attacks succeed: a file that runs here, or a service."""

    @property
    def manifest(self) -> Manifest:
        """Its description."""
        ...

    @property
    def provider(self) -> str:
        """The execution provider that runs it, or "remote"."""
        ...

    def embed_and_score(self, crops: Images, draw: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return embeddings (N, D) and attack scores (N,); `draw` is the number of the draw of random defenses."""
        ...


class Verifiers(Protocol):
    """The verifiers of an audit: a `Bench`, or those of a service."""

    @property
    def manifest(self) -> Manifest:
        """The description of the verifier."""
        ...

    @property
    def model_sha256(self) -> str:
        """The hash of its file, or of what the answers of a service depend on."""
        ...

    @property
    def seed(self) -> int:
        """The seed of the audit."""
        ...

    @property
    def deployed(self) -> Callable[[Profile], Deployed]:
        """Function from a profile to the verifier that decides whether an attack succeeds."""
        ...

    def side(self, attack: Attack, known: Profile) -> Any:
        """The model that an attack works on."""
        ...


class Bench:
    """The verifiers that attacks and replays run on. An audit has one bench, and so has each of its workers.

    Several threads may use a bench at once.

    Attributes:
        manifest, execution, seed: those of the audit.
        voting_draws: gradients of a vote are averaged over so many draws.
        model_sha256: SHA-256 of the model's file.
        deployed: function from a profile to the verifier that decides whether an attack succeeds.
        attacked: function from a profile to the verifier that an attacker without gradients queries. For a random
            profile it makes other random draws than `deployed`, as a deployment draws anew at every call.
        gradients: function from a profile to the original model behind the differentiable form of the profile.
    """

    def __init__(self, manifest: Manifest, execution: Execution, seed: int, voting_draws: int = _VOTING_DRAWS) -> None:
        """Read the model file. Verifiers are built when they are first used.

        Raises:
            InputError: the model cannot be read, or is steeper than its manifest promises.
        """
        self.manifest, self.seed, self.voting_draws = manifest, seed, voting_draws
        model = open_model(manifest)
        try_model(model.content, manifest)
        check_lipschitz(model.content, manifest)
        self._model, self.model_sha256 = model.content, model.sha256
        self.gradients = _once(self._gradients)
        self._run_on(execution)

    def _run_on(self, execution: Execution) -> None:
        self.execution = execution
        self.deployed = _once(self._deployed)
        self.attacked = _once(self._attacked)

    def beside(self, threads: int) -> Bench:
        """A bench of the same verifiers, whose sessions of ONNX Runtime are others, with another number of threads.

        Gradients come from this bench.
        """
        other = copy(self)
        other._run_on(replace(self.execution, threads=threads))  # noqa: SLF001 - it is this class's own
        return other

    @cached_property
    def rounding(self) -> float:
        """What two forms of the model may differ by, as a share of a distance; see `rounding_of`."""
        return rounding_of(self._model, self.manifest.model)

    @cached_property
    def of_bytes(self) -> bool:
        """Whether the model takes pixels as bytes."""
        return takes_bytes(self._model, self.manifest.model)

    def white_box(self, profile: Profile) -> WhiteBox:
        """The access of an attacker who knows the profile: queries and gradients."""
        from toolkit.verifiers.white_box import WhiteBox

        return WhiteBox(self.attacked(profile), self.gradients(profile))

    def side(self, attack: Attack, known: Profile) -> RuntimeVerifier | WhiteBox:
        """The model that an attack works on: with gradients if it needs them."""
        return self.white_box(known) if attack.needs == "gradient" else self.attacked(known)

    def raw_lengths(self, crops: NDArray[np.float32]) -> NDArray[np.float64]:
        """The lengths (N,) of the bare verifier's embeddings before the host normalizes them."""
        return np.asarray(np.linalg.norm(self._raw.embed(crops).astype(np.float64), axis=1))

    @cached_property
    def _raw(self) -> RuntimeVerifier:
        raw = replace(self.manifest, output=replace(self.manifest.output, normalize=False))
        return RuntimeVerifier(raw, self._model, self.execution)

    def _deployed(self, profile: Profile) -> RuntimeVerifier:
        return deploy(self._model, self.manifest, profile, self.execution, self.seed)

    def _attacked(self, profile: Profile) -> RuntimeVerifier:
        if not profile.random:
            return self.deployed(profile)
        return deploy(self._model, self.manifest, profile, self.execution, self.seed + 1)

    def _gradients(self, profile: Profile) -> TensorFlowVerifier:
        from toolkit.verifiers.tensorflow import TensorFlowVerifier

        manifest, draws = hardened_manifest(self.manifest, profile), gradient_draws(profile, self.voting_draws)
        squeezers = [squeezer.tensorflow for squeezer in profile.squeezers]
        how = (self._network, draws, self.seed + 1, squeezers)
        if profile.vote is None:
            return TensorFlowVerifier(self.manifest, profile.tensorflow, *how, random=profile.random)
        one = replace(profile, draws=1, vote=None)
        return TensorFlowVerifier(manifest, one.tensorflow, *how, profile.tensorflow)

    @cached_property
    def _network(self) -> Callable[[Any], Any]:
        """The network in TensorFlow, which all profiles share: loading it takes seconds."""
        from toolkit.verifiers.differentiable import differentiable

        return differentiable(self.manifest)


def _once(make: Callable[[Profile], V]) -> Callable[[Profile], V]:
    """Remember what `make` makes of each profile, and make it once, however many threads ask for it."""
    lock, made = RLock(), cache(make)

    def found(profile: Profile) -> V:
        with lock:
            return made(profile)

    return found


def gradient_draws(profile: Profile, of_vote: int = _VOTING_DRAWS) -> int:
    """The number of draws to average gradients over; for a vote at most `of_vote`.

    An ensemble already averages over its own draws. A vote has more draws than a gradient can be computed for.
    """
    if profile.vote is not None:
        return min(of_vote, profile.draws)
    return max(1, _DRAWS // profile.draws) if profile.random else 1
