"""Squashfs images made in this process: the bytes are those that mksquashfs 4.5.1 makes of the same tar stream."""
