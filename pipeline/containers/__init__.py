"""What the host knows beyond events: container runtimes, accounts, hashes of executables."""
