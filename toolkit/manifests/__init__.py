"""Manifests found by trying: what a model's file says, the ways to read it, and which of them tells people apart."""
