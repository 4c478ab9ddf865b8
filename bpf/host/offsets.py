"""Kernel struct members that the programs read, by the names that the C sources use.

`KERNEL_task_struct_cred` in C is the byte offset of `struct task_struct.cred` in the running kernel. Alternatives for
members that were renamed or moved are listed in order of preference.
"""

from __future__ import annotations

import contextlib

from headrace.bpf.host.btf import VMLINUX, Btf, UnknownMember

OFFSETS: dict[str, tuple[tuple[str, str], ...]] = {
    f"{struct}_{path.replace('.', '_')}": ((struct, path),)
    for struct, path in (
        ("task_struct", "thread_info.status"),
        ("task_struct", "thread_info.flags"),
        ("task_struct", "stack"),
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
        ("task_struct", "personality"),
        ("task_struct", "mm"),
        ("task_struct", "files"),
        ("task_struct", "signal"),
        ("task_struct", "exit_code"),
        ("task_struct", "pending.signal"),
        ("task_struct", "blocked"),
        ("task_struct", "seccomp.mode"),
        ("task_struct", "seccomp.filter"),
        ("signal_struct", "live.counter"),
        ("signal_struct", "nr_threads"),
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
        ("mm_struct", "saved_auxv"),
        ("linux_binprm", "file"),
        ("linux_binprm", "filename"),
        ("linux_binprm", "interp"),
        ("file", "f_inode"),
        ("file", "f_path"),
        ("path", "dentry"),
        ("path", "mnt"),
        ("dentry", "d_parent"),
        ("dentry", "d_name.name"),
        ("dentry", "d_inode"),
        ("dentry", "d_flags"),
        ("dentry", "d_hash.pprev"),
        ("mount", "mnt"),
        ("mount", "mnt_parent"),
        ("mount", "mnt_mountpoint"),
        ("mount", "mnt_mounts"),
        ("mount", "mnt_child"),
        ("vfsmount", "mnt_root"),
        ("inode", "i_ino"),
        ("inode", "i_mode"),
        ("inode", "i_sb"),
        ("inode", "i_link"),
        ("super_block", "s_dev"),
        ("super_block", "s_magic"),
        ("files_struct", "fdt"),
        ("fdtable", "fd"),
        ("cgroup", "kn"),
        ("cgroup", "root"),
        ("cgroup", "level"),
        ("cgroup_root", "hierarchy_id"),
        ("kernfs_node", "id"),
        ("kernfs_node", "name"),
        ("cgroup", "self"),
        ("cgroup_subsys_state", "cgroup"),
        ("cgroup_subsys_state", "parent"),
        ("css_set", "subsys"),
        ("css_set", "dfl_cgrp"),
        ("task_struct", "fs"),
        ("fs_struct", "root"),
        ("fs_struct", "pwd"),
        ("fdtable", "max_fds"),
        ("dentry", "d_seq"),
        ("file", "f_flags"),
        ("inode", "i_size"),
        ("vm_area_struct", "vm_ops"),
        ("mm_struct", "start_brk"),
        ("mm_struct", "brk"),
        ("file", "f_mode"),
        ("file", "f_pos"),
        ("file", "private_data"),
        ("vfsmount", "mnt_sb"),
        ("mount", "mnt_devname"),
        ("super_block", "s_type"),
        ("file_system_type", "name"),
        ("socket", "sk"),
        ("sock", "__sk_common"),
        ("sock", "sk_type"),
        ("sock", "sk_protocol"),
        ("sock_common", "skc_family"),
        ("sock_common", "skc_dport"),
        ("sock_common", "skc_num"),
        ("sock_common", "skc_daddr"),
        ("sock_common", "skc_rcv_saddr"),
        ("sock_common", "skc_v6_daddr"),
        ("sock_common", "skc_v6_rcv_saddr"),
        ("sock_common", "skc_bound_dev_if"),
        ("unix_sock", "addr"),
        ("unix_sock", "peer"),
        ("unix_address", "len"),
        ("unix_address", "name"),
        *(("cred", name) for name in ("suid", "sgid", "egid", "fsuid", "fsgid", "securebits", "user_ns")),
        *(("cred", f"cap_{name}") for name in ("inheritable", "permitted", "effective", "bset", "ambient")),
        ("user_namespace", "ns.inum"),
        ("nsproxy", "pid_ns_for_children"),
        ("nsproxy", "ipc_ns"),
        ("nsproxy", "net_ns"),
        ("nsproxy", "cgroup_ns"),
        ("nsproxy", "time_ns"),
        ("nsproxy", "time_ns_for_children"),
        ("time_namespace", "ns.inum"),
        ("ipc_namespace", "ns.inum"),
        ("net", "ns.inum"),
        ("cgroup_namespace", "ns.inum"),
        ("vm_area_struct", "vm_start"),
        ("vm_area_struct", "vm_end"),
        ("vm_area_struct", "vm_flags"),
        ("vm_area_struct", "vm_file"),
    )
}
# renamed members; since 6.11, the times of an inode are plain numbers
OFFSETS["inode_ctime_sec"] = (("inode", "i_ctime_sec"), ("inode", "__i_ctime.tv_sec"), ("inode", "i_ctime.tv_sec"))
OFFSETS["inode_ctime_nsec"] = (("inode", "i_ctime_nsec"), ("inode", "__i_ctime.tv_nsec"), ("inode", "i_ctime.tv_nsec"))
# children of a directory: a list until 6.8, since then a list with a simple head; both are traversed the same way
OFFSETS["dentry_children"] = (("dentry", "d_children"), ("dentry", "d_subdirs"))
OFFSETS["dentry_sibling"] = (("dentry", "d_sib"), ("dentry", "d_child"))
# renamed in 5.5
OFFSETS["task_struct_start_boottime"] = (("task_struct", "start_boottime"), ("task_struct", "real_start_time"))
MAPLE_TREE = (
    ("mm_struct", "mm_mt"),
    ("maple_tree", "ma_root"),
    ("maple_range_64", "pivot"),
    ("maple_range_64", "slot"),
    ("maple_arange_64", "pivot"),
    ("maple_arange_64", "slot"),
)
"""Members that lead to the regions of a process: a maple tree, since 6.1."""
RED_BLACK_TREE = (
    *(("mm_struct", "mm_rb"), ("vm_area_struct", "vm_rb")),
    *(("rb_node", "rb_left"), ("rb_node", "rb_right")),
)
"""Members that lead to the regions of a process before 6.1: a red-black tree."""
AUDIT = (("task_struct", "loginuid"), ("task_struct", "sessionid"))
"""Members on kernels with CONFIG_AUDIT."""
PIDS = (
    ("pid_namespace", "idr.idr_rt.xa_head"),
    ("pid_namespace", "idr.idr_base"),
    ("xa_node", "shift"),
    ("xa_node", "slots"),
    ("pid", "tasks"),
    ("task_struct", "pid_links"),
)
"""Members that lead to the process ids of a namespace, since 4.20."""
PROC = (("proc_inode", "pid"), ("proc_inode", "fd"), ("proc_inode", "vfs_inode"))
"""Members that lead to the process of a procfs file. The structure is declared in fs/proc/internal.h."""
IO_URING = (
    ("io_kiocb", "opcode"),
    ("io_kiocb", "flags"),
    ("io_kiocb", "cqe.user_data"),
    ("io_kiocb", "cqe.fd"),
    ("filename", "name"),
    ("io_close", "fd"),
    ("io_close", "file_slot"),
    *(
        (struct, member)
        for struct in ("io_open", "io_statx", "io_unlink", "io_mkdir")
        for member in ("dfd", "filename")
    ),
    *(
        (struct, member)
        for struct in ("io_rename", "io_link")
        for member in ("old_dfd", "new_dfd", "oldpath", "newpath")
    ),
)
"""Members on kernels with io_uring and the submission tracepoint in its form since 6.3."""
IO_ADDRESS = (("io_connect", "addr"), ("io_connect", "addr_len"), ("io_sr_msg", "umsg"))
"""The caller's pointers to addresses in io_uring requests."""
IO_BIND = (("io_kiocb", "async_data"), ("io_bind", "addr_len"), ("io_async_msghdr", "addr"))
IO_COPY = (("io_async_msghdr", "vec"), ("io_async_msghdr", "msg.msg_name"), ("io_async_msghdr", "msg.msg_namelen"))
"""The kernel's copies of these addresses. On older kernels, which lack IO_COPY, only those of BIND are read."""
OPERATIONS = """READV WRITEV FSYNC READ_FIXED WRITE_FIXED POLL_ADD SYNC_FILE_RANGE SENDMSG RECVMSG ACCEPT CONNECT
    FALLOCATE OPENAT CLOSE STATX READ WRITE FADVISE SEND RECV OPENAT2 SPLICE TEE SHUTDOWN RENAMEAT UNLINKAT MKDIRAT
    SYMLINKAT LINKAT MSG_RING FSETXATTR FGETXATTR URING_CMD SEND_ZC SENDMSG_ZC READ_MULTISHOT FTRUNCATE BIND LISTEN
    RECV_ZC EPOLL_WAIT READV_FIXED WRITEV_FIXED FIXED_FD_INSTALL""".split()
