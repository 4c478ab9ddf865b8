/*
 * lifecycle.c - fork, exec, exit, rename. These programs also keep `groups`: a tree's new process is
 * entered before it runs and removed when its last thread ends. Their records are urgent: they go out at
 * once, by perf buffers of their own, and reach every worker.
 */
static __always_inline u32 ns_number(u64 pid)
{
	u32 level = KREAD(u32, pid + KERNEL_pid_level);
	return KREAD(u32, pid + KERNEL_pid_numbers + (u64)(level & 31) * KERNEL_upid_size + KERNEL_upid_nr);
}

static __always_inline void tree_count(s64 n)
{
	u32 zero = 0;
	struct status *st = status.lookup(&zero);
	if (st)
		__sync_fetch_and_add(&st->tree_live, n);
}

static __always_inline void groups_enter(const struct subject *parent, bool parent_in_scope, u32 tgid)
{
	u32 flags = parent->flags & GROUP_INHERITED, zero = 0;
	if (parent->flags & GROUP_ARMED)
		flags = GROUP_OWN;
	if (SCOPE_FOLLOW && parent_in_scope)
		flags |= GROUP_FOLLOWED;
	if (!flags)
		return;
	long refused = groups.update(&tgid, &flags);
	groups_changed();
	if (refused) {
		struct status *st = status.lookup(&zero);
		if (st)
			__sync_fetch_and_add(&st->groups_overflow, 1);
	} else if (flags & (GROUP_TREE | GROUP_FOLLOWED)) {
		tree_count(1);
	}
}

int on_sched_process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	u64 child = ctx->args[1], task = current_task_btf();
	struct subject s;
	bool in = in_scope(&s, task);
	u32 child_tgid = KREAD(u32, child + KERNEL_task_struct_tgid);
	if (child_tgid != s.tgid)
		groups_enter(&s, in, child_tgid);
#ifdef WANT_SCHED_PROCESS_FORK
	struct writer w;
	if (!in || (s.flags & GROUP_ARMED) || !record_begin(ctx, &w, &s, URGENT, EVENT_sched_process_fork, 10, 0))
		return 0;
	u64 leader = KREAD(u64, task + KERNEL_task_struct_group_leader);
	u64 child_leader = KREAD(u64, child + KERNEL_task_struct_group_leader);
	u64 *a = (u64 *)(w.head + 1);
	w.head->arg0 = s.tid;
	a[0] = ns_number(KREAD(u64, task + KERNEL_task_struct_thread_pid));
	a[1] = s.tgid;
	a[2] = ns_number(KREAD(u64, leader + KERNEL_task_struct_thread_pid));
	a[3] = KREAD(u32, child + KERNEL_task_struct_pid);
	a[4] = ns_number(KREAD(u64, child + KERNEL_task_struct_thread_pid));
	a[5] = child_tgid;
	a[6] = ns_number(KREAD(u64, child_leader + KERNEL_task_struct_thread_pid));
	a[7] = KREAD(u64, child + KERNEL_task_struct_start_boottime);
	a[8] = KREAD(u64, child_leader + KERNEL_task_struct_start_boottime);
	record_end(ctx, &w);
#endif
	return 0;
}

#define PATH_COMPONENTS 40
#define COMPONENT_BYTES 256
#define PATH_ROOM (4096 + COMPONENT_BYTES + sizeof(struct blob))

/*
 * The path of a file, leaf first, each component with its NUL: user space turns it round. Walks
 * dentries, and mounts where a dentry is its mount's root, up to the root of the mount namespace.
 * The position is kept in the blob (`whole`), not in a variable: what the verifier cannot follow, it
 * cannot multiply its states by.
 */
