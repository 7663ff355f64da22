"""The sanity checks of an audit that need gradients, by its workers."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from toolkit.audit.clean.bench import Bench
from toolkit.audit.clean.group import aim
from toolkit.audit.collect import Collector
from toolkit.audit.crafting.artifacts import artifact_name
from toolkit.audit.crafting.craft import attacked_model
from toolkit.audit.crafting.jobs import Pool, Step, finish
from toolkit.audit.plan import Plan
from toolkit.audit.replaying.gradients import Checks, GradientJob, check_profile
from toolkit.audit.replaying.reruns import Rerun, attack_checks, early_reruns, pairs_again
from toolkit.audit.replaying.sanity import Check, Outcome, Subject
from toolkit.audit.request import Request
from toolkit.errors import InputError
from toolkit.faces.crops import CropSet
from toolkit.profiles.profile import Profile
from toolkit.progress import Progress
from toolkit.verifiers.manifest import Decision

A = TypeVar("A")

# A check asks for jobs, is sent their results, and so on, until it returns what it found.
_Job: TypeAlias = Rerun | GradientJob
_Asking: TypeAlias = Generator[Sequence[_Job], list[Any], list[Check]]


class GradientChecks:
    """The checks of every profile that a gradient attack knows."""

    def __init__(self, request: Request, plan: Plan, bench: Bench, collector: Collector, artifacts: Path) -> None:
        """Prepare the checks.

        Args:
            request: the inputs of the audit.
            plan: its scenarios.
            bench: the verifiers.
            collector: has the clean runs, and, when the checks run, some probes of each attack.
            artifacts: folder of the artifacts. The results of the jobs stay there, so that an audit can continue.
        """
        self._request, self._plan, self._bench, self._collector = request, plan, bench, collector
        crafts = [(attack, profile) for attack, profile in plan.crafts if attack.needs == "gradient"]
        self._known = list(dict.fromkeys(profile for _, profile in crafts))
        self._artifacts = artifacts
        self._model = [attacked_model(bench.manifest, attack) for attack, _ in crafts[:1]]

    def early(self) -> Iterator[Step[None, Any]]:
        """The steps that depend on no result of an attack. Done early, they fill gaps, and `run` finds them done."""
        for profile in self._known:
            for job in early_reruns(self._subject(profile), self._plan.scenarios, *self._given(profile)):
                yield self._step(None, job)

    def run(self, outcomes: list[Outcome], pool: Pool, progress: Progress) -> list[Check]:
        """Run the checks.

        Args:
            outcomes: the results of every pair.
            pool: who does their jobs.
            progress: shows one stage, by checks.

        Returns:
            The checks, in the order of the plan. Where gradients cannot be computed, a failed check says why.
        """
        asking = [(profile, one) for profile in self._known for one in self._asking(profile, outcomes)]
        done = progress.stage("checks", len(asking))
        results: dict[int, Checks | InputError] = {}
        waiting: dict[int, list[Any] | None] = dict.fromkeys(range(len(asking)))
        while waiting:
            asked: dict[int, Sequence[_Job]] = {}
            for place, answers in waiting.items():
                told = _go_on(asking[place][1], answers)
                if isinstance(told, Checks | InputError):
                    results[place] = told
                    done(1)
                else:
                    asked[place] = told
            found: dict[int, list[Any]] = {place: [] for place in asked}
            for place, answer in finish((self._step(at, job) for at, jobs in asked.items() for job in jobs), pool):
                found[place].append(answer)
            waiting = dict(found)
        return [check for profile in self._known for check in _told(profile, asking, results)]

    def _asking(self, profile: Profile, outcomes: list[Outcome]) -> list[_Asking]:
        subject, given = self._subject(profile), self._given(profile)
        return [check_profile(subject, *given[:3]), *attack_checks(subject, outcomes, *given)]

    def _subject(self, profile: Profile) -> Subject:
        samples = tuple(self._collector.samples.get(profile, ()))
        clean, bench = self._collector.clean[profile], self._bench
        return Subject(profile, clean, samples, bench.rounding, of_bytes=bench.of_bytes)

    def _given(self, profile: Profile) -> tuple[CropSet, Decision, int, int]:
        crops, decision = self._request.crops, self._request.manifest.decision
        aimed = aim(crops, self._collector.clean[profile].embeddings, decision.metric)
        return aimed, decision, self._request.seed, pairs_again(len(crops.pairs))

    def _step(self, about: A, job: _Job) -> Step[A, Any]:
        model = [*self._model, self._bench.execution.provider]
        name = artifact_name({"model": model, "seed": self._bench.seed, **job.content()})
        return Step(job.name, about, self._artifacts / f"{name}.found", job.decode, lambda: job)


def _go_on(asking: _Asking, answers: list[Any] | None) -> Sequence[_Job] | Checks | InputError:
    """Send a check the answers to what it asked for. Returns what it asks for next, what it found, or an error."""
    for answer in answers or ():
        if isinstance(answer, InputError):
            return answer
    try:
        return next(asking) if answers is None else asking.send(answers)
    except StopIteration as stop:
        return Checks(tuple(stop.value))


def _told(
    profile: Profile, asking: Sequence[tuple[Profile, _Asking]], results: dict[int, Checks | InputError]
) -> Iterator[Check]:
    """The checks of a profile, up to the first that could not be done."""
    for found in (results[place] for place, (of, _) in enumerate(asking) if of == profile):
        if isinstance(found, InputError):
            yield Check("gradient", profile.name, False, str(found))
            return
        yield from found.checks
