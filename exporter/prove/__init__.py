"""Golden numbers, from two witnesses, and their noise."""
