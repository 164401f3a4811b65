"""The manifest in its places: the next revision and the earlier ones, the copy in the state directory, and the witnesses."""
