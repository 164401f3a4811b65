"""From an image's layers to one tar stream: ``index``, ``flatten``, ``emit``.

:mod:`publisher.layers.index` reads a layer once, while it is downloaded, and keeps its headers;
:mod:`publisher.layers.flatten` decides from the headers of all layers which entries survive; :mod:`publisher.layers.emit`
writes the survivors as one tar stream for mksquashfs. No layer is ever unpacked to disk, so nothing in a layer can affect this
host.
"""
