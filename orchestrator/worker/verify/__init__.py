"""`python -m orchestrator.worker.verify`: one recipe trained on many topologies, and why they differ where they do."""
