"""``python -m adapter``: the command where its script is not on the path."""

from adapter.cli import main

main()
