"""Verifiers behind a network: called only when named, slowly, a counted number of times, and never believed."""
