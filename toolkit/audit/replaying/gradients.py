"""Sanity checks of the gradients of a profile: they must be those of the deployed model, and lead toward the goal."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Task, ascent, margins, measurer
from toolkit.attacks.norms import per_image, sizes
from toolkit.audit.clean.bench import Verifiers
from toolkit.audit.crafting.artifacts import decode_found, encode_found, hash_of
from toolkit.audit.crafting.code import profile_code
from toolkit.audit.crafting.craft import pair_generator
from toolkit.audit.crafting.jobs import Parcel, packed_alarm, packed_profile, unpacked_alarm, unpacked_profile
from toolkit.audit.replaying.sanity import AGAIN, Check, Subject, sampled_rows
from toolkit.faces.crops import CropSet
from toolkit.files import sha256_of
from toolkit.pixels import Bools, Float, Images, to_8bit, to_unit
from toolkit.profiles.profile import Profile
from toolkit.verifiers.manifest import Decision
from toolkit.verifiers.scores import is_same

if TYPE_CHECKING:
    from toolkit.audit.clean.bench import Bench
    from toolkit.verifiers.white_box import WhiteBox

# Pairs that are compared, and that gradients are followed on.
_COMPARED, _FOLLOWED = 64, 16
# Share of pairs on which a step along the gradient must gain more than a random step.
_NEARER = 0.8
# RMS lengths of these steps. Short ones suit smooth models; long ones cross the levels of a quantized input.
_STEPS_RMS = (0.25 / 255, 1 / 255, 4 / 255)
# Largest share of decisions in which the attacked and the deployed model may differ.
_FLIPS = 0.02
# Largest share of pairs whose distances may differ by more than rounding. A defense that rounds or draws can turn a
# rounding error of one value into a whole step of it.
_APART = 0.1
# Largest change of the margin, as a share of the threshold, by noise of a quarter of a level; draws of this noise.
_UNSTABLE, _NOISE, _NEIGHBORS = 0.1, 0.25 / 255, 3


@dataclass(frozen=True)
class Checks:
    """The results of some checks."""

    checks: tuple[Check, ...]


@dataclass(frozen=True)
class GradientJob:
    """Looks at the gradients of a profile.

    Attributes:
        profile: the profile, which the attacker knows.
        decision: metric and threshold.
        alarm: the detector's threshold; infinite without a detector.
        rounding: what two forms of the model may differ by, as a share of a distance.
        ids: the ids of n pairs.
        pixels: (n, H, W, 3) uint8, their clean probes.
        references: (n, D), the embeddings of their references.
        dodging: (n,), whether their goal is another decision than "same".
        compared: the first so many pairs are compared on both models.
        followed: places of the pairs whose gradients are followed.
        shaken: places of the pairs whose probes get noise.
        crafted: (m, H, W, 3) float32, probes that were crafted against the profile, which are compared too.
        crafted_references: (m, D), the embeddings of their references.
    """

    profile: Profile
    decision: Decision
    alarm: float
    rounding: float
    ids: tuple[str, ...]
    pixels: NDArray[np.uint8]
    references: NDArray[np.float32]
    dodging: Bools
    compared: int
    followed: NDArray[np.intp]
    shaken: NDArray[np.intp]
    crafted: Images
    crafted_references: NDArray[np.float32]

    @property
    def name(self) -> str:
        """See `Job`."""
        return f"gradients of {self.profile.name}"

    def run(self, bench: Verifiers) -> bytes:
        """Run the checks; see `Job`.

        Raises:
            InputError: the gradients cannot be computed.
        """
        # No service has gradients, and an audit of one asks for none of these checks.
        model = cast("Bench", bench).white_box(self.profile)
        checks = [self._parity(model)]
        if len(self.followed):
            checks += [self._gradients(model, bench.seed), self._stable(model, bench.seed)]
        return encode_found(Checks(tuple(checks)))

    def decode(self, content: bytes) -> list[Check] | None:
        """The checks in its artifact; None if it is damaged."""
        found = decode_found(content, Checks)
        return None if found is None else list(found.checks)

    def parcel(self) -> Parcel:
        """See `Job`."""
        header = {
            "profile": packed_profile(self.profile),
            "decision": asdict(self.decision),
            "alarm": packed_alarm(self.alarm),
            "rounding": self.rounding,
            "ids": self.ids,
            "compared": self.compared,
        }
        return Parcel("gradients", header, self._arrays())

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "pixels": self.pixels,
            "references": self.references,
            "dodging": self.dodging,
            "followed": self.followed,
            "shaken": self.shaken,
            "crafted": self.crafted,
            "crafted_references": self.crafted_references,
        }

    def content(self) -> dict[str, object]:
        """Name all that its result depends on, besides the model."""
        return {
            "gradients": [asdict(self.decision), str(self.alarm), self.rounding, self.compared],
            "known": [self.profile.sha256, profile_code(self.profile)],
            "code": sha256_of(Path(__file__)),
            "pairs": self.ids,
            "arrays": hash_of(self._arrays()),
        }

    def _task(self, places: NDArray[np.intp], drawn: str, seed: int) -> Task:
        return Task(
            to_unit(self.pixels[places]),
            self.references[places],
            self.dodging[places],
            self.decision,
            tuple(pair_generator(seed, drawn, self.ids[place]) for place in places),
            alarm=self.alarm,
        )

    def _parity(self, model: WhiteBox) -> Check:
        """The model that gives the gradients must compute the deployed distances, on clean and on crafted probes."""
        clean = to_unit(self.pixels[: self.compared]), self.references[: self.compared]
        chosen = {"clean": clean, "crafted": (self.crafted, self.crafted_references)}
        passed, words = True, []
        for kind, (images, references) in chosen.items():
            if not len(images):
                continue
            sides = [self._distances(side, images, references) for side in (model.runtime, model.original)]
            same = [is_same(self.decision, d[0]) for d in sides]
            allowed = self.rounding * np.maximum(self.decision.threshold, sides[0])
            apart = (np.abs(sides[0] - sides[1]) > allowed).any(axis=0)
            flips = int((same[0] != same[1]).sum())
            passed &= flips <= _FLIPS * len(images) and int(apart.sum()) <= _APART * len(images)
            words.append(
                f"{int(apart.sum())} of {len(images)} {kind} probes by more than rounding (largest difference "
                f"{np.abs(sides[0] - sides[1]).max():.1e}), with {flips} other decisions"
            )
        detail = "distances of the gradient model and of the deployed model differ on " + ", and on ".join(words)
        return Check("parity", self.profile.name, passed, detail)

    def _distances(self, side: Any, images: Images, references: NDArray[np.float32]) -> Float:
        """The distances of m images to references, and with a detector their attack scores: (1 or 2, m)."""
        embeddings, scores = side.embed_and_score(images) if np.isfinite(self.alarm) else (side.embed(images), None)
        d = measurer(side, self.decision)(embeddings, references)
        return np.stack([d] if scores is None else [d, scores.astype(np.float64)])

    def _stable(self, model: WhiteBox, seed: int) -> Check:
        """Noise that rounding to 8 bits removes must hardly move the margin that attacks climb."""
        task = self._task(self.shaken, "stable", seed)
        rows = np.arange(len(task))
        before, _ = ascent(model, task, rows, task.probes)
        moved = []
        for _ in range(_NEIGHBORS):
            noise = np.stack([g.uniform(-_NOISE, _NOISE, task.probes.shape[1:]) for g in task.generators])
            near = np.clip(task.probes + noise.astype(np.float32), 0, 1)
            moved.append(np.abs(ascent(model, task, rows, near)[0] - before))
        change = float(np.mean(moved)) / self.decision.threshold
        return Check(
            "stable",
            self.profile.name,
            change <= _UNSTABLE,
            f"noise of a quarter of a level moves the margins of {len(task)} clean probes by {100 * change:.2g} % of "
            "the threshold on average",
        )

    def _gradients(self, model: WhiteBox, seed: int) -> Check:
        """A step along the gradient must come nearer to the goal than a random step of the same length.

        With a detector, this must hold for its own gradient as well. Both are looked at apart: the shortest way past
        the decision is what a detector notices, so that a step along it comes no nearer to both at once.
        """
        task = replace(self._task(self.followed, "gradient", seed), alarm=np.inf)
        rows = np.arange(len(task))
        random = np.stack([g.standard_normal(task.probes.shape[1:], np.float32) for g in task.generators])

        def nearer(value: Callable[[Images], Float], gradient: Images) -> int:
            gains = _gain(value, task.probes, gradient)
            return int(((gains > 0) & (gains > _gain(value, task.probes, random))).sum())

        _, gradient = ascent(model, task, rows, task.probes)
        found = nearer(lambda images: margins(model, task, rows, images), gradient)
        zero = int((~gradient.any(axis=(1, 2, 3))).sum())
        passed = found >= _NEARER * len(task)
        detail = (
            f"for {found} of {len(task)} pairs, a step along the gradient comes nearer to the goal than a random step"
            + (f"; {zero} gradients are zero" if zero else "")
        )
        if np.isfinite(self.alarm):
            _, of_score = model.scores_and_gradients(task.probes)
            # Upward: a clean probe's score is so small that any step downward goes beyond the lowest point.
            higher = nearer(lambda images: model.embed_and_score(images)[1].astype(np.float64), of_score)
            passed &= higher >= _NEARER * len(task)
            detail += f"; for {higher}, one along the detector's gradient raises its score more than a random step"
        return Check("gradient", self.profile.name, passed, detail)


def _gain(value: Callable[[Images], Float], images: Images, directions: Images) -> NDArray[np.float64]:
    """How much the best of some steps along `directions` (N, H, W, 3) raises the values (N,) of images."""
    unit = directions * per_image(1 / np.maximum(sizes("l2", directions), 1e-30))
    stepped = [images + np.float32(rms * np.sqrt(unit[0].size)) * unit for rms in _STEPS_RMS]
    after = np.max([value(np.clip(moved, 0, 1)) for moved in stepped], axis=0)
    return np.asarray(after - value(images))


def gradient_job(parcel: Parcel, seed: int) -> GradientJob:  # noqa: ARG001 - the bench has the seed
    """Read the job in a parcel.

    Raises:
        InputError: the profile differs from that of the audit.
    """
    header = parcel.header
    return GradientJob(
        profile=unpacked_profile(*header["profile"]),
        decision=Decision(**header["decision"]),
        alarm=unpacked_alarm(header["alarm"]),
        rounding=header["rounding"],
        ids=tuple(header["ids"]),
        compared=header["compared"],
        **parcel.arrays,
    )


def check_profile(
    subject: Subject, crops: CropSet, decision: Decision, seed: int
) -> Generator[Sequence[GradientJob], list[list[Check]], list[Check]]:
    """Check that the gradients belong to the deployed model, and that they lead toward the goal.

    Args:
        subject: the profile.
        crops: the pairs.
        decision: metric and threshold.
        seed: seed of the audit.

    Yields:
        A job, whose decoded artifact is to be sent back.

    Returns:
        The checks.
    """
    first = np.arange(min(_COMPARED, len(crops.pairs)))
    followed, shaken = (sampled_rows(subject.clean.eligible, seed, most) for most in (_FOLLOWED, AGAIN))
    rows = np.unique(np.concatenate([first, followed]))
    samples = subject.samples
    probes = np.concatenate([np.empty((0, *crops.images.shape[1:]), np.float32), *(s.probes for s in samples)])
    of = np.concatenate([np.empty(0, np.intp), *(s.rows for s in samples)])
    job = GradientJob(
        subject.profile,
        decision,
        subject.clean.alarm,
        subject.rounding,
        tuple(crops.pairs[row].id for row in rows),
        crops.images[crops.index[rows, 0]],
        subject.clean.embeddings[crops.index[rows, 1]],
        np.array([crops.pairs[row].genuine for row in rows], np.bool_),
        len(first),
        np.searchsorted(rows, followed),
        np.searchsorted(rows, shaken),
        to_unit(to_8bit(probes)) if subject.of_bytes else probes,
        subject.clean.embeddings[crops.index[of, 1]],
    )
    (found,) = yield [job]
    return found
