"""A sibling that the others import, as in a script."""

NUM_FEATURES = 6
