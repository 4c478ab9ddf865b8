"""Detects the features of this host, and verifies that its events are delivered."""
