"""A server that moves commits to its tables all the time, so that a kill finds it doing so.

    python -m tests.trust.crash.eager_server serve --app … --data …

Nothing is broken: the sizes at which a round begins are smaller, and the log is trimmed in smaller
pieces, than in production.
"""

from __future__ import annotations

from reactive_store.cli.main import main
from reactive_store.persistence import materialiser, sqlite_log

if __name__ == "__main__":
    materialiser._ROUND_ROWS = 120
    materialiser._QUIET_ROWS = 10
    sqlite_log._FORGET_ROWS = 3
    main()
