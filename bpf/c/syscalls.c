/*
 * syscalls.c - system calls. At sys_exit the saved registers still hold the arguments, so one
 * program serves all calls. There are two exceptions: arguments of a successful execve are read
 * from the new image, and exit, exit_group and the sigreturn calls are recorded at their entry.
 */
#define SIZED_BY_RESULT 0xff
#define SIZED_NONE 0xfe

static __always_inline void write_arguments(struct writer *w, const u64 *a, u32 arguments, const struct call *call)
{
	u64 *cell = (u64 *)(w->head + 1);
	w->head->arg0 = a[0] & call->masks[0];
	if (arguments > 1) {
		cell[0] = a[1] & call->masks[1];
		cell[1] = a[2] & call->masks[2];
		cell[2] = a[3] & call->masks[3];
		cell[3] = a[4] & call->masks[4];
	}
	if (arguments > 5)
		cell[4] = a[5] & call->masks[5];
}

static __always_inline void write_blob(struct writer *w, const struct blob_spec *spec, s64 retval)
{
	u32 which = spec->arg, most = spec->bytes;
	u64 address = written_argument(w, which), length = most;
	if (spec->needs && retval < 0)
		return;
	if (spec->sized == SIZED_BY_RESULT) {
		length = retval;
	} else if (spec->kind == BLOB_SIZED) {
		length = written_argument(w, spec->sized);
	}
	if (spec->kind == BLOB_STRING)
		blob_string(w, which, address, true);
	else
		blob_memory(w, which, address, length, most);
}

/* Number of bytes of the caller's memory that a blob stands for. */
static __always_inline u64 blob_whole(struct writer *w, const struct blob_spec *spec, s64 retval)
{
	u64 count = 1;
	if (spec->sized == SIZED_BY_RESULT)
		count = retval;
	else if (spec->sized != SIZED_NONE)
		count = written_argument(w, spec->sized);
	if (spec->pointed) {
		u32 pointed = 0;
		bpf_probe_read_user(&pointed, sizeof(pointed), (void *)count);
		count = pointed;
	}
	if (spec->limit && count > written_argument(w, spec->limit - 1))
		count = written_argument(w, spec->limit - 1);
	if (count > MAX_ITEMS)
		count = MAX_ITEMS;
	return spec->unit ? count * spec->unit : (count + 63) / 64 * 8;
}

static __always_inline void write_detail(struct writer *w, const struct blob_spec *spec, s64 retval)
{
	u32 which = spec->arg;
	u64 address = written_argument(w, which);
	if (!spec->kind || (spec->needs && retval < 0))
		return;
	if (spec->kind == BLOB_STRING)
		blob_string(w, which, address, true);
	else if (spec->kind == BLOB_SMALL)
		blob_small(w, which, address, blob_whole(w, spec, retval), spec->bytes);
	else
		blob_memory(w, which, address, blob_whole(w, spec, retval), spec->bytes);
}

/* The blobs that depend on a call's command. */
static __always_inline void write_command(struct writer *w, const struct call *call, u32 slot, s64 retval)
{
	if (!call->command)
		return;
	struct command_key key = {
		.slot = slot,
		.value = written_argument(w, call->command - 1) & call->command_mask,
	};
	struct command *command = commands.lookup(&key);
	if (!command)
		return;
#pragma unroll
	for (int i = 0; i < COMMAND_BLOBS; i++)
		write_detail(w, &command->blobs[i], retval);
}

/* A failed execve: its strings are still in the caller's memory. */
static __always_inline void write_vectors(struct writer *w, u32 first, bool compat)
{
	u64 path = written_argument(w, first), argv = written_argument(w, first + 1);
	u64 envp = written_argument(w, first + 2);
	blob_string(w, first, path, true);
	blob_vector(w, first + 1, argv, compat);
	if (EXEC_ENVIRONMENT)
		blob_vector(w, first + 2, envp, compat);
}

