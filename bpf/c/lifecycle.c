/*
 * lifecycle.c - fork, exec, exit, rename. These programs also maintain `groups`: they add a tree's
 * new process before it runs and remove it when its last thread exits. Records of fork, exec and
 * exit are urgent: they are sent at once, through perf buffers of their own, and reach every
 * worker. Those that the user did not ask for are facts.
 */
static __always_inline u32 slot_of(const struct subject *s, u32 event)
{
	return policies_want(s, event) ? URGENT : FACTS;
}

#ifdef WANT_SCHED_PROCESS_FORK
#define FORK_SLOT(s) slot_of(s, EVENT_sched_process_fork)
#else
#define FORK_SLOT(s) FACTS
#endif
#ifdef WANT_SCHED_PROCESS_EXEC
#define EXEC_SLOT(s) slot_of(s, EVENT_sched_process_exec)
#else
#define EXEC_SLOT(s) FACTS
#endif
#ifdef WANT_SCHED_PROCESS_EXIT
#define EXIT_SLOT(s) slot_of(s, EVENT_sched_process_exit)
#else
#define EXIT_SLOT(s) FACTS
#endif

static __always_inline void tree_count(s64 n)
{
	u32 zero = 0;
	struct status *st = status.lookup(&zero);
	if (st)
		__sync_fetch_and_add(&st->tree_live, n);
}

/* A child is in the trees of its creator, and is followed if the creator matched. */
static __always_inline void policy_groups_enter(const struct subject *parent, bool parent_in_scope, u32 tgid)
{
#ifdef POLICY_GROUPS
	struct policy_group *of_parent = policy_group(), child = {};
	u32 zero = 0;
	if (!of_parent || (parent->flags & GROUP_ARMED))
		return;
	child = *of_parent;
	if (parent_in_scope)
		child.followed |= parent->policies & POLICY_FOLLOW;
	if (!(child.trees | child.excluded | child.followed))
		return;
	struct status *st = status.lookup(&zero);
	if (policy_groups.update(&tgid, &child) && st)
		__sync_fetch_and_add(&st->groups_overflow, 1);
	groups_changed();
#endif
}

static __always_inline void groups_enter(const struct subject *parent, bool parent_in_scope, u32 tgid)
{
	u32 flags = parent->flags & GROUP_INHERITED, zero = 0;
	policy_groups_enter(parent, parent_in_scope, tgid);
#ifdef POLICIES
	/* `follow` of the run does not depend on the policies */
	parent_in_scope = parent->in_run;
#endif
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
	u64 task = current_task_cold(), child = FORK_CHILD(ctx, task);
	struct subject s;
	bool in = in_scope(&s, task);
	if (!child) {
		if (in && !(s.flags & GROUP_ARMED))
			record_lost(FORK_SLOT(&s), EVENT_sched_process_fork);
		return 0;
	}
	u32 child_tgid = KREAD(u32, child + KERNEL_task_struct_tgid);
	if (child_tgid != s.tgid)
		groups_enter(&s, in, child_tgid);
	if (!in || (s.flags & GROUP_ARMED))
		return 0;
	u32 slot = FORK_SLOT(&s);
	if (child_tgid != s.tgid)
		told_inherit(task, s.tgid, child, child_tgid);
	else if (slot == FACTS)
		return 0;
	struct writer w;
	if (!record_begin(ctx, &w, &s, slot, EVENT_sched_process_fork, 10, 0))
		return 0;
	u64 leader = KREAD(u64, task + KERNEL_task_struct_group_leader);
	u64 child_leader = KREAD(u64, child + KERNEL_task_struct_group_leader);
	u64 *a = (u64 *)(w.head + 1);
	w.head->arg0 = s.tid;
	a[0] = own_number(task);
	a[1] = s.tgid;
	a[2] = own_number(leader);
	a[3] = KREAD(u32, child + KERNEL_task_struct_pid);
	a[4] = own_number(child);
	a[5] = child_tgid;
	a[6] = own_number(child_leader);
	a[7] = KREAD(u64, child + KERNEL_task_struct_start_boottime);
	a[8] = KREAD(u64, child_leader + KERNEL_task_struct_start_boottime);
	record_end(ctx, &w);
	return 0;
}

/* The inode of the task's standard input, 0 if it is closed. */
static __always_inline u64 stdin_inode(u64 task)
{
	u64 file = task_file(task, 0);
	return file ? file_inode(file) : 0;
}

/*
 * At sched_process_exec, comm is already the new one, and the kernel has changed the call's number
 * to that of execve (set_personality_64bit() in arch/x86/kernel/process_64.c). Both are saved
 * before that.
 */
