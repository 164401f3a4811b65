"""Plans what a run will do from the list, the registries' digests and the published state. Pure."""
