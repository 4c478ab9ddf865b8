/*
 * names.c - calls that create, remove or change names, or reach a file by its name: rename, link,
 * symlink, unlink, mknod, truncate, mount. They leave no object with the path, so it is composed of
 * the string passed and the directory that it led to (blob_passed).
 */
#define AT_REMOVEDIR 0x200
#define AT_SYMLINK_FOLLOW 0x400
#define RENAME_EXCHANGE 2

static __always_inline struct walks *names_begin_in(void *ctx, struct writer *w, const struct exit_context *o, u16 event,
						    u32 arguments, u32 room)
{
	struct walks *j = walks_begin();
	u32 slot = o->call->urgent ? URGENT : o->s.tgid % SHARDS;
	if (!j || !record_begin(ctx, w, &o->s, slot, event, arguments, room))
		return 0;
	w->head->retval = o->retval;
	return j;
}

static __always_inline struct walks *names_begin(void *ctx, struct writer *w, const struct exit_context *o, u16 event,
						 u32 arguments)
{
	return names_begin_in(ctx, w, o, event, arguments, 2 * PASSED_ROOM);
}

static __always_inline void blob_name(struct writer *w, struct walks *j, u32 arg, const struct exit_context *o, u32 path,
				      u32 dir)
{
	blob_passed(w, j, arg, o->s.task, exit_context_argument(o, path), dirfd_of(o, dir), false);
}

/* The object that a path leads to. The last link is followed. */
static __always_inline void blob_named(struct writer *w, struct walks *j, u32 arg, const struct exit_context *o)
{
	blob_passed(w, j, arg, o->s.task, exit_context_argument(o, o->call->path), dirfd_of(o, o->call->dir), true);
}

static __always_inline u64 name_flags(const struct exit_context *o)
{
	return o->call->flags == NONE ? 0 : exit_context_argument(o, o->call->flags);
}

