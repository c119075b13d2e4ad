"""`python -m reactive_store`: the same program as `reactive-store`."""

from __future__ import annotations

from reactive_store.cli.main import main

if __name__ == "__main__":
    main()
