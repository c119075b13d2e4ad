"""Where commits are kept. Nothing above this package knows SQL.

The contract is in `persistence.contract`; one suite holds every implementation to it.
"""

__all__: list[str] = []