#ifdef EVENT_security_inode_unlink
int on_inode_unlink(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	struct writer w;
	if (BY_CHECK_security_inode_unlink || !exit_context_cold(ctx, &o) || o.retval < 0)
		return 0;
	if (name_flags(&o) & AT_REMOVEDIR)
		return 0;
	struct walks *j = names_begin(ctx, &w, &o, EVENT_security_inode_unlink, 1);
	if (!j)
		return 0;
	blob_name(&w, j, 0, &o, o.call->path, o.call->dir);
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

#ifdef EVENT_security_inode_rename
/* `back`: from the second name to the first, for the other file of an exchange. */
static __always_inline int rename_event(struct bpf_raw_tracepoint_args *ctx, bool back)
{
	struct exit_context o = {};
	struct writer w;
	if (BY_CHECK_security_inode_rename || !exit_context_cold(ctx, &o) || o.retval < 0)
		return 0;
	struct walks *j = names_begin(ctx, &w, &o, EVENT_security_inode_rename, 2);
	if (!j)
		return 0;
	blob_name(&w, j, back, &o, o.call->path, o.call->dir);
	blob_name(&w, j, !back, &o, o.call->path2, o.call->dir2);
	record_walk(ctx, &w, j, !back && (name_flags(&o) & RENAME_EXCHANGE) ? PROGRAM_rename_back : 0);
	return 0;
}

int on_inode_rename(struct bpf_raw_tracepoint_args *ctx)
{
	return rename_event(ctx, false);
}

int on_rename_back(struct bpf_raw_tracepoint_args *ctx)
{
	return rename_event(ctx, true);
}
#endif

#ifdef EVENT_security_inode_link
int on_inode_link(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	struct writer w;
	if (BY_CHECK_security_inode_link || !exit_context_cold(ctx, &o) || o.retval < 0)
		return 0;
	struct walks *j = names_begin(ctx, &w, &o, EVENT_security_inode_link, 2);
	if (!j)
		return 0;
	bool follow = name_flags(&o) & AT_SYMLINK_FOLLOW;
	blob_passed(&w, j, 0, o.s.task, exit_context_argument(&o, o.call->path), dirfd_of(&o, o.call->dir), follow);
	blob_name(&w, j, 1, &o, o.call->path2, o.call->dir2);
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

#ifdef EVENT_security_inode_symlink
/* The target of a symbolic link may be any text. It is recorded as passed. */
int on_inode_symlink(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	struct writer w;
	if (BY_CHECK_security_inode_symlink || !exit_context_cold(ctx, &o) || o.retval < 0)
		return 0;
	struct walks *j = names_begin(ctx, &w, &o, EVENT_security_inode_symlink, 2);
	if (!j)
		return 0;
	blob_name(&w, j, 0, &o, o.call->path2, o.call->dir2);
	blob_string(&w, 1, exit_context_argument(&o, o.call->path), true);
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

/* A device number as calls pass it (new_decode_dev() in include/linux/kdev_t.h). */
static __always_inline u64 device_of(u32 encoded)
{
	return (u64)((encoded & 0xfff00) >> 8) << 20 | (encoded & 0xff) | ((encoded >> 12) & 0xfff00);
}

#ifdef EVENT_security_inode_mknod
int on_inode_mknod(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	struct writer w;
	if (BY_CHECK_security_inode_mknod || !exit_context_cold(ctx, &o) || o.retval < 0)
		return 0;
	struct walks *j = names_begin(ctx, &w, &o, EVENT_security_inode_mknod, 3);
	if (!j)
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	u32 encoded = exit_context_argument(&o, o.call->flags + 1);
	a[0] = exit_context_argument(&o, o.call->flags);
	a[1] = device_of(encoded);
	blob_name(&w, j, 0, &o, o.call->path, o.call->dir);
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

#ifdef EVENT_security_path_truncate
int on_path_truncate(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	struct writer w;
	if (!exit_context_cold(ctx, &o) || o.retval < 0)
		return 0;
	struct walks *j = names_begin(ctx, &w, &o, EVENT_security_path_truncate, 1);
	if (!j)
		return 0;
	blob_named(&w, j, 0, &o);
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

#ifdef EVENT_security_sb_mount
/*
 * mount: the arguments as passed, whatever the result, unless they could not be read. move_mount:
 * the resulting mount, if it succeeded.
 */
int on_sb_mount(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	struct writer w;
	if (!exit_context_cold(ctx, &o) || o.retval == -EFAULT)
		return 0;
	bool moved = o.call->variant == VARIANT_MOVE_MOUNT;
	if (moved && o.retval < 0)
		return 0;
	struct walks *j = names_begin(ctx, &w, &o, EVENT_security_sb_mount, 4);
	if (!j)
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	if (moved) {
		u64 file = task_file(o.s.task, o.a[0]);
		struct place p = file_place(file);
		u64 sb = KREAD(u64, p.mount + KERNEL_mount_mnt + KERNEL_vfsmount_mnt_sb);
		u64 type = KREAD(u64, sb + KERNEL_super_block_s_type);
		a[2] = 0;
		blob_string(&w, 0, KREAD(u64, p.mount + KERNEL_mount_mnt_devname), false);
		blob_string(&w, 2, KREAD(u64, type + KERNEL_file_system_type_name), false);
	} else {
		a[2] = o.a[3];
		blob_string(&w, 0, o.a[0], true);
		blob_string(&w, 2, o.a[2], true);
	}
	blob_named(&w, j, 1, &o);
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

#ifdef EVENT_security_sb_umount
int on_sb_umount(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	struct writer w;
	if (!exit_context_cold(ctx, &o) || o.retval < 0)
		return 0;
	struct walks *j = names_begin(ctx, &w, &o, EVENT_security_sb_umount, 3);
	if (!j)
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	a[1] = o.a[1];
	blob_named(&w, j, 0, &o);
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

/*
 * An execve that failed after a file was found and checked. on_sched_process_exec reports a
 * successful one.
 */
int on_bprm_refused(struct bpf_raw_tracepoint_args *ctx)
{
#ifdef EVENT_security_bprm_check
	struct exit_context o = {};
	struct writer w;
	if (!exit_context_cold(ctx, &o))
		return 0;
	bool checked = o.retval == -ENOEXEC || o.retval == -ELIBBAD || o.retval == -EINVAL;
	struct walks *j = checked ? names_begin(ctx, &w, &o, EVENT_security_bprm_check, 3) : 0;
	if (j) {
		u64 *a = (u64 *)(w.head + 1);
		a[0] = a[1] = 0;
		w.head->flags |= HEAD_NO_OBJECT;
		blob_named(&w, j, 0, &o);
		record_walk(ctx, &w, j, PROGRAM_execute_failed);
	}
#endif
	objects.call(ctx, PROGRAM_execute_failed);
	return 0;
}

/* Any execve that failed. */
int on_execute_failed(struct bpf_raw_tracepoint_args *ctx)
{
#ifdef EVENT_process_execute_failed
	struct exit_context o = {};
	struct writer w;
	if (!exit_context_cold(ctx, &o) || o.retval >= 0)
		return 0;
	u32 vectors = (1 + EXEC_ENVIRONMENT) * (VECTOR_BYTES + VECTOR_STRING + 64);
	struct walks *j = names_begin_in(ctx, &w, &o, EVENT_process_execute_failed, 6, BLOB_ROOM + PASSED_ROOM + vectors);
	if (!j)
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	u32 path = o.call->path;
	w.head->arg0 = dirfd_of(&o, o.call->dir);
	a[1 - 1] = name_flags(&o);
	blob_string(&w, 2, exit_context_argument(&o, path), true);
	blob_named(&w, j, 3, &o);
	blob_vector(&w, 4, exit_context_argument(&o, path + 1), o.call->narrow);
	if (EXEC_ENVIRONMENT)
		blob_vector(&w, 5, exit_context_argument(&o, path + 2), o.call->narrow);
	record_walk(ctx, &w, j, 0);
#endif
	return 0;
}
