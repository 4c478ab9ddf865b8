"""What this host offers, feature by feature, and the proof that its events come."""
