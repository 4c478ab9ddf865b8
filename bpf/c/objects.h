/*
 * objects.h - the objects of a call. Events such as security_file_open are made at the exit of a
 * call from the kernel's objects: the file or socket behind a descriptor, the working directory.
 * Each kind has a program of its own, reached by a tail call from on_sys_exit, so that the verifier
 * checks it alone. The row of `calls` says which program it is, and which arguments are descriptors
 * and paths.
 */
#define NONE 0xff
#define RESULT 0xfe
#define AT_FDCWD (-100)
#define MAX_ERRNO 4095

/* Error numbers that show whether a check was reached. */
#define ENXIO 6
#define ENOEXEC 8
#define EBADF 9
#define EINVAL 22
#define ELIBBAD 80
#define ENOTSOCK 88
#define EINPROGRESS 115
#define ERESTARTSYS 512

struct exit_context {
	struct subject s;
	struct call *call;
	s64 retval;
	u64 a[6];
};

/*
 * Fill `o` with the call that ends. Returns false if the task is out of scope or the call has no
 * row. `family` is the multiplexer that the call may have come through.
 */
static __always_inline bool exit_context_of(struct bpf_raw_tracepoint_args *ctx, struct exit_context *o, u64 task,
					enum family family)
{
	struct dispatched d;
	o->retval = CALL_RESULT(ctx);
	dispatched_call(&d, task, current_registers(), o->retval);
	if (family != FAMILY_NONE && family_of(&d) == family)
		demultiplex(&d, family);
	o->call = calls.lookup(&d.slot);
	if (!o->call || !in_scope(&o->s, task) || (o->s.flags & GROUP_ARMED))
		return false;
	tell_first(ctx, &o->s);
	__builtin_memcpy(o->a, d.a, sizeof(o->a));
	o->s.head_flags = answered_flag(task);
	return true;
}

static __always_inline bool exit_context_begin(struct bpf_raw_tracepoint_args *ctx, struct exit_context *o)
{
	return exit_context_of(ctx, o, current_task_btf(), FAMILY_NONE);
}

/* The same for programs that run seldom. */
static __always_inline bool exit_context_cold(struct bpf_raw_tracepoint_args *ctx, struct exit_context *o)
{
	return exit_context_of(ctx, o, current_task_cold(), FAMILY_NONE);
}

/* The argument with this number in the row; 0 if the call has none. */
static __always_inline u64 exit_context_argument(const struct exit_context *o, u32 which)
{
	switch (which) {
	case 0:
		return o->a[0];
	case 1:
		return o->a[1];
	case 2:
		return o->a[2];
	case 3:
		return o->a[3];
	case 4:
		return o->a[4];
	case 5:
		return o->a[5];
	case RESULT:
		return o->retval;
	default:
		return 0;
	}
}

static __always_inline s32 dirfd_of(const struct exit_context *o, u32 which)
{
	return which == NONE ? AT_FDCWD : (s32)exit_context_argument(o, which);
}

static __always_inline u64 exit_context_file(const struct exit_context *o)
{
	return task_file(o->s.task, exit_context_argument(o, o->call->fd));
}

/*
 * A path that no object has any more: the string as passed, and as blob BASE | arg the directory of
 * its last component, or with `follow` the object that it leads to. If that cannot be resolved, the
 * blob is the directory from which the string starts (resolve.h). Workers join the two. An absolute
 * path starts from the process's own root.
 */
static __always_inline void blob_passed(struct writer *w, struct walks *j, u32 arg, u64 task, u64 address, s32 dirfd,
					bool follow)
{
	char first = 0;
	u32 text = BLOB_AT(w);
	struct place from = task_root(task);
	blob_string(w, arg, address, true);
	bpf_probe_read_user(&first, 1, (void *)address);
	if (first != '/') {
		from = task_cwd(task);
		if (dirfd != AT_FDCWD) {
			u64 file = task_file(task, dirfd);
			from = file_place(file);
		}
	}
	path_of_later(j, BASE | arg, from, text, follow);
}
#define PASSED_ROOM (BLOB_ROOM + PATH_ROOM)
