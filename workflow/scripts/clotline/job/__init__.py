"""What carries a job and cannot change a result: logs, progress, files, processes."""
