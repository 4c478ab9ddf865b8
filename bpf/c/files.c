/* files.c - opened files, as the kernel has them. */
#define O_CREATION 02001700 /* O_CREAT, O_EXCL, O_NOCTTY, O_TRUNC, O_CLOEXEC: f_flags does not keep them */

#define FMODE_CREATED (1 << 20) /* since 4.19: the open created the file */

/* The flags that the call passed. Those of openat2 are in user memory. */
static __always_inline u64 asked_flags(const struct exit_context *o)
{
	u64 flags = exit_context_argument(o, o->call->flags), how = 0;
	if (o->call->variant == VARIANT_OPENAT2) {
		bpf_probe_read_user(&how, sizeof(how), (void *)flags);
		return how;
	}
	if (o->call->variant == VARIANT_CREAT)
		return 01101; /* O_WRONLY | O_CREAT | O_TRUNC */
	return flags;
}

#ifdef EVENT_security_file_open
int on_file_open(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	struct writer w;
	if (BY_CHECK_security_file_open || !exit_context_begin(ctx, &o))
		return 0;
	/*
	 * A socket's inode, a FIFO without a reader, a device without a driver: the check ran, but
	 * no file is left.
	 */
	bool gone = o.retval == -ENXIO;
	if (o.retval < 0 && !gone)
		return 0;
	u64 file = gone ? 0 : exit_context_file(&o);
	u64 asked = asked_flags(&o), flags = asked;
	if (file)
		flags = KREAD(u32, file + KERNEL_file_f_flags) | (asked & O_CREATION);
	if (flags & O_PATH)
		return 0;
	struct walks *j = walks_begin();
	if (!j || !record_begin(ctx, &w, &o.s, o.s.tgid % SHARDS, EVENT_security_file_open, 8, PATH_ROOM + PASSED_ROOM))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	a[1 - 1] = flags;
	a[2 - 1] = a[3 - 1] = a[4 - 1] = 0;
	a[6 - 1] = SYSCALL_NUMBER(registers_of(o.s.task));
	a[7 - 1] = file ? !!(KREAD(u32, file + KERNEL_file_f_mode) & FMODE_CREATED) : 0;
	u64 path = exit_context_argument(&o, o.call->path);
	if (file) {
		struct file_id id = file_id(file_inode(file));
		a[2 - 1] = id.device;
		a[3 - 1] = id.inode;
		a[4 - 1] = id.ctime_ns;
		path_later(j, 0, file_place(file));
	} else {
		w.head->flags |= HEAD_NO_OBJECT;
#ifdef HAVE_TASK /* without it, this exceeds the stack limit */
		blob_passed(&w, j, 0, o.s.task, path, dirfd_of(&o, o.call->dir), true);
#endif
	}
	if (o.call->path != NONE)
		blob_string(&w, 5, path, true);
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif
