"""Data about the host that events do not carry: containers, user and group names, hashes of executables."""
