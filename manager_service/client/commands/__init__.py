"""The commands of `overhaul`, by noun. Each is parse, call, render, exit code."""
