"""The resolver: it decides on an execution point which form of an image a job runs, and provides it.

It is written for Python 3.9 and the standard library, and is shipped on its own.
"""
