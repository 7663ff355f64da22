"""The fast minimum-norm attack in L1: the smallest sum of changes, which few values make."""

from __future__ import annotations

from toolkit.attacks.fmn import Fmn

ATTACK = Fmn(name="fmn-l1", norm="l1")
