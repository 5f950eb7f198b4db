"""Before any test: Triton must be loaded before Mesa's software renderer (see libero_eval/env/gl.py)."""

import contextlib

with contextlib.suppress(ImportError):
    import triton  # noqa: F401
