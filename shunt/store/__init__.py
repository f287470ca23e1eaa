"""The object store: the only truth of a run. `opening.open_store` is the way in."""
