"""Runs from the command line: their options and commands, and what all of them share."""
