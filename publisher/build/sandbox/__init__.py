"""The sandbox of an image: unpacked from its SIF or from its layers, or as changes to a clone of the one before."""
