"""What is done to what is published: garbage collection, blocking, verification, audits."""
