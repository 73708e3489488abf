"""The lab: a four-node Slurm cluster on one machine. Standard library only; it imports nothing of the product."""
