"""Sixpixels: audit and harden face verifiers that are deployed as ONNX files."""

__version__ = "0.1.0"
