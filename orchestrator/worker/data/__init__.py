"""How samples reach a rank: datasets by id, loader processes, stored orders, and what ranks compare of the data."""