/* After a successful execve the registers belong to the new program: read its image instead. */
static __always_inline void write_image(struct writer *w, u64 task, u32 first)
{
	u64 mm = KREAD(u64, task + KERNEL_task_struct_mm);
	u64 arg_start = KREAD(u64, mm + KERNEL_mm_struct_arg_start), arg_end = KREAD(u64, mm + KERNEL_mm_struct_arg_end);
	u64 env_start = KREAD(u64, mm + KERNEL_mm_struct_env_start), env_end = KREAD(u64, mm + KERNEL_mm_struct_env_end);
	w->head->flags |= HEAD_EXEC_IMAGE;
	/* the path as passed follows the environment (fs/exec.c, bprm->exec) */
	blob_string(w, first, env_end, true);
	blob_image(w, first + 1, arg_start, arg_end, ARGV_BYTES, SOURCE_USER_EXIT);
	if (EXEC_ENVIRONMENT)
		blob_image(w, first + 2, env_start, env_end, ENVP_BYTES, SOURCE_USER_EXIT);
}

/*
 * The exit of rt_sigreturn shows the number -1 and the registers of the interrupted call. Only a
 * mark set at its entry distinguishes it from syscall(-1); without the mark it is recorded as that.
 */
static __always_inline bool sigreturn_ended(const struct subject *s)
{
#if defined(WANT_RT_SIGRETURN) || defined(WANT_SIGRETURN)
	u64 pid_tgid = ((u64)s->tgid << 32) | s->tid;
	return !sigreturns.delete(&pid_tgid);
#else
	return false;
#endif
}

/* The state saved before the execve that has just replaced this process's image. */
static __always_inline struct before_exec *kept_before_exec(void)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	return before_execs.lookup(&tgid);
}

/* True if that call was an execveat at its entry. */
static __always_inline bool began_as_execveat(void)
{
	struct before_exec *before = kept_before_exec();
	return before && before->execveat;
}

/*
 * An execveat that replaced the image ends with the number of execve. One that ends with its own
 * number and 0 was only a check (AT_EXECVE_CHECK, since 6.14): it ran nothing, and has the caller's
 * arguments.
 */
static __always_inline bool image_replaced(s64 number, bool compat, s64 retval)
{
	return !retval && number != SYSCALL_EXECVEAT(compat);
}

/* Kinds of calls that the verifier checks in separate programs. */
enum call_kind {
	CALL_PLAIN,
	CALL_EXEC,    /* replaces the image, if it succeeds */
	CALL_DETAILED, /* reads more than strings */
};

