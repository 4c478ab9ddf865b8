"""The kernel struct members that the programs read, by the name the C sources use for them.

`KERNEL_task_struct_cred` in C is the byte offset of `struct task_struct.cred` in the running kernel.
Where a member was renamed or moved over time, the alternatives stand in order of preference.
"""

from __future__ import annotations

from bpf.btf import Btf, UnknownMember

OFFSETS: dict[str, tuple[tuple[str, str], ...]] = {
    f"{struct}_{path.replace('.', '_')}": ((struct, path),)
    for struct, path in (
        ("task_struct", "thread_info.status"),
        ("task_struct", "thread_info.flags"),
        ("task_struct", "cred"),
        ("task_struct", "nsproxy"),
        ("task_struct", "cgroups"),
        ("task_struct", "real_parent"),
        ("task_struct", "group_leader"),
        ("task_struct", "thread_pid"),
        ("task_struct", "pid"),
        ("task_struct", "tgid"),
        ("task_struct", "comm"),
        ("task_struct", "flags"),
        ("task_struct", "mm"),
        ("task_struct", "files"),
        ("task_struct", "signal"),
        ("task_struct", "exit_code"),
        ("task_struct", "pending.signal"),
        ("signal_struct", "live.counter"),
        ("cred", "uid"),
        ("cred", "gid"),
        ("cred", "euid"),
        ("pid", "level"),
        ("pid", "numbers"),
        ("upid", "nr"),
        ("upid", "ns"),
        ("pid_namespace", "ns.inum"),
        ("nsproxy", "mnt_ns"),
        ("nsproxy", "uts_ns"),
        ("mnt_namespace", "ns.inum"),
        ("uts_namespace", "ns.inum"),
        ("uts_namespace", "name.nodename"),
        ("mm_struct", "arg_start"),
        ("mm_struct", "arg_end"),
        ("mm_struct", "env_start"),
        ("mm_struct", "env_end"),
        ("mm_struct", "exe_file"),
        ("linux_binprm", "file"),
        ("linux_binprm", "filename"),
        ("linux_binprm", "interp"),
        ("file", "f_inode"),
        ("file", "f_path"),
        ("path", "dentry"),
        ("path", "mnt"),
        ("dentry", "d_parent"),
        ("dentry", "d_name.name"),
        ("mount", "mnt"),
        ("mount", "mnt_parent"),
        ("mount", "mnt_mountpoint"),
        ("vfsmount", "mnt_root"),
        ("inode", "i_ino"),
        ("inode", "i_mode"),
        ("inode", "i_sb"),
        ("super_block", "s_dev"),
        ("files_struct", "fdt"),
        ("fdtable", "fd"),
        ("cgroup", "kn"),
        ("cgroup", "root"),
        ("cgroup_root", "hierarchy_id"),
        ("kernfs_node", "id"),
    )
}
"""Members that changed their name: since 6.11 an inode's times are plain numbers."""
OFFSETS["inode_ctime_sec"] = (("inode", "i_ctime_sec"), ("inode", "__i_ctime.tv_sec"), ("inode", "i_ctime.tv_sec"))
OFFSETS["inode_ctime_nsec"] = (("inode", "i_ctime_nsec"), ("inode", "__i_ctime.tv_nsec"), ("inode", "i_ctime.tv_nsec"))
"""Before 5.14 the start time since boot had another name."""
OFFSETS["task_struct_start_boottime"] = (("task_struct", "start_boottime"), ("task_struct", "real_start_time"))
REGISTERS = {
    "x86_64": ("di", "si", "dx", "r10", "r8", "r9", "bx", "cx", "bp", "orig_ax"),
    "aarch64": ("regs", "orig_x0", "syscallno"),
}


def resolve(btf: Btf, machine: str) -> dict[str, int]:
    """`KERNEL_*` constants for the C sources; UnknownMember if this kernel lacks one."""
    wanted = dict(OFFSETS)
    for register in REGISTERS[machine]:
        wanted[f"pt_regs_{register}"] = (("pt_regs", register),)
    found = {f"KERNEL_{name}": _first(btf, places) for name, places in wanted.items()}
    found["KERNEL_upid_size"] = btf.size("upid")
    return found


def _first(btf: Btf, places: tuple[tuple[str, str], ...]) -> int:
    for struct, path in places[:-1]:
        try:
            return btf.offset(struct, path)
        except UnknownMember:
            continue
    return btf.offset(*places[-1])
