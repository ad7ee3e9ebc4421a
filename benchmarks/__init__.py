"""`make bench`: streamer beside the floor, the first loop a user writes, and its peers."""
