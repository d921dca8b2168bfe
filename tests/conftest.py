"""Set-up shared by all tests."""

from __future__ import annotations

import os

# The models under test are tiny: a pool of NumPy threads costs several times what it saves.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
