"""The contenders, each a program of its own; they share the report of progress and the SGD step.

Nothing here imports streamer: the peers run in an environment of their own.
"""