static __always_inline void keep_before_exec(u64 task, u64 binprm)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct before_exec before = {.binprm = binprm};
	bpf_probe_read_kernel(&before.comm, sizeof(before.comm), (void *)(task + KERNEL_task_struct_comm));
	u64 a[6] = {}, regs = current_registers();
	bool compat = SYSCALL_IS_COMPAT(task);
	if (SYSCALL_NUMBER(regs) == SYSCALL_EXECVEAT(compat)) {
		SYSCALL_ARGUMENTS(a, regs, compat);
		before.execveat = 1;
		before.dirfd = a[0];
		before.flags = a[4];
	}
	before_execs.update(&tgid, &before);
}

#ifdef WANT_SCHED_PREPARE_EXEC
int on_sched_prepare_exec(struct bpf_raw_tracepoint_args *ctx)
{
	keep_before_exec(current_task_cold(), ctx->args[1]);
	return 0;
}
#endif

/* The saved linux_binprm of this exec, which has the file that the image came from; 0 if there is none. */
static __always_inline u64 kept_binprm(void)
{
	struct before_exec *before = kept_before_exec();
	u64 binprm = before ? before->binprm : 0;
	u64 mm = KREAD(u64, current_task_cold() + KERNEL_task_struct_mm);
	u64 file = KREAD(u64, mm + KERNEL_mm_struct_exe_file);
	return binprm && KREAD(u64, binprm + KERNEL_linux_binprm_file) == file ? binprm : 0;
}

int on_sched_process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = current_task_cold();
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	u32 *flags = groups.lookup(&tgid);
	if (container_started(task))
		contexts_forget();
	if (flags && (*flags & GROUP_ARMED)) {
		*flags &= ~GROUP_ARMED;
		groups_changed();
	}
#ifdef EVENT_security_bprm_check
	struct subject s;
	struct writer w;
	struct walks *j = walks_begin();
	u64 mm = KREAD(u64, task + KERNEL_task_struct_mm), file = KREAD(u64, mm + KERNEL_mm_struct_exe_file);
	if (j && in_scope(&s, task) && record_begin(ctx, &w, &s, URGENT, EVENT_security_bprm_check, 3, PATH_ROOM)) {
		u64 *a = (u64 *)(w.head + 1);
		struct file_id id = file_id(file_inode(file));
		a[0] = id.device;
		a[1] = id.inode;
		path_later(j, 0, file_place(file));
		record_walk(ctx, &w, j, PROGRAM_exec);
	}
#endif
	objects.call(ctx, PROGRAM_exec);
	return 0;
}

/*
 * The image of the task: sched_process_exec, or a fact of the same shape for a process whose exec
 * was not seen. Arguments are numbered as in the catalogue; cmdpath, pathname, argv, env, interp,
 * interpreter_pathname, prev_comm and pwd are blobs. `is_new` is true at sched_process_exec.
 * `again` is the calling program, which is run again after pieces are sent. `then` is the program
 * to continue with.
 */
static __always_inline void image_record(struct bpf_raw_tracepoint_args *ctx, const struct subject *s, u32 slot,
					 bool is_new, u32 again, u32 then)
{
	struct writer w;
	pieces_first(ctx, s->task, slot, 2, again);
	u64 task = s->task;
	u32 tgid = s->tgid;
	struct walks *j = walks_begin();
	if (!j || !record_begin(ctx, &w, s, slot, EVENT_sched_process_exec, 16, CELLS_BYTES / 2))
		return;
	u64 mm = KREAD(u64, task + KERNEL_task_struct_mm);
	u64 file = KREAD(u64, mm + KERNEL_mm_struct_exe_file), inode = file_inode(file);
	u64 parent = KREAD(u64, task + KERNEL_task_struct_real_parent);
	/* a new image begins in its interpreter; a running one has left it */
	u64 entry = is_new ? INSTRUCTION_POINTER(current_registers()) : 0;
	u64 input = stdin_inode(task), interpreter = interpreter_file(mm, entry);
	struct file_id id = file_id(inode), linked = file_id(file_inode(interpreter));
	u64 *a = (u64 *)(w.head + 1);
	a[4 - 1] = id.device;
	a[5 - 1] = id.inode;
	a[6 - 1] = (KREAD(u32, parent + KERNEL_task_struct_flags) & PF_KTHREAD) != 0;
	a[7 - 1] = id.ctime_ns;
	a[8 - 1] = input ? KREAD(u16, input + KERNEL_inode_i_mode) : 0;
	a[9 - 1] = KREAD(u16, inode + KERNEL_inode_i_mode);
	a[12 - 1] = linked.device;
	a[13 - 1] = linked.inode;
	if (!interpreter)
		w.head->flags |= HEAD_NO_OBJECT;
	blob_image(&w, 2, KREAD(u64, mm + KERNEL_mm_struct_arg_start), KREAD(u64, mm + KERNEL_mm_struct_arg_end),
		   ARGV_BYTES, SOURCE_KERNEL);
	if (EXEC_ENVIRONMENT)
		blob_image(&w, 3, KREAD(u64, mm + KERNEL_mm_struct_env_start),
			   KREAD(u64, mm + KERNEL_mm_struct_env_end), ENVP_BYTES, SOURCE_KERNEL);
	path_later(j, 1, file_place(file));
	if (interpreter)
		path_later(j, 11, file_place(interpreter));
	path_later(j, 15, task_cwd(task));
	if (is_new) {
		struct before_exec *before = before_execs.lookup(&tgid);
		u64 binprm = EXEC_BINPRM(ctx);
		blob_string(&w, 0, EXEC_FILENAME(ctx, binprm), false);
		if (binprm)
			blob_string(&w, 10, KREAD(u64, binprm + KERNEL_linux_binprm_interp), false);
		if (before)
			blob_string(&w, 14, (u64)before->comm, false);
	}
	record_walk(ctx, &w, j, then);
}

