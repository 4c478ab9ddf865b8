"""Events that are not system calls: their sources and arguments.

    NAME | SOURCE | ARGUMENTS

Source:  raw:X       the raw tracepoint X
         hook:F,G    a kprobe on the kernel function F, or on G if F does not exist. After `exit:`, it reports what no
                     call of those programs does (bpf/c/checks.c)
         exit:P      the exit of the calls that program P handles (CALLS below)
         start       emitted once, when headrace starts
         check:S,T   emitted when the kernel tables at the symbols S and T are modified. They are checked at the
                     start, at intervals, and after a module has loaded (bpf/load/integrity.py)
         headrace    headrace itself
         none:WHY    no source that headrace can use

An argument is `type name`, optionally with a mark for its form: `@path` a path walked from a kernel object, leaf first
(bpf/c/path.h); `@name` a string that the caller passed, joined with its start directory (`lexical`); `@kernel` read
from kernel objects; `@object` the same, null if the object no longer exists; `@unread` never read; `@named` from the
container's runtime, never in the record; `@hash` computed in user space on request. The source of strings and structs
without a mark is in the record. A path `x` adds `root_x`, the same path relative to the process's own root. Names,
types and order of arguments are Tracee's; arguments that headrace adds follow them.
"""

EVENTS = """
sys_enter | raw:sys_enter | int syscall
sys_exit | raw:sys_exit | int syscall
sched_process_fork | raw:sched_process_fork | int parent_tid@kernel, int parent_ns_tid@kernel, int parent_pid@kernel,
    int parent_ns_pid@kernel, int child_tid@kernel, int child_ns_tid@kernel, int child_pid@kernel,
    int child_ns_pid@kernel, u64 start_time@kernel, u64 child_process_start_time@kernel
sched_process_exec | raw:sched_process_exec | const char* cmdpath, const char* pathname@path, const char*const* argv,
    const char*const* env, dev_t dev@kernel, unsigned long inode@kernel, int invoked_from_kernel@kernel,
    unsigned long ctime@kernel, umode_t stdin_type@kernel, umode_t inode_mode@kernel, const char* interp,
    const char* interpreter_pathname@path, dev_t interpreter_dev@object, unsigned long interpreter_inode@object,
    const char* prev_comm, const char* pwd@path, const char* sha256@hash
sched_process_exit | raw:sched_process_exit | long exit_code@kernel, bool process_group_exit@kernel
sched_switch | raw:sched_switch | int cpu@kernel, int prev_tid@kernel, const char* prev_comm, int next_tid@kernel,
    const char* next_comm
task_rename | raw:task_rename | const char* old_name, const char* new_name, int syscall@kernel
cgroup_mkdir | raw:cgroup_mkdir | u64 cgroup_id@kernel, const char* cgroup_path, u32 hierarchy_id@kernel
cgroup_rmdir | raw:cgroup_rmdir | u64 cgroup_id@kernel, const char* cgroup_path, u32 hierarchy_id@kernel
cgroup_attach_task | raw:cgroup_attach_task | const char* cgroup_path, const char* comm, pid_t pid@kernel
container_create | raw:cgroup_mkdir | const char* runtime, const char* container_id, unsigned long ctime@kernel,
    const char* container_image@named, const char* container_name@named, const char* pod_name@named,
    const char* pod_namespace@named, const char* pod_uid@named
container_remove | raw:cgroup_rmdir | const char* runtime, const char* container_id
existing_container | start | const char* runtime, const char* container_id, unsigned long ctime@kernel,
    const char* container_image@named, const char* container_name@named, const char* pod_name@named,
    const char* pod_namespace@named, const char* pod_uid@named
init_namespaces | start | u32 cgroup@kernel, u32 ipc@kernel, u32 mnt@kernel, u32 net@kernel, u32 pid@kernel,
    u32 pid_for_children@kernel, u32 time@kernel, u32 time_for_children@kernel, u32 user@kernel, u32 uts@kernel
loss | headrace | u32 cpu, u32 shard, u64 count, u64 first_time, u64 last_time
cap_capable | raw:cap_capable | int cap@kernel, int syscall@kernel
module_load | raw:module_load | const char* name, const char* version, const char* src_version,
    const char* pathname@path, dev_t dev@object, unsigned long inode@object, unsigned long ctime@object
module_free | raw:module_free | const char* name, const char* version, const char* src_version
io_uring_create | raw:io_uring_create | int fd@kernel, u32 sq_entries@kernel, u32 cq_entries@kernel, u32 flags@kernel,
    bool polling@kernel
io_uring_submit | raw:io_uring_submit_req | u8 opcode@kernel, int fd@kernel, const char* pathname@path,
    dev_t dev@object, unsigned long inode@object, const char* name, const char* new_name, u64 user_data@kernel,
    struct sockaddr* addr

security_file_open | exit:file_open hook:security_file_open | const char* pathname@path, int flags@kernel, dev_t
    dev@object, unsigned long inode@object, unsigned long ctime@object, const char* syscall_pathname, int
    syscall@kernel, bool created@object
security_bprm_check | raw:sched_process_exec exit:bprm_refused | const char* pathname@path, dev_t dev@object,
    unsigned long inode@object
security_inode_unlink | exit:inode_unlink hook:security_path_unlink | const char* pathname@name
security_inode_rename | exit:inode_rename hook:security_path_rename | const char* old_path@name, const char*
    new_path@name
security_inode_link | exit:inode_link hook:security_path_link | const char* old_path@name, const char* new_path@name
security_inode_symlink | exit:inode_symlink hook:security_path_symlink | const char* linkpath@name, const char* target
security_inode_mknod | exit:inode_mknod hook:security_path_mknod | const char* file_name@name, umode_t mode, dev_t dev
security_sb_mount | exit:sb_mount | const char* dev_name, const char* path@name, const char* type, unsigned long flags
security_sb_umount | exit:sb_umount | const char* mountpoint@name, const char* type@unread, int flags

security_socket_create | exit:socket_create hook:security_socket_create | int family@object, int type@object, int
    protocol@object, int kern@kernel
security_socket_listen | exit:socket_listen hook:security_socket_listen | int sockfd, struct sockaddr* local_addr, int
    backlog
security_socket_connect | exit:socket_connect hook:security_socket_connect | int sockfd, struct sockaddr* remote_addr
security_socket_accept | exit:socket_accept hook:security_socket_accept | int sockfd, struct sockaddr* local_addr
security_socket_bind | exit:socket_bind hook:security_socket_bind | int sockfd, struct sockaddr* local_addr
security_socket_setsockopt | exit:socket_setsockopt hook:security_socket_setsockopt | int sockfd, int level, int
    optname, struct sockaddr* local_addr
socket_accept | exit:socket_accept | int sockfd, struct sockaddr* local_addr, struct sockaddr* remote_addr
socket_dup | exit:socket_dup | int oldfd, int newfd, struct sockaddr* remote_addr

vfs_write | exit:write | const char* pathname@path, dev_t dev@kernel, unsigned long inode@kernel, size_t count,
    off_t pos@kernel
vfs_writev | exit:write | const char* pathname@path, dev_t dev@kernel, unsigned long inode@kernel, unsigned long vlen,
    off_t pos@kernel
magic_write | exit:write exit:copy exit:mmap | const char* pathname@path, bytes bytes, dev_t dev@kernel,
    unsigned long inode@kernel
mem_prot_alert | exit:mprotect exit:mmap exit:shmat | u32 alert@kernel, void* addr@kernel, size_t len@kernel,
    int prot@kernel, int prev_prot@kernel, const char* pathname@path, dev_t dev@kernel, unsigned long inode@kernel,
    unsigned long ctime@kernel
security_mmap_file | exit:mmap | const char* pathname@path, int flags@kernel, dev_t dev@kernel,
    unsigned long inode@kernel, unsigned long ctime@kernel, int prot, int mmap_flags, int syscall@kernel
security_file_mprotect | exit:mprotect | const char* pathname@path, int prot, unsigned long ctime@kernel
shared_object_loaded | exit:mmap | const char* pathname@path, int flags@kernel, dev_t dev@kernel,
    unsigned long inode@kernel, unsigned long ctime@kernel

commit_creds | exit:identity | slim_cred_t old_cred, slim_cred_t new_cred, int syscall@kernel
switch_task_ns | exit:identity | pid_t pid@kernel, u32 new_mnt@kernel, u32 new_pid@kernel,
    u32 new_uts@kernel, u32 new_ipc@kernel, u32 new_net@kernel, u32 new_cgroup@kernel

do_init_module | hook:do_init_module | const char* name, const char* version, const char* src_version, u64
    prev@kernel, u64 next@kernel, u64 prev_next@kernel, u64 next_prev@kernel
do_exit | none:sched_process_exit tells the end of a task |
security_bpf | hook:security_bpf | int cmd@kernel
security_bpf_map | hook:security_bpf_map | unsigned int map_id@kernel, const char* map_name
security_kernel_read_file | hook:security_kernel_read_file | const char* pathname@path, dev_t dev@object,
    unsigned long inode@object, int type@kernel, unsigned long ctime@object
security_kernel_post_read_file | hook:security_kernel_post_read_file | const char* pathname@path, long size@kernel,
    int type@kernel
hidden_inodes | hook:filldir64 | char* hidden_process
__kernel_write | hook:__kernel_write | const char* pathname@path, dev_t dev@kernel, unsigned long inode@kernel, size_t
    count, off_t pos@kernel
dirty_pipe_splice | none:the fault that it looks for was mended in 5.16.11, 5.15.25 and 5.10.102 | unsigned long
    inode_in, umode_t in_file_type, const char* in_file_path, loff_t exposed_data_start_offset, size_t
    exposed_data_len, unsigned long inode_out, unsigned int out_pipe_last_buffer_flags
proc_create | hook:proc_create_data,proc_create | char* name, void* proc_ops_addr@kernel
kprobe_attach | hook:register_kprobe | char* symbol_name, void* pre_handler_addr@kernel,
    void* post_handler_addr@kernel
call_usermodehelper | hook:call_usermodehelper_exec | const char* pathname, const char*const* argv,
    const char*const* envp, int wait@kernel
debugfs_create_file | hook:debugfs_create_file,debugfs_create_file_full | const char* file_name, const char* path@path,
    mode_t mode@kernel, void* proc_ops_addr@kernel
debugfs_create_dir | hook:debugfs_create_dir | const char* name, const char* path@path
device_add | hook:device_add | const char* name, const char* parent_name
register_chrdev | hook:__register_chrdev | unsigned int requested_major_number@kernel,
    unsigned int granted_major_number@object, const char* char_device_name,
    struct file_operations* char_device_fops@kernel
load_elf_phdrs | hook:load_elf_phdrs | const char* pathname@path, dev_t dev@kernel, unsigned long inode@kernel
hooked_syscalls | check:sys_call_table,ia32_sys_call_table | const char*const* hooked_syscalls
hooked_proc_fops | check:proc_root | const char*const* hooked_fops_pointers
hooked_seq_ops | check:tcp4_seq_ops,tcp6_seq_ops,udp_seq_ops,udp6_seq_ops,raw_seq_ops,raw6_seq_ops |
    const char*const* hooked_seq_ops
net_packet | none:headrace does not look into packets yet | trace.PktMeta metadata
dns_request | none:headrace does not look into packets yet | trace.PktMeta metadata, []trace.DnsQueryData dns_questions
dns_response | none:headrace does not look into packets yet | trace.PktMeta metadata,
    []trace.DnsResponseData dns_response
hooked_syscall | check:sys_call_table,ia32_sys_call_table | const char* syscall, const char* address,
    const char* function, const char* owner
security_path_truncate | exit:path_truncate | const char* pathname@name
security_bpf_prog | hook:security_bpf_prog | int type@kernel, const char* name, u64[] helpers@unread, u32 id@kernel
vfs_read | hook:vfs_read | const char* pathname@path, dev_t dev@kernel, unsigned long inode@kernel, size_t count@kernel,
    off_t pos@kernel
vfs_readv | hook:vfs_readv | const char* pathname@path, dev_t dev@kernel, unsigned long inode@kernel,
    unsigned long vlen@kernel, off_t pos@kernel
vfs_utimes | hook:vfs_utimes | const char* pathname@path, dev_t dev@kernel, unsigned long inode@kernel, u64
    atime@kernel, u64 mtime@kernel
security_path_notify | hook:security_path_notify | const char* pathname@path, unsigned long inode@kernel,
    dev_t dev@kernel, u64 mask@kernel, unsigned int obj_type@kernel
set_fs_pwd | hook:set_fs_pwd | const char* unresolved_path@unread, const char* resolved_path@path
security_task_prctl | hook:security_task_prctl | int option@kernel, unsigned long arg2@kernel, unsigned long
    arg3@kernel, unsigned long arg4@kernel, unsigned long arg5@kernel
security_task_setrlimit | hook:security_task_setrlimit | u32 target_host_pid@kernel, int resource@kernel,
    u64 new_rlim_cur@kernel, u64 new_rlim_max@kernel
security_settime64 | hook:security_settime64 | long tv_sec@kernel, long tv_nsec@kernel, int tz_minuteswest@kernel,
    int tz_dsttime@kernel
kallsyms_lookup_name | hook:kallsyms_lookup_name | const char* symbol_name, void* symbol_address@unread
do_mmap | exit:mmap | void* addr@kernel, const char* pathname@path, unsigned int flags@object, dev_t dev@object,
    unsigned long inode@object, unsigned long ctime@object, unsigned long pgoff, unsigned long len, unsigned long prot,
    unsigned long mmap_flags
do_sigaction | hook:do_sigaction | int sig@kernel, bool is_sa_initialized@kernel, unsigned long sa_flags@kernel,
    unsigned long sa_mask@kernel, u8 sa_handle_method@kernel, void* sa_handler@kernel,
    bool is_old_sa_initialized@kernel, unsigned long old_sa_flags@kernel, unsigned long old_sa_mask@kernel,
    u8 old_sa_handle_method@kernel, void* old_sa_handler@kernel
do_truncate | hook:do_truncate | const char* pathname@path, unsigned long inode@kernel, dev_t dev@kernel,
    u64 length@kernel
inotify_watch | hook:security_path_notify | const char* pathname@path, unsigned long inode@kernel, dev_t dev@kernel
process_execute_failed | exit:bprm_refused | int dirfd, int flags, const char* pathname,
    const char* binary_path@name, const char*const* argv, const char*const* envp
file_modification | none:it takes what a function of the kernel returns, and kprobes here see how it begins |
    const char* file_path, dev_t dev, unsigned long inode, unsigned long old_ctime, unsigned long new_ctime
bpf_attach | none:security_bpf and perf_event_open tell of the calls, not of what is attached where | int prog_type,
    const char* prog_name, u32 prog_id, u64[] prog_helpers, const char* symbol_name, u64 symbol_addr, int attach_type
symbols_loaded | none:symbols would be read later, from a file that may have changed | const char* library_path,
    const char*const* symbols, const char* sha256
symbols_collision | none:symbols would be read later, from a file that may have changed | const char* loaded_path,
    const char* collision_path, const char*const* symbols
suspicious_syscall_source | raw:sys_enter | int syscall@kernel, void* ip@kernel, const char* vma_type,
    void* vma_start@kernel, unsigned long vma_size@kernel, unsigned long vma_flags@kernel
stack_pivot | none:the stacks of coroutines, which some languages have for every program, look the same | int syscall,
    void* sp, const char* vma_type, void* vma_start, unsigned long vma_size, unsigned long vma_flags
hidden_kernel_module | check:modules | const char* address, const char* name, const char* srcversion
ftrace_hook | check:enabled_functions | const char* symbol, const char* trampoline, const char* callback,
    off_t callback_offset@kernel, const char* callback_owner, const char* flags, unsigned long count@kernel
zeroed_inodes | hook:filldir64 | const char* dirent_name
print_mem_dump | none:tables are compared and not copied; hooked_syscall and others report what differs | bytes bytes,
    void* address, u64 length, u64 caller_context_id, const char* arch, const char* symbol_name,
    const char* symbol_owner
"""

