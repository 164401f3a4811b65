"""Notices to owners and operators when an image changes its state: once, by mail and webhooks."""
