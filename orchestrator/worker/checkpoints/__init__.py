"""State on disk: one checkpoint's layout, the store of a run, saving beside the training, loading what fits."""
