"""Values on their way: their keys, sizes, bytes and rates."""