/* `inner`: the arguments of a multiplexed or rearranged call, NULL for those in the registers. */
static __always_inline void syscall_event(struct bpf_raw_tracepoint_args *ctx, u64 task, u64 regs, struct call *call,
					  u32 slot, const u64 *inner, enum call_kind kind)
{
	s64 number = SYSCALL_NUMBER(regs), retval = CALL_RESULT(ctx);
	/* 32-bit calls are never plain: other programs handle them */
	bool compat = kind != CALL_PLAIN && SYSCALL_IS_COMPAT(task);
	struct subject s;
#ifdef EVENT_modify_ldt
	if (kind == CALL_DETAILED && call->event == EVENT_modify_ldt)
		retval = (s32)retval; /* the upper half of the result is 0, even for errors (arch/x86/kernel/ldt.c) */
#endif
	if (retval < call->retval_min || retval > call->retval_max || !in_scope(&s, task) ||
	    !policies_want(&s, call->event))
		return;
	tell_first(ctx, &s);
	if (number == -1 && sigreturn_ended(&s))
		return;
	bool exec = kind == CALL_EXEC;
	/* only CALL_EXEC can replace the image: the verifier need not check this for other kinds */
	bool image = exec && image_replaced(number, compat, retval);
	if (s.flags & GROUP_ARMED)
		if (!exec || image)
			return;
	struct writer w;
	u32 arguments = call->arguments;
	if (arguments > 6)
		arguments = 6;
	u32 of = call->urgent ? URGENT : s.tgid % SHARDS;
	if (image)
		pieces_first(ctx, task, of, call->exec, PROGRAM_exec_call);
	if (!record_begin(ctx, &w, &s, of, call->event, arguments, call->room))
		return;
	w.head->retval = retval;
	if (compat)
		w.head->flags |= HEAD_COMPAT;
	w.head->flags |= refused_flag(task, regs, retval);
	if (call->event == UNKNOWN_CALL_ID) {
		w.head->arg0 = number;
	} else if (image) {
		u64 kept[6] = {};
		struct before_exec *before = kept_before_exec();
		if (before && before->execveat) {
			kept[0] = before->dirfd;
			kept[4] = before->flags;
		}
		write_arguments(&w, kept, arguments, call);
		write_image(&w, task, call->exec - 1);
	} else {
		u64 a[6];
		if (inner)
			__builtin_memcpy(a, inner, sizeof(a));
		else
			SYSCALL_ARGUMENTS(a, regs, compat);
		if (compat)
			compat_values(a, call);
		write_arguments(&w, a, arguments, call);
		if (exec)
			write_vectors(&w, call->exec - 1, call->narrow);
		else if (kind == CALL_PLAIN)
			for (int i = 0; i < 5 && call->blobs[i].kind; i++)
				write_blob(&w, &call->blobs[i], retval);
		else
			for (int i = 0; i < 5 && call->blobs[i].kind; i++)
				write_detail(&w, &call->blobs[i], retval);
		if (kind == CALL_DETAILED) {
			write_command(&w, call, slot, retval);
			if (call->address)
				write_address(&w, call, task, retval);
		}
	}
	w.head->flags |= answered_flag(task);
#ifdef WANT_OWN_TARGET
	if ((call->event == EVENT_process_vm_readv || call->event == EVENT_process_vm_writev) &&
	    is_own_thread(task, w.head->arg0))
		w.head->flags |= HEAD_OWN_TARGET;
#endif
#ifdef FD_PATHS
	u64 file = call->descriptor < 6 && !image ? task_file(task, written_argument(&w, call->descriptor)) : 0;
	struct walks *j = walks_begin();
	if (j && file) {
		path_later(j, call->descriptor, file_place(file));
		record_walk(ctx, &w, j, call->object);
		return;
	}
#endif
	record_end(ctx, &w);
}

static __always_inline int plain_event(void *ctx, u16 event, s64 retval, u64 arg0, u8 flags)
{
	struct writer w;
	if (!event_begin(ctx, &w, false, event, 1, 0))
		return 0;
	w.head->retval = retval;
	w.head->arg0 = arg0;
	w.head->flags = flags;
	record_end(ctx, &w);
	return 0;
}

static __always_inline u8 compat_flag(void)
{
	return SYSCALL_IS_COMPAT(current_task_btf()) ? HEAD_COMPAT : 0;
}

#ifdef WANT_SYS_ENTER
int on_sys_enter(struct bpf_raw_tracepoint_args *ctx)
{
	return plain_event(ctx, EVENT_sys_enter, 0, CALL_NUMBER(ctx), HEAD_ENTRY | compat_flag());
}
#endif

/* The number of the call that ends. An execveat that replaced the image ends as execve. */
static __always_inline s64 ended_number(u64 task, u64 regs, s64 retval)
{
	s64 number = SYSCALL_NUMBER(regs);
	bool compat = SYSCALL_IS_COMPAT(task);
	if (number == SYSCALL_EXECVE(compat) && !retval && began_as_execveat())
		return SYSCALL_EXECVEAT(compat);
	return number;
}

static __always_inline u32 ended_slot(u64 task, u64 regs, s64 retval)
{
	return call_slot(ended_number(task, regs, retval), SYSCALL_IS_COMPAT(task), retval);
}

int on_sys_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = current_task_btf(), regs = registers_of(task);
	u32 slot = ended_slot(task, regs, CALL_RESULT(ctx));
	struct call *call = calls.lookup(&slot);
	if (!call)
		return 0;
#ifdef WANT_SYS_EXIT
	struct subject s;
	if (in_scope(&s, task))
		tell_first(ctx, &s);
	plain_event(ctx, EVENT_sys_exit, CALL_RESULT(ctx), ended_number(task, regs, CALL_RESULT(ctx)),
		    compat_flag() | refused_flag(task, regs, CALL_RESULT(ctx)));
