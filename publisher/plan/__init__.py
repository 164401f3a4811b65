"""What a run will do: the list, the registries' digests and the published state make a plan. Pure."""
