"""Running the app's code: definitions, contexts, the runner, live queries."""

__all__: list[str] = []
