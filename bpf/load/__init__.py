"""Programs in the kernel: loaded, attached, asked; and the processes that were there before."""
