"""Rules: the languages that they are written in, the fields that they may name, and how they are checked."""
