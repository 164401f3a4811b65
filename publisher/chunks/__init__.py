"""Chunk tables of SIFs on the publisher's side: how a SIF is cut, whether a table fits, how much two SIFs share."""
