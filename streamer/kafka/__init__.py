"""Kafka: the source of records, the dead letters, topics, and reading a log from end to end."""
