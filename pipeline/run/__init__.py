"""A run: the composition root, the supervisor, the kernel side, the traced command, signature reloads."""
