"""State and targets as earlier versions of pillowd left them, which every later one must open and go on from.

At each release, `python -m tests.golden VERSION` adds a folder to `targets/`; no folder is ever changed or
removed, since it stands for what is on the disks of users. `python -m tests.golden` writes the files of the
state again: from version 0.1.0 on, add files of the new version beside the old ones instead. The folder of a
version that is not released yet is written again whenever something changes in what is stored.
"""
