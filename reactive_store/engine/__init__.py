"""MVCC: snapshots, transactions, commits, subscriptions. The interface is `engine.database`."""

__all__: list[str] = []
