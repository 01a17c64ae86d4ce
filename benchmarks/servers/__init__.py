"""Overhaul beside the programs that servers bring along, on copies of one database."""
