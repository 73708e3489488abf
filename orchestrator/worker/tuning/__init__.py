"""What is changed while a run trains: loader processes, and the precision of the forward pass; the laws are pure."""
