"""What carries a job or makes it fast and cannot change a result: no digest of code counts it."""
