"""APGD to the largest margin in a ball, for attackers who do not know the deployed profile.

A smallest perturbation lies on the boundary of the verifier that it was crafted for, so that any filter undoes it. This
says nothing of an attacker who may spend a budget.
"""

from __future__ import annotations

from toolkit.attacks.apgd import Apgd

ATTACK = Apgd(name="apgd-far", far=True, steps=50)
