"""The worker: its loop, checkpoints and rewinds, shutdown, watchdog and health."""
