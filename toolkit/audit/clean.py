"""Clean verification of what is deployed: nobody attacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.replay import CleanRun
from toolkit.faces.pairs import Pair
from toolkit.statistics.bootstrap import Det, Identities, Statistic, det_band, identity_bootstrap
from toolkit.statistics.intervals import Rate
from toolkit.statistics.verification import OperatingPoint, d_prime, eer, fnmr_at_fmr

# Where the FNMR is read, if there are impostor pairs enough.
FMR_TARGETS = (1e-2, 1e-3)


@dataclass(frozen=True)
class CleanResult:
    """Clean decisions of one deployed profile.

    Attributes:
        profile: its name.
        fnmr, fmr, accuracy: at the manifest's threshold.
        eer, d_prime: None where one of the two kinds of pairs is missing, and d' where nothing varies.
        false_alarm: the share of distinct clean crops that its detector flags, apart from the decisions; None without.
        fnmr_people, fmr_people, accuracy_people: 95 % intervals by the bootstrap over people, who err in several pairs
            together; None where nobody is named, or nothing or everything errs.
        at_fmr: FNMR at fixed FMR, None where there are too few impostor pairs.
        det: the whole trade-off with its band; None where there are too few pairs.
    """

    profile: str
    fnmr: Rate
    fmr: Rate
    accuracy: Rate
    eer: float | None
    false_alarm: Rate | None
    d_prime: float | None
    fnmr_people: tuple[float, float] | None
    fmr_people: tuple[float, float] | None
    accuracy_people: tuple[float, float] | None
    at_fmr: tuple[tuple[float, OperatingPoint | None], ...]
    det: Det | None


def clean_result(
    profile: str,
    clean: CleanRun,
    genuine: NDArray[np.bool_],
    people: tuple[Identities, Identities] | None = None,
    seed: int = 0,
) -> CleanResult:
    """Clean error rates of one profile.

    Args:
        profile: its name.
        clean: its decisions.
        genuine: (n,), of the pairs.
        people: see `people_of`.
        seed: of the bootstrap.

    Raises:
        InputError: who is in a pair contradicts its label.
    """
    wrong, d = ~clean.correct, clean.distances
    fnmr, fmr = (Rate(int(wrong[kind].sum()), int(kind.sum())) for kind in (genuine, ~genuine))
    accuracy = Rate(int(clean.correct.sum()), len(genuine))
    both = bool(genuine.any() and not genuine.all())
    apart = d_prime(d, genuine) if both and min(fnmr.trials, fmr.trials) > 1 else np.inf

    def interval(statistic: Statistic, rate: Rate) -> tuple[float, float] | None:
        if people is None or rate.successes in (0, rate.trials):
            return None
        # Right or wrong as a distance, so that decisions are those that were taken.
        decided = np.where(clean.correct == genuine, 0.0, 1.0)
        generator = np.random.default_rng(seed)
        return identity_bootstrap(decided, genuine, *people, threshold=0.5, statistic=statistic, rng=generator)

    return CleanResult(
        profile=profile,
        fnmr=fnmr,
        fmr=fmr,
        accuracy=accuracy,
        eer=float(eer(d, genuine)) if both else None,
        false_alarm=clean.false_alarms,
        d_prime=apart if np.isfinite(apart) else None,
        fnmr_people=interval("fnmr", fnmr),
        fmr_people=interval("fmr", fmr),
        accuracy_people=interval("accuracy", accuracy),
        at_fmr=tuple((target, fnmr_at_fmr(d, genuine, target)) for target in FMR_TARGETS) if both else (),
        det=det_band(d, genuine, people, rng=np.random.default_rng(seed)),
    )


def people_of(pairs: Sequence[Pair]) -> tuple[Identities, Identities] | None:
    """Who is in each pair's probe and reference, as numbers (n,) and (n,); None where a pair does not say."""
    names = [name for pair in pairs for name in (pair.probe_identity, pair.reference_identity)]
    if not names or None in names:
        return None
    numbers = np.unique(np.array(names, str), return_inverse=True)[1].reshape(-1, 2)
    return numbers[:, 0], numbers[:, 1]