static __always_inline void blob_path(struct writer *w, u32 arg, u64 file)
{
	struct blob *b = blob_begin(w, arg, PATH_ROOM);
	if (!b)
		return;
	u32 status = BLOB_CUT;
	char *data = (char *)(b + 1);
	u64 dentry = KREAD(u64, file + KERNEL_file_f_path + KERNEL_path_dentry);
	u64 mount = KREAD(u64, file + KERNEL_file_f_path + KERNEL_path_mnt) - KERNEL_mount_mnt;
	for (int i = 0; i < PATH_COMPONENTS; i++) {
		u64 root = KREAD(u64, mount + KERNEL_mount_mnt + KERNEL_vfsmount_mnt_root);
		u64 parent = KREAD(u64, dentry + KERNEL_dentry_d_parent);
		if (dentry == root || dentry == parent) {
			u64 above = KREAD(u64, mount + KERNEL_mount_mnt_parent);
			if (above == mount || dentry != root) {
				status = BLOB_OK;
				/*
				 * An empty last component stands for the root. memfd and the like
				 * have no directory: their name stands alone.
				 */
				u64 end = *(volatile u32 *)&b->whole;
				u64 name = dentry != root ? KREAD(u64, dentry + KERNEL_dentry_d_name_name) : 0;
				if (end <= 4096 - COMPONENT_BYTES) {
					long n = name ? bpf_probe_read_kernel_str(data + end, COMPONENT_BYTES, (void *)name) : 1;
					if (!name)
						data[end] = 0;
					if (n > 0)
						*(volatile u32 *)&b->whole = end + n;
				}
				break;
			}
			dentry = KREAD(u64, mount + KERNEL_mount_mnt_mountpoint);
			mount = above;
			continue;
		}
		u64 at = *(volatile u32 *)&b->whole;
		if (at > 4096 - COMPONENT_BYTES)
			break;
		u64 name = KREAD(u64, dentry + KERNEL_dentry_d_name_name);
		long n = bpf_probe_read_kernel_str(data + at, COMPONENT_BYTES, (void *)name);
		if (n <= 0) {
			status = BLOB_FAULT;
			break;
		}
		*(volatile u32 *)&b->whole = at + n;
		dentry = parent;
	}
	blob_end(w, b, b->whole, status);
}

/* As the kernel counts devices: major << 20 | minor. */
static __always_inline u64 file_device(u64 inode)
{
	u32 dev = KREAD(u32, KREAD(u64, inode + KERNEL_inode_i_sb) + KERNEL_super_block_s_dev);
	return dev;
}

static __always_inline u64 file_inode(u64 file)
{
	return KREAD(u64, file + KERNEL_file_f_inode);
}

/*
 * Since 6.13 the highest bit of the nanoseconds says that somebody has asked for the time (I_CTIME_QUERIED
 * of include/linux/fs.h); before, it is never set.
 */
#define CTIME_QUERIED (1U << 31)
static __always_inline u64 inode_ctime_ns(u64 inode)
{
	u32 ns = KREAD(u32, inode + KERNEL_inode_ctime_nsec) & ~CTIME_QUERIED;
	return KREAD(u64, inode + KERNEL_inode_ctime_sec) * 1000000000ULL + ns;
}

/* The inode behind the task's standard input; 0 if it is closed. */
static __always_inline u64 stdin_inode(u64 task)
{
	u64 files = KREAD(u64, task + KERNEL_task_struct_files);
	u64 table = KREAD(u64, files + KERNEL_files_struct_fdt);
	u64 file = KREAD(u64, KREAD(u64, table + KERNEL_fdtable_fd));
	return file ? file_inode(file) : 0;
}

/* comm is the new one by the time of sched_process_exec; it is kept from just before. */
static __always_inline void keep_comm(u64 task)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	struct comm comm;
	bpf_probe_read_kernel(&comm, sizeof(comm), (void *)(task + KERNEL_task_struct_comm));
	previous_comms.update(&pid_tgid, &comm);
}

#ifdef WANT_SCHED_PREPARE_EXEC
int on_sched_prepare_exec(struct bpf_raw_tracepoint_args *ctx)
{
	keep_comm(current_task_btf());
	return 0;
}
#endif

int on_sched_process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = current_task_btf(), bprm = ctx->args[2], pid_tgid = bpf_get_current_pid_tgid();
	u32 tgid = pid_tgid >> 32;
	u32 *flags = groups.lookup(&tgid);
	if (flags && (*flags & GROUP_ARMED)) {
		*flags &= ~GROUP_ARMED;
		groups_changed();
	}