/* The second half of on_sched_process_exec. */
int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct subject s;
	if (!in_scope(&s, current_task_cold()))
		return 0;
	told_image(s.task, s.tgid);
	image_record(ctx, &s, EXEC_SLOT(&s), true, PROGRAM_exec, 0);
	return 0;
}

/*
 * Called by the programs at sys_exit for a process whose image no record has reported. Continues
 * with on_sys_exit.
 */
int on_tell(struct bpf_raw_tracepoint_args *ctx)
{
	struct subject s;
	if (in_scope(&s, current_task_cold()) && !(s.flags & GROUP_ARMED)) {
		told_image(s.task, s.tgid);
		image_record(ctx, &s, FACTS, false, PROGRAM_tell, PROGRAM_sys_exit);
	}
	objects.call(ctx, PROGRAM_sys_exit);
	return 0;
}

#ifdef WANT_TASK_RENAME
int on_task_rename(struct bpf_raw_tracepoint_args *ctx)
{
	if (KEEP_BEFORE_EXEC_AT_RENAME)
		keep_before_exec(current_task_btf(), 0);
#ifdef EVENT_task_rename
	struct writer w;
	if (!event_begin(ctx, &w, false, EVENT_task_rename, 3, 64))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	a[1] = SYSCALL_NUMBER(current_registers());
	blob_string(&w, 0, RENAME_OLD(ctx), false);
	blob_string(&w, 1, RENAME_NEW(ctx), false);
	record_end(ctx, &w);
#endif
	return 0;
}
#endif

/*
 * A thread decrements the count of live threads before it reaches the tracepoint, so the last one
 * may arrive there first and remove the group from `groups`. The exits of the other threads must
 * still be reported, whatever count they see.
 */
static __always_inline bool in_ended_scope(struct subject *s, u64 started_ns)
{
	struct ended *e = ended.lookup(&s->tgid);
	if (!e || e->started_ns != started_ns)
		return false;
	s->flags = e->flags;
#ifdef POLICY_GROUPS
	u32 zero = 0;
	struct group_cache *c = group_caches.lookup(&zero);
	if (c) {
		c->policies = e->policies;
		c->tgid = 0; /* no longer what the maps say */
	}
#endif
	return in_run(s) && in_policies(s);
}

int on_sched_process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = current_task_cold();
	u64 signal = KREAD(u64, task + KERNEL_task_struct_signal);
	bool last = KREAD(u32, signal + KERNEL_signal_struct_live_counter) == 0;
	struct subject s;
	bool in = in_scope(&s, task);
	u64 leader = KREAD(u64, task + KERNEL_task_struct_group_leader);
	struct ended gone = {.started_ns = KREAD(u64, leader + KERNEL_task_struct_start_boottime), .flags = s.flags};
	struct writer w;
	bool has_entry = s.flags;
#ifdef POLICY_GROUPS
	struct policy_group *group = policy_group();
	if (group)
		gone.policies = *group;
	bool has_policies = gone.policies.trees | gone.policies.excluded | gone.policies.followed;
	has_entry |= has_policies;
#endif
	if (!has_entry)
		in = in_ended_scope(&s, gone.started_ns) || in;
	u32 slot = EXIT_SLOT(&s);
	if (in && !(s.flags & GROUP_ARMED) && (last || slot == URGENT) &&
	    record_begin(ctx, &w, &s, slot, EVENT_sched_process_exit, 2, 0)) {
		u64 *a = (u64 *)(w.head + 1);
		w.head->arg0 = KREAD(u32, task + KERNEL_task_struct_exit_code);
		a[0] = last;
		record_end(ctx, &w);
	}
	if (last) {
		before_execs.delete(&s.tgid);
		told.delete(&s.tgid);
	}
	/* several threads may see a count of 0: the first one removes the group and saves its flags */
	if (last && has_entry) {
		if (KREAD(u32, signal + KERNEL_signal_struct_nr_threads) > 1)
			ended.update(&s.tgid, &gone);
#ifdef POLICY_GROUPS
		if (has_policies)
			policy_groups.delete(&s.tgid);
#endif
		long absent = groups.delete(&s.tgid);
		groups_changed();
		if (!absent && (gone.flags & (GROUP_TREE | GROUP_FOLLOWED)))
			tree_count(-1);
	}
	return 0;
}
