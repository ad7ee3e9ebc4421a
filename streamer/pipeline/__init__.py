"""The pure core of a worker: records in, writes out, and the ports between core and world."""
