"""Memory and its collection: watched, tuned, timed; objects that are reused; what a container grants."""
