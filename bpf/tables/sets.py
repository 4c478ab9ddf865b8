"""Sets of events, with their names in Tracee 0.8.0.

A set contains the events of its line, and those of all sets whose names begin with its name and an underscore: `fs`
includes all of `fs_*`. `syscalls` and `32bit_unique` are derived from the tables of system calls.
"""

_TEXT = """
default open close stat fstat lstat access dup socket connect accept bind listen getsockname clone fork vfork execve
    kill getdents creat unlink symlink chmod fchmod chown fchown lchown ptrace setuid setgid setreuid setregid setfsuid
    setfsgid mknod prctl mount umount2 init_module delete_module getdents64 openat mknodat fchownat unlinkat symlinkat
    fchmodat faccessat accept4 dup3 process_vm_readv process_vm_writev finit_module memfd_create bpf execveat
    pkey_mprotect move_mount clone3 close_range openat2 faccessat2 sched_process_exec sched_process_exit cap_capable
    security_bprm_check security_file_open security_inode_unlink security_socket_create security_socket_listen
    security_socket_connect security_socket_accept security_socket_bind security_socket_setsockopt security_sb_mount
    sched_process_fork

fs pivot_root mount umount2 swapon swapoff nfsservctl readahead fadvise64 getrandom move_mount fsopen fsconfig fsmount
    fspick mount_setattr landlock_create_ruleset landlock_add_rule landlock_restrict_self security_sb_mount
fs_read_write read write lseek pread64 pwrite64 readv writev sendfile preadv pwritev copy_file_range preadv2 pwritev2
fs_file_ops open close truncate ftruncate rename creat mknod openat mknodat renameat fallocate name_to_handle_at
    open_by_handle_at renameat2 memfd_create close_range openat2 security_file_open security_inode_unlink
    security_inode_symlink security_mmap_file security_file_mprotect shared_object_loaded
fs_file_attr stat fstat lstat access chmod fchmod chown fchown lchown umask utime setxattr lsetxattr fsetxattr getxattr
    lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr utimes fchownat futimesat
    newfstatat fchmodat faccessat utimensat statx faccessat2
fs_mux_io poll select epoll_create epoll_ctl_old epoll_wait_old epoll_wait epoll_ctl pselect6 ppoll epoll_pwait
    epoll_create1 epoll_pwait2
fs_fd_ops ioctl dup dup2 fcntl flock dup3
fs_sync msync fsync fdatasync sync sync_file_range syncfs
fs_dir_ops getdents getcwd chdir fchdir mkdir rmdir chroot lookup_dcookie getdents64 mkdirat
fs_link_ops link unlink symlink readlink unlinkat linkat symlinkat readlinkat
fs_info ustat statfs fstatfs sysfs
fs_async_io io_setup io_destroy io_getevents io_submit io_cancel io_pgetevents
fs_monitor inotify_init inotify_add_watch inotify_rm_watch inotify_init1 fanotify_init fanotify_mark

proc getrlimit getrusage times ptrace capget capset uselib prctl arch_prctl setrlimit set_thread_area get_thread_area
    set_tid_address unshare prlimit64 setns process_vm_readv process_vm_writev kcmp seccomp landlock_create_ruleset
    landlock_add_rule landlock_restrict_self sched_process_exec task_rename load_elf_phdrs
proc_mem mmap mprotect munmap brk mremap mincore madvise mlock munlock mlockall munlockall modify_ldt membarrier mlock2
    pkey_mprotect pkey_alloc pkey_free security_mmap_file security_file_mprotect shared_object_loaded
proc_sched sched_yield getpriority setpriority sched_setparam sched_getparam sched_setscheduler sched_getscheduler
    sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_setaffinity sched_getaffinity ioprio_set
    ioprio_get sched_setattr sched_getattr
proc_ids getpid getuid getgid setuid setgid geteuid getegid setpgid getppid getpgrp setsid setreuid setregid getgroups
    setgroups setresuid getresuid setresgid getresgid getpgid setfsuid setfsgid getsid gettid
proc_life clone fork vfork execve exit wait4 exit_group waitid execveat clone3 sched_process_fork sched_process_exec
    sched_process_exit security_bprm_check do_exit

signals rt_sigaction rt_sigprocmask rt_sigreturn pause kill rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend
    sigaltstack tkill restart_syscall tgkill signalfd eventfd signalfd4 eventfd2 rt_tgsigqueueinfo pidfd_send_signal

ipc
ipc_pipe pipe splice tee vmsplice pipe2
ipc_shm shmget shmat shmctl shmdt
ipc_sem semget semop semctl semtimedop
ipc_msgq msgget msgsnd msgrcv msgctl mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
ipc_futex futex set_robust_list get_robust_list

time
time_timer nanosleep getitimer alarm setitimer timer_create timer_settime timer_gettime timer_getoverrun timer_delete
    timerfd_create timerfd_settime timerfd_gettime
time_tod gettimeofday settimeofday time
time_clock adjtimex clock_settime clock_gettime clock_getres clock_nanosleep clock_adjtime

net sethostname setdomainname
net_sock socket connect accept shutdown bind listen getsockname getpeername socketpair setsockopt getsockopt accept4
    security_socket_create security_socket_listen security_socket_connect security_socket_accept security_socket_bind
    security_socket_setsockopt
net_snd_rcv sendto recvfrom sendmsg recvmsg recvmmsg sendmmsg

system uname sysinfo syslog personality vhangup _sysctl acct reboot iopl ioperm quotactl kexec_load perf_event_open
    kexec_file_load bpf userfaultfd
system_module create_module init_module delete_module get_kernel_syms query_module finit_module
system_numa mbind set_mempolicy get_mempolicy migrate_pages move_pages getcpu
system_keys add_key request_key keyctl

lsm_hooks security_bprm_check security_file_open security_inode_unlink security_socket_create security_socket_listen
    security_socket_connect security_socket_accept security_socket_bind security_socket_setsockopt security_sb_mount
    security_bpf security_bpf_map security_kernel_read_file security_kernel_post_read_file security_inode_mknod
    security_inode_symlink security_mmap_file security_file_mprotect shared_object_loaded
network_events net_packet dns_request dns_response
"""


def _read(text: str) -> dict[str, frozenset[str]]:
    own: dict[str, set[str]] = {}
    for line in text.splitlines():
        if not line.startswith(" ") and line:
            name, *words = line.split()
            own[name] = set(words)
        elif line:
            own[name].update(line.split())
    return {
        name: frozenset(words.union(*(more for other, more in own.items() if other.startswith(f"{name}_"))))
        for name, words in own.items()
    }


SETS = _read(_TEXT)
