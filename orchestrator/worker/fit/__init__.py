"""`python -m orchestrator.worker.fit`: the largest micro-batch that fits, simulated without a GPU."""
