"""This machine, described from what its system tells: `tree` reads, the others interpret.

Nothing here measures except `bandwidth`. Everything that reads /proc, /sys or a system command
takes a `Tree`, so that recorded machines drive the tests. What a machine does not tell is None.
"""
