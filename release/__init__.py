"""Build the files of a release: sdist, wheel, Debian package, bill of materials, checksums.

All is built from a clean checkout of the commit that is checked out, with what the lock files pin, and has
the time of that commit: built again, elsewhere, sdist and wheel are equal byte for byte.
"""
