"""The fast minimum-norm attack in L1: the smallest sum of changes, which few values make.

Its steps are longer than in other norms, because the ball keeps only the largest values of a step.
"""

from __future__ import annotations

from toolkit.attacks.fmn import Fmn

ATTACK = Fmn(name="fmn-l1", norm="l1", step=3.0)