CALLS = """
file_open open fd=result path=0 flags=1
file_open openat fd=result path=1 dir=0 flags=2
file_open openat2 fd=result path=1 dir=0 flags=2 variant=openat2
file_open creat fd=result path=0 variant=creat
file_open open_by_handle_at fd=result flags=2
bprm_refused execve path=0
bprm_refused execveat path=1 dir=0 flags=4
inode_unlink unlink path=0
inode_unlink unlinkat path=1 dir=0 flags=2
inode_rename rename path=0 path2=1
inode_rename renameat path=1 dir=0 path2=3 dir2=2
inode_rename renameat2 path=1 dir=0 path2=3 dir2=2 flags=4
inode_link link path=0 path2=1
inode_link linkat path=1 dir=0 path2=3 dir2=2 flags=4
inode_symlink symlink path=0 path2=1
inode_symlink symlinkat path=0 path2=2 dir2=1
inode_mknod mknod path=0 flags=1
inode_mknod mknodat path=1 dir=0 flags=2
path_truncate truncate path=0
path_truncate truncate64 path=0
sb_mount mount path=1
sb_mount move_mount path=3 dir=2 variant=move_mount
sb_umount umount2 path=0
socket_create socket fd=result
socket_create socketpair variant=pair
socket_bind bind fd=0
socket_connect connect fd=0
socket_listen listen fd=0
socket_accept accept fd=0
socket_accept accept4 fd=0
socket_setsockopt setsockopt fd=0
socket_dup dup fd=0
socket_dup dup2 fd=0
socket_dup dup3 fd=0
socket_dup fcntl fd=0 variant=fcntl
socket_dup fcntl64 fd=0 variant=fcntl
socket_dup pidfd_getfd fd=1
write write fd=0
write pwrite64 fd=0 path=3
write writev fd=0 variant=vector
write pwritev fd=0 path=3 variant=vector
write pwritev2 fd=0 path=3 flags=5 variant=vector
copy copy_file_range fd=2 path=3
copy sendfile fd=0
copy sendfile64 fd=0
copy splice fd=2 path=3
mmap mmap
mmap mmap2 variant=pages
mprotect mprotect
mprotect pkey_mprotect
shmat shmat
identity setuid
identity setgid
identity setreuid
identity setregid
identity setresuid
identity setresgid
identity setfsuid
identity setfsgid
identity setgroups
identity setuid32
identity setgid32
identity setreuid32
identity setregid32
identity setresuid32
identity setresgid32
identity setfsuid32
identity setfsgid32
identity setgroups32
identity capset
identity setns
identity unshare
multiplexed socketcall
multiplexed ipc
multiplexed old_mmap
multiplexed old_select
"""
"""Calls that a program handles (bpf/c/objects.h), with the numbers of their arguments. `result` is the call's result.

    PROGRAM CALL [fd= path= dir= path2= dir2= flags= variant=]
"""

