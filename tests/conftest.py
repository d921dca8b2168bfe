"""Set-up shared by all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# The models under test are tiny: a pool of NumPy threads costs several times what it saves.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# The suite that CI runs asks the same questions each time; a desk explores (HYPOTHESIS=explore).
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS", "same"))
