"""The status page: static files that say of each image whether it is there, and if not, why. It is written by every sync.

Published state, outcomes and list come in (:mod:`publisher.page.rows`), files go out (:mod:`publisher.page.writer`).
"""
