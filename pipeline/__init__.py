"""Moves records between processes without interpreting them."""
