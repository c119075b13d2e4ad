"""What every test starts from: a clean environment, an import path, and hypothesis profiles.

A developer's shell must not change results, so the variables that reactive_store or a client of it
reads are removed before the first import of either.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_OURS = ("REACTIVE_STORE_", "CONVEX_", "ANTHROPIC_", "VITE_CONVEX_")
for _name in [name for name in os.environ if name.startswith(_OURS)]:
    del os.environ[_name]

# Test modules share harnesses as `tests.e2e.…`; with pytest's importlib mode nothing else puts the
# repository's root on the path when pytest is started by its own command.
_ROOT = str(Path(__file__).resolve().parent.parent)
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

from hypothesis import HealthCheck, settings  # noqa: E402 - after the environment is clean

settings.register_profile(
    "default",
    deadline=None,  # a busy machine is not a bug
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=2000)
settings.load_profile("default")
