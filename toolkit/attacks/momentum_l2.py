"""The momentum attack in an L2 ball, for attackers who do not know the deployed profile.

A smallest perturbation lies on the boundary of the verifier that it was crafted for, so that any filter undoes it. This
says nothing of an attacker who may spend a budget. Smooth perturbations that fill the ball survive filters: the
gradient is smoothed, and every step is taken.
"""

from __future__ import annotations

from toolkit.attacks.momentum import Momentum

ATTACK = Momentum(name="momentum-l2", norm="l2", epsilon=2.3, steps=40, path=5.0, kernel=5, far=True)