X32_CALLS = """
512 rt_sigaction
513 rt_sigreturn
514 ioctl
515 readv
516 writev
517 recvfrom
518 sendmsg
519 recvmsg
520 execve
521 ptrace
522 rt_sigpending
523 rt_sigtimedwait
524 rt_sigqueueinfo
525 sigaltstack
526 timer_create
527 mq_notify
528 kexec_load
529 waitid
530 set_robust_list
531 get_robust_list
532 vmsplice
533 move_pages
534 preadv
535 pwritev
536 rt_tgsigqueueinfo
537 recvmmsg
538 sendmmsg
539 process_vm_readv
540 process_vm_writev
541 setsockopt
542 getsockopt
543 io_setup
544 io_submit
545 execveat
546 preadv2
547 pwritev2
"""
"""Numbers that only the x32 ABI has: `NUMBER CALL` (arch/x86/entry/syscalls/syscall_64.tbl)."""

MULTIPLEXED = """
socketcall 1 socket 3
socketcall 2 bind 3
socketcall 3 connect 3
socketcall 4 listen 2
socketcall 5 accept 3
socketcall 6 getsockname 3
socketcall 7 getpeername 3
socketcall 8 socketpair 4
socketcall 9 sendto 4
socketcall 10 recvfrom 4
socketcall 11 sendto 6
socketcall 12 recvfrom 6
socketcall 13 shutdown 2
socketcall 14 setsockopt 5
socketcall 15 getsockopt 5
socketcall 16 sendmsg 3
socketcall 17 recvmsg 3
socketcall 18 accept4 4
socketcall 19 recvmmsg 5
socketcall 20 sendmmsg 4
struct 0 mmap 6
struct 1 select 5
ipc 1 semop 1,4,2
ipc 2 semget 1,2,3
ipc 3 semctl 1,2,3,4
ipc 4 semtimedop 1,4,2,5
ipc 11 msgsnd 1,4,2,3
ipc 12 msgrcv 1,4,2,5,3
ipc 13 msgget 1,2
ipc 14 msgctl 1,2,4
ipc 21 shmat 1,4,2
ipc 22 shmdt 4
ipc 23 shmget 1,2,3
ipc 24 shmctl 1,2,4
"""
"""Calls that multiplexing i386 calls stand for (include/uapi/linux/net.h, ipc.h, struct mmap_arg_struct):

    socketcall NUMBER CALL WORDS    arguments are WORDS words in memory at the second argument
    struct NUMBER CALL WORDS        arguments are WORDS words in memory at the first one (old_mmap, old_select)
    ipc NUMBER CALL ARGUMENTS       for each argument, the index of the argument of ipc (ipc/syscall.c)
"""
