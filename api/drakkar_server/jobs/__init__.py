"""TrainingJobs over REST: list, submit, change, logs, streams."""
