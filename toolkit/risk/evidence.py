"""Evidence: what an attack that fails can show about the policy's budget.

A success within the budget always counts. A failure counts only if the attack was strong enough, and could speak of the
budget: an attack whose ball is larger spends more than the budget, and one whose ball is smaller never spends it.
"""

from __future__ import annotations

from toolkit.audit.results.assessment import Assessment, DeclaredAttack, ScenarioResult, Target
from toolkit.risk.policy import EvidenceClass, Norm, Policy

# The relative accuracy of budgets that were written in decimals.
_SLACK = 1e-6
# What to do about a failed sanity check.
FIX_CHECK = "Fix the cause of the failed sanity check, and audit again."


def evidence_class(attack: DeclaredAttack, knowledge: str) -> EvidenceClass:
    """The class of evidence that a scenario belongs to, from what its attack declares and its attacker knows."""
    traits = attack.traits
    if knowledge in ("zero", "partial"):
        return "transfer"
    if traits.masked:
        return "worn"
    if traits.budget is not None:
        return "query"
    if attack.needs == "runtime":
        return "noise"
    return "minimal" if traits.norm is None else "budgeted"


def no_evidence(a: Assessment, s: ScenarioResult, attack: DeclaredAttack, policy: Policy) -> str:
    """Why a scenario cannot show that an attack fails within the budget; "" if it can.

    Args:
        a: the assessment.
        s: the scenario.
        attack: its attack, as the run declares it.
        policy: the policy.
    """
    if doubted(a, s):
        return "a sanity check failed"
    if attack.weakened:
        names = ", ".join(f"{attack.name}.{name}" for name in attack.weakened)
        return f"{names} differs from the attack as it comes"
    if 1 < s.presented < policy.tries:
        return f"each probe was presented {s.presented} times (the policy allows {policy.tries} tries)"
    kind = evidence_class(attack, s.knowledge)
    found = (_weakness(attack, kind, policy), _reach(attack, kind, a.target, policy))
    return "; ".join(why for why in found if why)


def doubted(a: Assessment, s: ScenarioResult) -> bool:
    """Whether a sanity check of the deployed profile, or of the profile that the attacker knows, failed."""
    failed = [c.about for c in a.checks if not c.passed]
    return any(f" on {about}".endswith((f" on {s.profile}", f" on {s.known}")) for about in failed)


def largest(attack: DeclaredAttack, target: Target, norm: Norm) -> float | None:
    """The largest perturbation in the attack's ball, in a policy's norm and unit; None without a ball."""
    kind, epsilon, values = attack.traits.norm, attack.traits.epsilon, 3 * target.height * target.width
    if kind is None or epsilon is None:
        return None
    l2 = epsilon if kind == "l2" else epsilon * values**0.5
    return {"linf": epsilon, "l2": l2, "rms": 255 * l2 / values**0.5}[norm]


def _weakness(attack: DeclaredAttack, kind: EvidenceClass, policy: Policy) -> str:
    """Why the attack is weaker than the policy asks for; "" if it is not."""
    traits, least = attack.traits, policy.strength
    if attack.needs == "gradient":
        spent = {"steps": (traits.steps, least.steps)}
        if kind == "budgeted":
            spent["starts"] = (traits.restarts, least.restarts)
    elif traits.budget is not None:
        spent = {"queries": (traits.budget, least.queries)}
    else:
        spent = {"noisy images": (traits.draws, least.draws)}
    few = [f"{has} {what} (the policy asks for {wanted})" for what, (has, wanted) in spent.items() if has < wanted]
    return f"it has only {', '.join(few)}" if few else ""


def _reach(attack: DeclaredAttack, kind: EvidenceClass, target: Target, policy: Policy) -> str:
    """Why the attack cannot speak of the policy's budget; "" if it can."""
    size = largest(attack, target, policy.norm)
    if kind == "worn" or size is None:
        return _reach_without_ball(attack, kind, target, policy)
    if policy.norm == "linf" and attack.traits.norm != "linf":
        return f"its ball is of another norm than the budget, {policy.within}"
    if size > policy.budget * (1 + _SLACK):
        return f"its ball reaches {_in_words(policy, size)}, beyond {policy.within}"
    if size < policy.budget * policy.strength.fill:
        return f"its ball ends at {_in_words(policy, size)}, and does not spend {policy.within}"
    return ""


def _reach_without_ball(attack: DeclaredAttack, kind: EvidenceClass, target: Target, policy: Policy) -> str:
    if kind == "transfer" and attack.traits.masked:
        return "what it changes is worn, and has no budget to spend"
    if kind == "transfer":
        return "its probes lie on the boundary of what the attacker knows, and do not spend the budget"
    if kind in ("minimal", "query"):
        return _other_norm(attack, policy)
    if kind == "worn":
        return ""
    finest = attack.traits.finest
    if finest is None or policy.norm == "linf":
        return "it does not declare how weak its weakest noise is"
    size = 255 * finest if policy.norm == "rms" else finest * (3 * target.height * target.width) ** 0.5
    return f"its weakest noise, {_in_words(policy, size)}, is beyond {policy.within}" if size > policy.budget else ""


def _other_norm(attack: DeclaredAttack, policy: Policy) -> str:
    """Why the smallest perturbation that the attack looks for says nothing of the budget's norm."""
    wanted = "linf" if policy.norm == "linf" else "l2"
    found = attack.traits.minimizes
    if found == wanted:
        return ""
    return (
        f"it looks for the smallest {found.capitalize()}, not {wanted.capitalize()}"
        if found
        else "it minimizes nothing"
    )


def _in_words(policy: Policy, size: float) -> str:
    return f"RMS {size:.3g}/255" if policy.norm == "rms" else f"{policy.norm.capitalize()} {size:.3g}"
