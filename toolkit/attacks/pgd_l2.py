"""Projected gradient ascent in the L2 norm (Madry et al. 2018, arXiv:1706.06083, section 2.1 and appendix)."""

from __future__ import annotations

from toolkit.attacks.pgd import Pgd

# The step size follows the authors' rule for L2: 2.5 times the radius over the number of steps.
ATTACK = Pgd(name="pgd-l2", norm="l2", epsilon=2.0, step=2.5 * 2.0 / 40)
