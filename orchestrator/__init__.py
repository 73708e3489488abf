"""orchestrate: one recipe, any Slurm allocation, the same science."""

__version__ = "0.1.0"