#ifdef WANT_SCHED_PROCESS_EXEC
	struct subject s;
	struct writer w;
	if (!in_scope(&s, task))
		return 0;
	if (!record_begin(ctx, &w, &s, URGENT, EVENT_sched_process_exec, 15, CELLS_BYTES / 2))
		return 0;
	u64 file = KREAD(u64, bprm + KERNEL_linux_binprm_file);
	u64 inode = file_inode(file);
	u64 mm = KREAD(u64, task + KERNEL_task_struct_mm);
	u64 parent = KREAD(u64, task + KERNEL_task_struct_real_parent);
	u64 input = stdin_inode(task);
	struct comm *before = previous_comms.lookup(&pid_tgid);
	u64 *a = (u64 *)(w.head + 1);
	/* numbered as in the catalogue; cmdpath, pathname, argv, env, interp and prev_comm are blobs */
	a[4 - 1] = file_device(inode);
	a[5 - 1] = KREAD(u64, inode + KERNEL_inode_i_ino);
	a[6 - 1] = (KREAD(u32, parent + KERNEL_task_struct_flags) & PF_KTHREAD) != 0;
	a[7 - 1] = inode_ctime_ns(inode);
	a[8 - 1] = input ? KREAD(u16, input + KERNEL_inode_i_mode) : 0;
	a[9 - 1] = KREAD(u16, inode + KERNEL_inode_i_mode);
	blob_image(&w, 2, KREAD(u64, mm + KERNEL_mm_struct_arg_start), KREAD(u64, mm + KERNEL_mm_struct_arg_end),
		   ARGV_BYTES);
	if (EXEC_ENVIRONMENT)
		blob_image(&w, 3, KREAD(u64, mm + KERNEL_mm_struct_env_start),
			   KREAD(u64, mm + KERNEL_mm_struct_env_end), ENVP_BYTES);
	blob_string(&w, 0, KREAD(u64, bprm + KERNEL_linux_binprm_filename), false);
	blob_path(&w, 1, file);
	blob_string(&w, 10, KREAD(u64, bprm + KERNEL_linux_binprm_interp), false);
	if (before)
		blob_string(&w, 14, (u64)before->text, false);
	record_end(ctx, &w);
#endif
	return 0;
}

#ifdef WANT_TASK_RENAME
int on_task_rename(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0], current = current_task_btf();
	if (KEEP_COMM_AT_RENAME)
		keep_comm(current);
#ifdef EVENT_task_rename
	struct subject s;
	struct writer w;
	if (!in_scope(&s, current) || (s.flags & GROUP_ARMED))
		return 0;
	if (!record_begin(ctx, &w, &s, s.tgid % SHARDS, EVENT_task_rename, 3, 64))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	a[1] = SYSCALL_NUMBER(task_pt_regs(current));
	blob_string(&w, 0, task + KERNEL_task_struct_comm, false);
	blob_string(&w, 1, ctx->args[1], false);
	record_end(ctx, &w);
#endif
	return 0;
}
#endif

int on_sched_process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = current_task_btf(), pid_tgid = bpf_get_current_pid_tgid();
	u64 signal = KREAD(u64, task + KERNEL_task_struct_signal);
	bool last = KREAD(u32, signal + KERNEL_signal_struct_live_counter) == 0;
	struct subject s;
	bool in = in_scope(&s, task);
#ifdef WANT_SCHED_PROCESS_EXIT
	struct writer w;
	if (in && !(s.flags & GROUP_ARMED) &&
	    record_begin(ctx, &w, &s, URGENT, EVENT_sched_process_exit, 2, 0)) {
		u64 *a = (u64 *)(w.head + 1);
		w.head->arg0 = KREAD(u32, task + KERNEL_task_struct_exit_code);
		a[0] = last;
		record_end(ctx, &w);
	}
#endif
	previous_comms.delete(&pid_tgid);
	if (last && s.flags) {
		long absent = groups.delete(&s.tgid);
		groups_changed();
		if (!absent && (s.flags & (GROUP_TREE | GROUP_FOLLOWED)))
			tree_count(-1);
	}
	return 0;
}