NO_OPERATION = 63
"""Value for an operation that this kernel lacks."""
DCACHE_MOUNTED = 0x10000
"""Value in kernels before 6.15, where it is not an enumerator."""
SECCOMP = (("seccomp_filter", "prev"), ("seccomp_filter", "notif"))
"""Members on kernels with seccomp filters."""
MODULES = (("module", "name"), ("module", "version"), ("module", "srcversion"), ("module", "list"))
"""Members on kernels with modules."""
HOOKED = (
    *(("bpf_map", "id"), ("bpf_map", "name"), ("bpf_prog", "aux"), ("bpf_prog", "type")),
    *(("bpf_prog_aux", "id"), ("bpf_prog_aux", "name")),
    *(("kprobe", "symbol_name"), ("kprobe", "pre_handler"), ("kprobe", "post_handler")),
    *(("subprocess_info", "path"), ("subprocess_info", "argv"), ("subprocess_info", "envp")),
    *(("device", "init_name"), ("device", "kobj.name"), ("device", "parent")),
    *(("k_sigaction", f"sa.sa_{name}") for name in ("handler", "flags", "mask")),
    *(("task_struct", "sighand"), ("sighand_struct", "action")),
)
"""Members that hooks read (bpf/c/hooks.c). Each is optional."""
REGISTERS = {
    "x86_64": ("di", "si", "dx", "r10", "r8", "r9", "bx", "cx", "bp", "orig_ax", "ip"),
    "aarch64": ("regs", "orig_x0", "syscallno", "pc"),
}


