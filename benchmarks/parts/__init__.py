"""Each part of the hot path alone: `make bench-parts`."""
