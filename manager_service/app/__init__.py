"""The composition root: what the manager is made of, and its life as a process."""
