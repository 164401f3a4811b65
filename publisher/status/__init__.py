"""Answers what people ask: is my image there, since when, and if not, why? Is the publisher healthy?"""
