"""Joint probes: crafted on the verifier of a run and on further ones at once, because these may transfer better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, is_trained
from toolkit.audit.crafting.craft import Series
from toolkit.audit.crafting.ensemble import DECISION
from toolkit.audit.crafting.jobs import finish_all
from toolkit.audit.crafting.sources import Sources, SourcesPool, source_steps, sources_identity, sources_profile
from toolkit.audit.results.record import Record
from toolkit.audit.transfer.judge import Judge, all_decided_rightly, local_judge
from toolkit.audit.transfer.tested import Some
from toolkit.errors import UsageError
from toolkit.faces.crops import CropSet
from toolkit.pixels import Bools
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
    """Crafts joint probes, chunk by chunk, into the folder of the run, so that a stopped replay can continue.

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
        own = record.manifest
        self._manifests = own, *further
        self._record, self._crops, self._rows = record, crops, rows
        view = view_of(own.input, own.alignment)
        self._sources = Sources(self._manifests, execution, record.seed, record.pairs, crops, view)
        self.right = np.ones(len(rows), np.bool_)
        for manifest, pairs in zip(further, self._sources.carried[1:], strict=True):
            judge = local_judge(manifest, find_profile("none"), execution, record.seed)
            fine, _ = all_decided_rightly(judge, pairs.seen_by_target, pairs.genuine, pairs.places)
            self.right &= np.isin(rows, pairs.rows[fine])

    def craft(self, attack: Attack, wanted: Bools) -> Iterator[Some]:
        """Craft 8-bit probes of the pairs `wanted` (n,), a few at a time.

        Args:
            attack: the attack.
            wanted: (n,), the pairs to attack; only pairs of `right`.

        Yields:
            The places (k,) of some pairs among the n, their probes (k, H, W, 3), and whether these succeed on the mean
            of the verifiers (k,).

        Raises:
            InputError: a verifier has no gradients.
            SixpixelsError: the probes cannot be written.
        """
        places = np.flatnonzero(wanted)
        chosen = self._rows[places]
        crops = replace(
            self._crops, pairs=tuple(self._crops.pairs[row] for row in chosen), index=self._crops.index[chosen]
        )
        known, model = sources_profile(self._manifests), sources_identity(self._manifests)
        series = Series(attack, known, model, crops, DECISION, self._record.seed, self._record.folder / "probes")
        for (_, rows), crafted in finish_all(source_steps(series), SourcesPool(self._sources)):
            yield places[rows], crafted.probes8, crafted.success8
