"""Rules: the languages in which they are written, the fields that they can name, and how they are checked."""
