"""`python -m streamer` is `streamer`."""

from streamer.cli.main import main

main()