#endif
	if (call->wanted && call->program)
		objects.call(ctx, call->program);
	if (call->wanted)
		syscall_event(ctx, task, regs, call, slot, 0, CALL_PLAIN);
	/* events of objects are about calls that ran */
	if (refused_flag(task, regs, CALL_RESULT(ctx)))
		return 0;
	if (call->object)
		objects.call(ctx, call->object);
	return 0;
}

/* The rest of on_sys_exit for calls with a program of their own. */
static __always_inline int call_of_kind(struct bpf_raw_tracepoint_args *ctx, u64 task, enum call_kind kind)
{
	u64 regs = current_registers();
	u32 slot = ended_slot(task, regs, CALL_RESULT(ctx));
	struct call *call = calls.lookup(&slot);
	if (!call || call->program != (kind == CALL_EXEC ? PROGRAM_exec_call : PROGRAM_detailed_call))
		return 0;
	syscall_event(ctx, task, regs, call, slot, 0, kind);
	if (call->object && !refused_flag(task, regs, CALL_RESULT(ctx)))
		objects.call(ctx, call->object);
	return 0;
}

int on_exec_call(struct bpf_raw_tracepoint_args *ctx)
{
	return call_of_kind(ctx, current_task_cold(), CALL_EXEC);
}

int on_detailed_call(struct bpf_raw_tracepoint_args *ctx)
{
	return call_of_kind(ctx, current_task_btf(), CALL_DETAILED);
}

/* A call behind a multiplexer, or a 32-bit call with registers of its own. */
int on_multiplexed(struct bpf_raw_tracepoint_args *ctx)
{
	struct dispatched d;
	u64 task = current_task_cold(), regs = current_registers();
	dispatched_call(&d, task, regs, CALL_RESULT(ctx));
	enum family family = family_of(&d);
	if (family != FAMILY_NONE)
		demultiplex(&d, family);
	struct call *call = calls.lookup(&d.slot);
	if (!call || (family != FAMILY_NONE && d.slot < MULTIPLEXED_SLOT))
		return 0;
	if (family == FAMILY_NONE)
		rearrange(d.a, call);
	if (call->wanted)
		syscall_event(ctx, task, regs, call, d.slot, d.a, CALL_DETAILED);
	if (call->object && !refused_flag(task, regs, CALL_RESULT(ctx)))
		objects.call(ctx, call->object);
	return 0;
}

/*
 * Facts that only the entry of a call shows. One program sees all entries and continues with the
 * program of the call. (The kernel's tracepoints of single calls do not see 32-bit calls.)
 */
BPF_PROG_ARRAY(entered, CALL_SLOTS * 2); /* by row of `calls` */

int on_entry(struct bpf_raw_tracepoint_args *ctx)
{
	entered.call(ctx, call_slot((s32)CALL_NUMBER(ctx), SYSCALL_IS_COMPAT(current_task_btf()), 0));
	return 0;
}

/* Calls that do not return. */
static __always_inline int entry_event(void *ctx, u16 event)
{
	u64 a[6];
	entered_arguments(a);
	return plain_event(ctx, event, 0, a[0], HEAD_ENTRY | compat_flag());
}

#ifdef WANT_EXIT
int enter_exit(struct bpf_raw_tracepoint_args *ctx)
{
	return entry_event(ctx, EVENT_exit);
}
#endif

#ifdef WANT_EXIT_GROUP
int enter_exit_group(struct bpf_raw_tracepoint_args *ctx)
{
	return entry_event(ctx, EVENT_exit_group);
}
#endif

#if defined(WANT_RT_SIGRETURN) || defined(WANT_SIGRETURN)
/* Calls whose exit shows another number. */
static __always_inline int sigreturn_entered(void *ctx, u16 event)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	u8 one = 1;
	sigreturns.update(&pid_tgid, &one);
	return plain_event(ctx, event, 0, 0, HEAD_ENTRY | compat_flag());
}
#endif

#ifdef WANT_RT_SIGRETURN
int enter_rt_sigreturn(struct bpf_raw_tracepoint_args *ctx)
{
	return sigreturn_entered(ctx, EVENT_rt_sigreturn);
}
#endif

#ifdef WANT_SIGRETURN
int enter_sigreturn(struct bpf_raw_tracepoint_args *ctx)
{
	return sigreturn_entered(ctx, EVENT_sigreturn);
}
#endif
