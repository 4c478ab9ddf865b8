"""Names of numbers that are missing from the uapi headers or composed of parts (for others: bpf/tables/words.py)."""

from __future__ import annotations

FILE_TYPE = {
    0o140000: "S_IFSOCK",
    0o120000: "S_IFLNK",
    0o100000: "S_IFREG",
    0o060000: "S_IFBLK",
    0o040000: "S_IFDIR",
    0o020000: "S_IFCHR",
    0o010000: "S_IFIFO",
}
"""Names of the file type in st_mode (S_IFMT)."""
MODE = (
    (0o4000, "S_ISUID"),
    (0o2000, "S_ISGID"),
    (0o1000, "S_ISVTX"),
    (0o700, "S_IRWXU"),
    (0o400, "S_IRUSR"),
    (0o200, "S_IWUSR"),
    (0o100, "S_IXUSR"),
    (0o070, "S_IRWXG"),
    (0o040, "S_IRGRP"),
    (0o020, "S_IWGRP"),
    (0o010, "S_IXGRP"),
    (0o007, "S_IRWXO"),
    (0o004, "S_IROTH"),
    (0o002, "S_IWOTH"),
    (0o001, "S_IXOTH"),
)
"""Permission bits. The three bits of a class together have their own name, listed before them."""
ALERT = {
    1: "Mmaped region with W+E permissions!",
    2: "Protection changed to Executable!",
    3: "Protection changed from E to W+E!",
    4: "Protection changed from W+E to E!",
}
"""Values of mem_prot_alert, in Tracee's words. 4: was writable, is now executable and no longer writable."""
MOUNT_MAGIC = 0xC0ED0000
"""Upper half of the flags as programs older than Linux 2.4 pass it. The kernel removes it."""
