"""The collector: replays chunks of probes, scenario by scenario, and summarizes them if an audit is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, Crafted
from toolkit.audit.clean.bench import Verifiers
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.crafting.craft import Chunk, Series
from toolkit.audit.plan import Plan, Scenario, Unavailable
from toolkit.audit.replaying.bounds import Kept, look_at
from toolkit.audit.replaying.replay import Replay, join, replay_chunk
from toolkit.audit.replaying.sanity import SAMPLED, SAMPLES, Outcome, Sample
from toolkit.audit.results.assessment import ScenarioResult, scenario_results
from toolkit.documents import to_json
from toolkit.errors import InputError, UnavailableError
from toolkit.faces.crops import CropSet
from toolkit.files import write_bytes
from toolkit.profiles.profile import Profile

# This file is in the run's folder until the audit is finished.
PARTIAL = "partial.json"


@dataclass(frozen=True)
class Partial:
    """The results of an interrupted audit. Each scenario covers only the pairs that were finished."""

    run: str
    seed: int
    interrupted: bool
    pairs: int
    scenarios: tuple[ScenarioResult, ...]


class InterruptedAuditError(KeyboardInterrupt):
    """The user stopped an audit with Ctrl-C; `partial` has the results so far."""

    def __init__(self, partial: Partial) -> None:
        super().__init__("interrupted")
        self.partial = partial


class Collector:
    """Replays each chunk of probes in every scenario that uses it, and keeps the result of every pair.

    If an attack fails on a profile, for instance because gradients are NaN, the other scenarios go on.

    Attributes:
        clean: the clean run of each deployed profile.
        kept: what was seen of the bounds of every chunk.
        samples: for each profile, a few probes of every attack that was crafted against it.
    """

    def __init__(self, plan: Plan, bench: Verifiers, crops: CropSet, clean: dict[Profile, CleanRun]) -> None:
        """Start without chunks.

        Args:
            plan: the scenarios.
            bench: the verifiers.
            crops: the pairs.
            clean: the clean run of each deployed profile.
        """
        self.clean = clean
        self._plan, self._bench, self._crops = plan, bench, crops
        self._parts: dict[Scenario, list[Replay]] = {scenario: [] for scenario in plan.scenarios}
        self._failed: dict[tuple[Attack, Profile], Unavailable] = {}
        self.kept: list[Kept] = []
        self.samples: dict[Profile, list[Sample]] = {}

    def failed(self, attack: Attack, known: Profile) -> bool:
        """Whether the attack failed on the profile."""
        return (attack, known) in self._failed

    def take(self, series: Series, rows: NDArray[np.intp], crafted: Crafted | InputError) -> None:
        """Replay the next chunk of a series, its pairs `rows`, or record why it could not be crafted."""
        attack, known = series.attack, series.known
        try:
            if isinstance(crafted, InputError):
                raise crafted
            template, clean = self._crops.template, series.clean(rows)
            landmarks = None if template is None else np.array(template)
            self.kept.append(look_at(attack, known, clean, crafted, landmarks))
            self._sample(known, rows, crafted)
            for s in self._plan.scenarios:
                if (s.attack, s.known) == (attack, known):
                    self._parts[s].append(self._replay(Chunk(rows, crafted), s.profile))
        except InputError as error:
            self._failed.setdefault((attack, known), Unavailable(series.name, str(error)))

    def _sample(self, known: Profile, rows: NDArray[np.intp], crafted: Crafted) -> None:
        """Keep copies of a few successes of the chunk, of as many chunks as a check looks at."""
        of_profile = self.samples.setdefault(known, [])
        chosen = np.flatnonzero(crafted.success & self.clean[known].eligible[rows])[:SAMPLED]
        if len(chosen) and len(of_profile) < SAMPLES:
            of_profile.append(Sample(rows[chosen], crafted.probes[chosen]))

    def _replay(self, chunk: Chunk, profile: Profile) -> Replay:
        bench = self._bench
        runs = bench.deployed(profile), profile, self.clean[profile]
        return replay_chunk(chunk, *runs, self._crops, bench.manifest.decision, bench.seed)

    def outcomes(self) -> list[Outcome]:
        """The results of every pair, in the order of the plan's scenarios."""
        return [(s, join(parts)) for s, parts in self._parts.items() if parts and not self.failed(s.attack, s.known)]

    def unavailable(self) -> list[Unavailable]:
        """The attacks that failed, in the order of the plan."""
        return [self._failed[craft] for craft in self._plan.crafts if craft in self._failed]

    @contextmanager
    def telling(self, folder: Path) -> Iterator[None]:
        """Tell what is finished if the audit in `folder` stops.

        Raises:
            InterruptedAuditError: the user pressed Ctrl-C.
        """
        try:
            yield
        except KeyboardInterrupt as stop:
            raise InterruptedAuditError(self.so_far(folder.name)) from stop
        except UnavailableError:
            write_bytes(folder / PARTIAL, to_json(self.so_far(folder.name)).encode())
            raise

    def so_far(self, run: str) -> Partial:
        """Summarize each scenario over the pairs that are finished."""
        genuine = np.array([pair.genuine for pair in self._crops.pairs])
        results: list[ScenarioResult] = []
        for s, replay in self.outcomes():
            done, clean = slice(len(replay.success)), self.clean[s.profile]
            names = ("distances", "correct", "eligible")
            few = replace(clean, **{name: getattr(clean, name)[done] for name in names})
            results += scenario_results(s, replay, few, genuine[done])
        if self._crops.gallery is not None:
            results = [replace(result, goal="group") for result in results]
        return Partial(run, self._bench.seed, interrupted=True, pairs=len(genuine), scenarios=tuple(results))
