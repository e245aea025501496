"""Many calls: in which order, how many at once, until when, and again after what."""
