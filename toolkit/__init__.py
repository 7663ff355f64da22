"""Sixpixels: audit and harden face verifiers that are deployed as ONNX files.

docs/api.md describes the public interface, which `__init__.pyi` lists. A name is imported when it is first asked for:
importing `toolkit` loads neither TensorFlow nor ONNX Runtime.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
