"""From the entries of an image to a squashfs: by this program itself, or by mksquashfs or tar2sqfs."""
