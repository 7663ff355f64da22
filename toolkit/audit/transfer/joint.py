"""Joint probes: crafted on the verifier of a run and on further ones at once, because these may transfer better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, Crafted, is_trained
from toolkit.audit.clean.bench import Bench
from toolkit.audit.crafting.carried import Carried, Crops
from toolkit.audit.crafting.craft import make_task
from toolkit.audit.crafting.ensemble import DECISION, Ensemble, Member
from toolkit.audit.crafting.sources import in_crops_of, member
from toolkit.audit.results.record import Record
from toolkit.audit.transfer.judge import Judge, decided_rightly, local_judge
from toolkit.errors import UsageError
from toolkit.faces.crops import CropSet
from toolkit.pixels import Bools, to_unit
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.crops import view_of
from toolkit.verifiers.manifest import Manifest
from toolkit.verifiers.onnx_file import model_sha256
from toolkit.verifiers.runtime import Execution


@dataclass(frozen=True)
class Further:
    """A further verifier that joint probes are crafted on: its name, and the SHA-256 of its file."""

    name: str
    sha256: str


def jointly(attacks: Sequence[Attack], further: Sequence[Manifest], judge: Judge) -> list[Attack]:
    """The attacks of a run that can craft joint probes: those by gradients that need no training.

    Raises:
        UsageError: there are further verifiers, but no such attack, or one of them is the target.
    """
    for manifest in further:
        if model_sha256(manifest.model) == judge.identity:
            raise UsageError(f"--source {manifest.name}: is the verifier to replay on; name another one")
    found = [attack for attack in attacks if attack.needs == "gradient" and not is_trained(attack)]
    if further and not found:
        raise UsageError("--source needs an attack by gradients in the run; audit with --attacks bsr, for example")
    return found


class Joint:
    """Crafts joint probes. Each pair is crafted alone, because each has its own way from crop to crop.

    All verifiers are attacked without a profile. The margin is the mean of their margins, each in units of its
    threshold; see `Ensemble`.

    Attributes:
        right: (n,), the pairs that every further verifier decides correctly.
    """

    def __init__(
        self,
        record: Record,
        further: Sequence[Manifest],
        crops: CropSet,
        rows: NDArray[np.intp],
        execution: Execution,
    ) -> None:
        """Load the verifiers.

        Args:
            record: the run.
            further: the further verifiers.
            crops: the run's pairs in the crops of its verifier.
            rows: (n,), the rows of the pairs to attack.
            execution: how ONNX Runtime runs the verifiers.

        Raises:
            SixpixelsError: a verifier cannot be used, or no pair has a face in its crops.
        """
        self._record, self._crops, self._rows = record, crops, rows
        self._bare = find_profile("none")
        self._benches = [Bench(manifest, execution, record.seed) for manifest in (record.manifest, *further)]
        self._carried = [self._in_crops_of(manifest) for manifest in further]
        self.right = np.ones(len(rows), np.bool_)
        for manifest, pairs in zip(further, self._carried, strict=True):
            judge = local_judge(manifest, self._bare, execution, record.seed)
            fine, _ = decided_rightly(judge, pairs.own, pairs.own_references, pairs.genuine)
            self.right &= np.isin(rows, pairs.rows[fine])

    def craft(self, attack: Attack, wanted: Bools, done: Callable[[int], object]) -> tuple[Crops, Bools]:
        """Craft 8-bit probes of the pairs `wanted` (n,); the others keep their clean probes.

        Args:
            attack: the attack.
            wanted: (n,), the pairs to attack; only pairs of `right`.
            done: is told the number of finished pairs.

        Returns:
            Probes (n, H, W, 3), and whether they succeed on the mean of the verifiers (n,).

        Raises:
            InputError: a verifier has no gradients.
        """
        probes = self._crops.images[self._crops.index[self._rows, 0]].copy()
        success = np.zeros(len(probes), np.bool_)
        for place in np.flatnonzero(wanted):
            crafted = self._craft(attack, self._rows[place])
            probes[place], success[place] = crafted.probes8[0], crafted.success8[0]
            done(int(place) + 1)
        return probes, success

    def _craft(self, attack: Attack, row: np.intp) -> Crafted:
        """Attack one pair of the run."""
        probe, reference = (self._crops.images[self._crops.index[row, side]] for side in (0, 1))
        own = self._benches[0].white_box(self._bare)
        members = [Member(own, self._benches[0].manifest.decision)]
        references = [own.embed(to_unit(reference[None]))[0]]
        for bench, pairs in zip(self._benches[1:], self._carried, strict=True):
            other, seen_reference = member(bench, pairs, int(row), probe.shape[:2])
            members.append(other)
            references.append(seen_reference)
        ensemble = Ensemble(members, references)
        task = make_task(
            attack.name, self._crops, np.array([row]), ensemble.reference(), DECISION, self._record.seed, np.inf
        )
        return attack.craft(ensemble, task)

    def _in_crops_of(self, manifest: Manifest) -> Carried:
        own = self._record.manifest
        return in_crops_of(manifest, self._record.pairs, self._crops, view_of(own.input, own.alignment))
