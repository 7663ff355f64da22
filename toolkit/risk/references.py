"""Entries of public catalogs that belong to a finding."""

from __future__ import annotations

from toolkit.audit.results.assessment import DeclaredAttack, ScenarioResult
from toolkit.risk.findings import Reference

_ATLAS, _NIST = "MITRE ATLAS 2026.07", "NIST AI 100-2e2025"
# The text of AML.T0015 names biometric authentication. AML.T0073, Impersonation, is about social engineering.
_OUTCOME = Reference(_ATLAS, "AML.T0015", "Evade AI Model")
_ALWAYS = (
    Reference("OWASP AI Testing Guide", "AITG-MOD-01", "Testing for Evasion Attacks"),
    Reference("OWASP", "ML01:2023", "Input Manipulation Attack"),
    Reference("CWE", "CWE-1039", "Inadequate Detection or Handling of Adversarial Input Perturbations"),
)
_WHITE = (
    Reference(_ATLAS, "AML.T0043.000", "White-Box Optimization"),
    Reference(_ATLAS, "AML.T0044", "Full AI Model Access"),
    Reference(_NIST, "white-box evasion", "Evasion with full knowledge"),
)
_QUERY = (
    Reference(_ATLAS, "AML.T0043.001", "Black-Box Optimization"),
    Reference(_ATLAS, "AML.T0040", "AI Model Inference API Access"),
    Reference(_NIST, "black-box evasion", "Evasion by queries"),
)
_TRANSFER = (
    Reference(_ATLAS, "AML.T0043.002", "Black-Box Transfer"),
    Reference(_ATLAS, "AML.T0005", "Create Proxy AI Model"),
    Reference(_NIST, "gray-box evasion", "Evasion by transferability"),
)
# Mitigations that ATLAS names, by what the attacker has. Release 2026.07 gave most of them these names.
_RESTORATION = Reference(_ATLAS, "AML.M0010", "Predictive AI Input Restoration")
_DETECTION = Reference(_ATLAS, "AML.M0015", "Predictive AI Adversarial Input Detection")
_MITIGATIONS = {
    "zero": (_RESTORATION, _DETECTION),
    "partial": (Reference(_ATLAS, "AML.M0006", "Predictive AI Ensembles"), _DETECTION),
    "perfect": (Reference(_ATLAS, "AML.M0003", "Predictive AI Model Hardening"), _DETECTION),
    "query": (
        Reference(_ATLAS, "AML.M0004", "Limit AI Service Query Volume and Rate"),
        Reference(_ATLAS, "AML.M0002", "Predictive AI Output Obfuscation"),
    ),
}
_SENSORS = Reference(_ATLAS, "AML.M0009", "Predictive AI Multi-Sensor Fusion")
_NOISE = Reference(_ATLAS, "AML.T0043.003", "Manual Modification")
_WORN = Reference(_ATLAS, "AML.T0041", "Physical Environment Access")


def references(s: ScenarioResult, attack: DeclaredAttack) -> tuple[Reference, ...]:
    """The techniques of a finding, its outcome, what mitigates it, and what tests for it."""
    noise = attack.needs == "runtime" and attack.traits.budget is None
    how = {"perfect": _WHITE, "query": _QUERY}.get(s.knowledge, _TRANSFER)
    if noise:
        how = (_NOISE, *how[1:])
    worn = (_WORN, _SENSORS) if attack.traits.masked else ()
    return (*how, *worn, _OUTCOME, *_MITIGATIONS[s.knowledge], *_ALWAYS)
