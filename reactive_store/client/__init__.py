"""The client's side of the sync protocol."""
