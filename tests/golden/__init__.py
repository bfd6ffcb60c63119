"""State as earlier versions of pillowd left it, which every later one must read.

`python -m tests.golden` writes the files again. From version 0.1.0 on a change of them is a change of what
users have on their disks: add files of the new version beside the old ones instead.
"""
