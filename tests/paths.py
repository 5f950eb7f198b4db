"""Reference data beside the repository, when it is there."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"
GOLDEN = SHARED / "golden" if (SHARED / "golden").is_dir() else None
LIBERO_ASSETS = SHARED / "libero_assets" if (SHARED / "libero_assets").is_dir() else None

needs_golden = pytest.mark.skipif(GOLDEN is None, reason="no ../shared/golden reference data here")
needs_libero_assets = pytest.mark.skipif(
    LIBERO_ASSETS is None, reason="no ../shared/libero_assets (official LIBERO assets) here"
)
