"""A trial: learners and baselines foresee a log's plays (docs/reference/replay.md)."""
