/*
 * checks.c - security checks of the kernel, by kprobes (decisions/0053). The end of a call reports
 * most of them, with the call's result. These programs report the others: files and sockets of
 * io_uring, of the kernel itself, of calls that cannot be told from their end. With CHECKS_ONLY
 * they report all. A check comes before its result: its record has HEAD_ENTRY.
 *
 * CHECK_x is defined if this host can probe the check of event x.
 */

/* The call that the task is in, if its end reports the same event. Returns false if it does not. */
static __always_inline bool reported_by_call(struct dispatched *d, u32 program)
{
	u64 task = current_task_btf();
	dispatched_call(d, task, registers_of(task), 0);
	if (family_of(d) == FAMILY_SOCKETCALL)
		demultiplex(d, FAMILY_SOCKETCALL);
	struct call *call = calls.lookup(&d->slot);
	return call && call->object == program;
}

static __always_inline bool check_begin(void *ctx, struct writer *w, bool reported, u16 event, u32 arguments, u32 room)
{
#ifndef CHECKS_ONLY
	if (reported)
		return false;
#endif
	if (!event_begin(ctx, w, false, event, arguments, room))
		return false;
	w->head->flags |= HEAD_ENTRY;
	return true;
}

#ifdef CHECK_security_file_open
int hook_security_file_open(struct bpf_raw_tracepoint_args *ctx)
{
	u64 file = HOOKED(ctx, 0);
	struct dispatched d;
	struct writer w;
	struct walks *j = walks_begin();
	bool reported = reported_by_call(&d, PROGRAM_file_open);
	if (!j || !check_begin(ctx, &w, reported, EVENT_security_file_open, 8, PATH_ROOM))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	struct file_id id = file_id(file_inode(file));
	a[1 - 1] = KREAD(u32, file + KERNEL_file_f_flags);
	a[2 - 1] = id.device;
	a[3 - 1] = id.inode;
	a[4 - 1] = id.ctime_ns;
	a[6 - 1] = d.number;
	a[7 - 1] = !!(KREAD(u32, file + KERNEL_file_f_mode) & FMODE_CREATED);
	path_later(j, 0, file_place(file));
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

/* The name of a dentry, in the directory of that dentry on the mount of a struct path. */
static __always_inline void blob_checked(struct writer *w, struct walks *j, u32 arg, u64 path, u64 dentry)
{
	struct place directory = place_of(path);
	u32 text = BLOB_AT(w);
	blob_string(w, arg, KREAD(u64, dentry + KERNEL_dentry_d_name_name), false);
	OPAQUE(text);
	if (text > CELLS_BYTES - BLOB_ROOM)
		return;
	/* the whole name remains below the directory, as after resolve() */
	((struct blob *)(w->frame->cells + text))->whole = 1;
	directory.dentry = KREAD(u64, dentry + KERNEL_dentry_d_parent);
	path_later(j, BASE | arg, directory);
}

#ifdef CHECK_security_inode_unlink
int hook_security_inode_unlink(struct bpf_raw_tracepoint_args *ctx)
{
	struct dispatched d;
	struct writer w;
	struct walks *j = walks_begin();
	bool reported = reported_by_call(&d, PROGRAM_inode_unlink);
	if (!j || !check_begin(ctx, &w, reported, EVENT_security_inode_unlink, 1, PASSED_ROOM))
		return 0;
	blob_checked(&w, j, 0, HOOKED(ctx, 0), HOOKED(ctx, 1));
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

#ifdef CHECK_security_inode_rename
int hook_security_inode_rename(struct bpf_raw_tracepoint_args *ctx)
{
	struct dispatched d;
	struct writer w;
	struct walks *j = walks_begin();
	bool reported = reported_by_call(&d, PROGRAM_inode_rename);
	if (!j || !check_begin(ctx, &w, reported, EVENT_security_inode_rename, 2, 2 * PASSED_ROOM))
		return 0;
	blob_checked(&w, j, 0, HOOKED(ctx, 0), HOOKED(ctx, 1));
	blob_checked(&w, j, 1, HOOKED(ctx, 2), HOOKED(ctx, 3));
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

#ifdef CHECK_security_inode_link
/* Both names are on one mount, or the kernel refuses the link. */
int hook_security_inode_link(struct bpf_raw_tracepoint_args *ctx)
{
	struct dispatched d;
	struct writer w;
	struct walks *j = walks_begin();
	bool reported = reported_by_call(&d, PROGRAM_inode_link);
	if (!j || !check_begin(ctx, &w, reported, EVENT_security_inode_link, 2, 2 * PASSED_ROOM))
		return 0;
	blob_checked(&w, j, 0, HOOKED(ctx, 1), HOOKED(ctx, 0));
	blob_checked(&w, j, 1, HOOKED(ctx, 1), HOOKED(ctx, 2));
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

#ifdef CHECK_security_inode_symlink
int hook_security_inode_symlink(struct bpf_raw_tracepoint_args *ctx)
{
	struct dispatched d;
	struct writer w;
	struct walks *j = walks_begin();
	bool reported = reported_by_call(&d, PROGRAM_inode_symlink);
	if (!j || !check_begin(ctx, &w, reported, EVENT_security_inode_symlink, 2, PASSED_ROOM + BLOB_ROOM))
		return 0;
	blob_checked(&w, j, 0, HOOKED(ctx, 0), HOOKED(ctx, 1));
	blob_string(&w, 1, HOOKED(ctx, 2), false);
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

#ifdef CHECK_security_inode_mknod
#define S_IFREG 0100000
/* The kernel makes the same check for a regular file that an open creates: that is not a mknod. */
int hook_security_inode_mknod(struct bpf_raw_tracepoint_args *ctx)
{
	u32 mode = HOOKED(ctx, 2), encoded = HOOKED(ctx, 3);
	struct dispatched d;
	struct writer w;
	struct walks *j = walks_begin();
	bool reported = reported_by_call(&d, PROGRAM_inode_mknod);
	if ((mode & S_IFMT) == S_IFREG || !(mode & S_IFMT) || !j ||
	    !check_begin(ctx, &w, reported, EVENT_security_inode_mknod, 3, PASSED_ROOM))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	a[0] = mode;
	a[1] = device_of(encoded);
	blob_checked(&w, j, 0, HOOKED(ctx, 0), HOOKED(ctx, 1));
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

#ifdef CHECK_security_socket_create
int hook_security_socket_create(struct bpf_raw_tracepoint_args *ctx)
{
	struct dispatched d;
	struct writer w;
	bool reported = reported_by_call(&d, PROGRAM_socket_create);
	if (!check_begin(ctx, &w, reported, EVENT_security_socket_create, 4, 0))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	w.head->arg0 = (u32)HOOKED(ctx, 0);
	a[1 - 1] = (u32)HOOKED(ctx, 1);
	a[2 - 1] = (u32)HOOKED(ctx, 2);
	a[3 - 1] = (u32)HOOKED(ctx, 3);
	record_end(ctx, &w);
	return 0;
}
#endif

/* A check of a socket. Argument 0 is the descriptor: -1 if the socket was not reached by one of the calls. */
static __always_inline bool socket_check_begin(struct bpf_raw_tracepoint_args *ctx, struct writer *w, u32 program,
					       u16 event, u32 arguments)
{
	struct dispatched d;
	bool reported = reported_by_call(&d, program);
	if (!check_begin(ctx, w, reported, event, arguments, SOCKET_ROOM))
		return false;
	w->head->arg0 = reported ? (u32)d.a[0] : (u32)-1;
	return true;
}

/* The address that a bind or connect passed, as the kernel has copied it. */
static __always_inline void blob_checked_address(struct bpf_raw_tracepoint_args *ctx, struct writer *w)
{
	blob_memory_of(w, 1, HOOKED(ctx, 1), (u32)HOOKED(ctx, 2), 128, SOURCE_KERNEL, 128);
}

static __always_inline u64 checked_sock(struct bpf_raw_tracepoint_args *ctx)
{
	return KREAD(u64, HOOKED(ctx, 0) + KERNEL_socket_sk);
}

#ifdef CHECK_security_socket_bind
int hook_security_socket_bind(struct bpf_raw_tracepoint_args *ctx)
{
	struct writer w;
	if (!socket_check_begin(ctx, &w, PROGRAM_socket_bind, EVENT_security_socket_bind, 2))
		return 0;
	blob_checked_address(ctx, &w);
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef CHECK_security_socket_connect
int hook_security_socket_connect(struct bpf_raw_tracepoint_args *ctx)
{
	struct writer w;
	if (!socket_check_begin(ctx, &w, PROGRAM_socket_connect, EVENT_security_socket_connect, 2))
		return 0;
	blob_checked_address(ctx, &w);
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef CHECK_security_socket_listen
int hook_security_socket_listen(struct bpf_raw_tracepoint_args *ctx)
{
	struct writer w;
	if (!socket_check_begin(ctx, &w, PROGRAM_socket_listen, EVENT_security_socket_listen, 3))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	a[1] = (u32)HOOKED(ctx, 1);
	blob_socket_address(&w, 1, checked_sock(ctx), false);
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef CHECK_security_socket_accept
int hook_security_socket_accept(struct bpf_raw_tracepoint_args *ctx)
{
	struct writer w;
	if (!socket_check_begin(ctx, &w, PROGRAM_socket_accept, EVENT_security_socket_accept, 2))
		return 0;
	blob_socket_address(&w, 1, checked_sock(ctx), false);
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef CHECK_security_socket_setsockopt
int hook_security_socket_setsockopt(struct bpf_raw_tracepoint_args *ctx)
{
	struct writer w;
	if (!socket_check_begin(ctx, &w, PROGRAM_socket_setsockopt, EVENT_security_socket_setsockopt, 4))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	a[0] = (u32)HOOKED(ctx, 1);
	a[1] = (u32)HOOKED(ctx, 2);
	blob_socket_address(&w, 3, checked_sock(ctx), false);
	record_end(ctx, &w);
	return 0;
}
#endif
