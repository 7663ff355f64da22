"""Verification of clean pairs, before any attack."""
