"""The sanity checks of an audit that need gradients, several at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from toolkit.audit.clean.bench import Bench
from toolkit.audit.clean.group import aim
from toolkit.audit.collect import Collector
from toolkit.audit.crafting.jobs import threads_of
from toolkit.audit.plan import Plan
from toolkit.audit.replaying.reruns import attack_checks, pairs_again
from toolkit.audit.replaying.sanity import Check, Outcome, Subject, check_profile
from toolkit.audit.request import Request
from toolkit.errors import InputError
from toolkit.profiles.profile import Profile
from toolkit.progress import Progress
from toolkit.threads import Threads


def check_gradients(
    request: Request, plan: Plan, outcomes: list[Outcome], bench: Bench, collector: Collector, progress: Progress
) -> list[Check]:
    """Run the checks of every profile that a gradient attack knows.

    Args:
        request: the inputs of the audit.
        plan: its scenarios.
        outcomes: the results of every pair.
        bench: the verifiers.
        collector: has the clean runs, and some probes of each attack.
        progress: shows one stage, by profiles.

    Returns:
        The checks, in the order of the plan. Where gradients cannot be computed, a failed check says why.
    """
    known = list(dict.fromkeys(profile for attack, profile in plan.crafts if attack.needs == "gradient"))
    stage, checks = progress.stage("checks", len(known)), []
    with Threads(threads_of(bench.execution)) as threads:
        begun = [[threads.submit(run) for run in _checks_of(p, request, outcomes, bench, collector)] for p in known]
        for profile, results in zip(known, begun, strict=True):
            try:
                for result in results:
                    checks += result()
            except InputError as error:
                checks.append(Check("gradient", profile.name, False, str(error)))
            stage(1)
    return checks


def _checks_of(
    profile: Profile, request: Request, outcomes: list[Outcome], bench: Bench, collector: Collector
) -> list[Callable[[], list[Check]]]:
    decision, clean = request.manifest.decision, collector.clean[profile]
    aimed = aim(request.crops, clean.embeddings, decision.metric)
    samples = tuple(collector.samples.get(profile, ()))
    try:
        model = bench.white_box(profile)
    except InputError as error:
        return [partial(_refuse, error)]
    subject = Subject(profile, model, clean, samples, bench.rounding, of_bytes=bench.of_bytes)
    again = attack_checks(subject, outcomes, aimed, decision, request.seed, pairs_again(len(request.crops.pairs)))
    return [partial(check_profile, subject, aimed, decision, request.seed), *again]


def _refuse(error: InputError) -> list[Check]:
    raise error