def resolve(btf: Btf, machine: str) -> dict[str, int]:
    """`KERNEL_*` constants for the C sources. Raises UnknownMember if this kernel lacks a required member."""
    wanted = dict(OFFSETS)
    for register in REGISTERS[machine]:
        wanted[f"pt_regs_{register}"] = (("pt_regs", register),)
    found = {f"KERNEL_{name}": _first(btf, places) for name, places in wanted.items()}
    found["KERNEL_upid_size"] = btf.size("upid")
    found["KERNEL_pt_regs_size"] = btf.size("pt_regs")
    for members in (
        MAPLE_TREE,
        RED_BLACK_TREE,
        AUDIT,
        PIDS,
        PROC,
        IO_URING,
        IO_ADDRESS,
        IO_BIND,
        IO_COPY,
        SECCOMP,
        MODULES,
    ):
        with contextlib.suppress(UnknownMember):
            found |= {f"KERNEL_{s}_{path.replace('.', '_')}": btf.offset(s, path) for s, path in members}
    for struct, path in (*HOOKED, ("cgroup", "ancestor_ids"), ("cgroup", "ancestors")):
        with contextlib.suppress(UnknownMember):
            found[f"KERNEL_{struct}_{path.replace('.', '_')}"] = btf.offset(struct, path)
    found["KERNEL_k_sigaction_size"] = btf.size("k_sigaction")
    with contextlib.suppress(UnknownMember):
        found["KERNEL_do_truncate_parameters"] = btf.parameters("do_truncate")
    found["KERNEL_DCACHE_MOUNTED"] = DCACHE_MOUNTED
    with contextlib.suppress(UnknownMember):
        found["KERNEL_DCACHE_MOUNTED"] = btf.enumerator("dentry_flags", "DCACHE_MOUNTED")
    if VMLINUX.exists():  # kernel functions are called by BTF id, which requires vmlinux BTF
        with contextlib.suppress(UnknownMember):
            found |= {
                "KERNEL_rdonly_cast": btf.function("bpf_rdonly_cast"),
                "KERNEL_task_struct": btf.aggregate("task_struct"),
            }
        with contextlib.suppress(UnknownMember):
            found |= {f"KERNEL_preempt_{what}": btf.function(f"bpf_preempt_{what}") for what in ("disable", "enable")}
    for operation in OPERATIONS:
        found[f"KERNEL_IORING_OP_{operation}"] = NO_OPERATION
        with contextlib.suppress(UnknownMember):
            found[f"KERNEL_IORING_OP_{operation}"] = btf.enumerator("io_uring_op", f"IORING_OP_{operation}")
    return found


def _first(btf: Btf, places: tuple[tuple[str, str], ...]) -> int:
    for struct, path in places[:-1]:
        try:
            return btf.offset(struct, path)
        except UnknownMember:
            continue
    return btf.offset(*places[-1])
