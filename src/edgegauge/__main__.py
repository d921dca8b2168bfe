"""`python -m edgegauge` is the same as `edgegauge`."""

from edgegauge.cli import main

main()
