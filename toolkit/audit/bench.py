"""The bench: one verifier behind any profile, as it is deployed and as an attacker has it, each built once."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING

from toolkit.attacks.base import Attack
from toolkit.profiles.harden import deploy
from toolkit.profiles.profile import Profile
from toolkit.verifiers.manifest import Manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, read_model

if TYPE_CHECKING:
    from toolkit.verifiers.tensorflow import TensorFlowVerifier
    from toolkit.verifiers.white_box import WhiteBox

# Of a random profile, for the gradients of an attacker who knows it.
_DRAWS = 8


class Bench:
    """What attacks and replays run on; an audit has one, and so has each of its workers.

    Attributes:
        manifest, execution, seed: of the audit.
        model_sha256: of the model's file.
        deployed: gives the verifier that judges, behind a profile.
        attacked: gives the one that an attacker without gradients asks. What is deployed draws anew at every call, so
            that of a random profile it is another draw than the one that judges the probe.
        gradients: gives the original behind the differentiable form of a profile.
    """

    def __init__(self, manifest: Manifest, execution: Execution, seed: int) -> None:
        """Read the model; nothing is loaded before it is asked for.

        Raises:
            InputError: the model cannot be read.
        """
        self.manifest, self.execution, self.seed = manifest, execution, seed
        self._model = read_model(manifest)
        self.model_sha256 = hashlib.sha256(self._model).hexdigest()
        self.deployed = cache(self._deployed)
        self.attacked = cache(self._attacked)
        self.gradients = cache(self._gradients)

    def white_box(self, profile: Profile) -> WhiteBox:
        """What an attacker has who knows the profile."""
        from toolkit.verifiers.white_box import WhiteBox

        return WhiteBox(self.attacked(profile), self.gradients(profile))

    def side(self, attack: Attack, known: Profile) -> RuntimeVerifier | WhiteBox:
        """What an attack works on."""
        return self.white_box(known) if attack.needs == "gradient" else self.attacked(known)

    def _deployed(self, profile: Profile) -> RuntimeVerifier:
        return deploy(self._model, self.manifest, profile, self.execution, self.seed)

    def _attacked(self, profile: Profile) -> RuntimeVerifier:
        if not profile.random:
            return self.deployed(profile)
        return deploy(self._model, self.manifest, profile, self.execution, self.seed + 1)

    def _gradients(self, profile: Profile) -> TensorFlowVerifier:
        from toolkit.verifiers.tensorflow import TensorFlowVerifier

        squeezers = [squeezer.tensorflow for squeezer in profile.squeezers]
        draws = gradient_draws(profile)
        return TensorFlowVerifier(
            self.manifest, profile.tensorflow, draws=draws, seed=self.seed + 1, squeezers=squeezers
        )


def gradient_draws(profile: Profile) -> int:
    """Over how many draws of the whole profile gradients are means; an ensemble is a mean over draws already."""
    return max(1, _DRAWS // profile.draws) if profile.random else 1
