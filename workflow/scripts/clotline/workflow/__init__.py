"""What the Snakefile asks before and during a run."""
