"""What all that speaks HTTP here shares, whoever answers: :mod:`publisher.registry` and :mod:`publisher.federation` stand on it.

``background`` runs the network beside a program that waits for it, ``patience`` decides what is tried again and when, ``proxies``
which way a request takes, and ``answer`` and ``failures`` are what comes back.
"""
