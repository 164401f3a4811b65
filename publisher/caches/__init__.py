"""What the publisher asks the caches of a federation: to fetch popular SIFs before jobs do, and to evict blocked ones."""
