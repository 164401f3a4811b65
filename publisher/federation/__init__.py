"""A federation of data origins as Pelican makes one (the OSDF is the best known), for who stores objects in it.

A federation's discovery names its director, the director names the origin of a path, and that origin is spoken to in WebDAV,
with bearer tokens that say what may be done where. Nothing here reads through a cache: those serve for ever what they have
once seen. Every request's failure is one of three: :class:`~publisher.network.patience.TransientError`, which is tried again
and stays inside, :class:`~publisher.errors.OriginError`, or :class:`~publisher.errors.SpaceError`.
"""
