/*
 * hooks.c - programs attached to kernel functions by kprobes (decisions/0046). They run before the
 * function, with its arguments, and with preemption disabled. HOOK_x is the index of the probed
 * function in the event's list in bpf/tables/events.py.
 */
#define HOOKED(ctx, n) FUNCTION_ARGUMENT(ctx, n)

/*
 * Begin the record of an event about a file. Argument 0 is the file's path. Without a file, sets
 * HEAD_NO_OBJECT.
 */
static __always_inline bool file_event(void *ctx, struct writer *w, struct walks *j, u16 event, u32 arguments, u64 file)
{
	if (!j || !event_begin(ctx, w, false, event, arguments, PATH_ROOM))
		return false;
	if (file)
		path_later(j, 0, file_place(file));
	else
		w->head->flags |= HEAD_NO_OBJECT;
	return true;
}

/* Write the file's device and inode as arguments 1 and 2. */
static __always_inline struct file_id file_cells(struct writer *w, u64 inode)
{
	u64 *a = (u64 *)(w->head + 1);
	struct file_id id = file_id(inode);
	a[1 - 1] = id.device;
	a[2 - 1] = id.inode;
	return id;
}

/* The same for a dentry. These events have the inode before the device. */
static __always_inline void dentry_cells(struct writer *w, u64 dentry)
{
	u64 *a = (u64 *)(w->head + 1);
	struct file_id id = file_id(KREAD(u64, dentry + KERNEL_dentry_d_inode));
	a[1 - 1] = id.inode;
	a[2 - 1] = id.device;
}

#ifdef EVENT_do_init_module
int hook_do_init_module(struct bpf_raw_tracepoint_args *ctx)
{
	u64 module = HOOKED(ctx, 0);
	struct writer w;
	if (!event_begin(ctx, &w, true, EVENT_do_init_module, 7, 3 * BLOB_ROOM))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	u64 next = KREAD(u64, module + KERNEL_module_list), prev = KREAD(u64, module + KERNEL_module_list + 8);
	a[3 - 1] = prev;
	a[4 - 1] = next;
	a[5 - 1] = KREAD(u64, prev);
	a[6 - 1] = KREAD(u64, next + 8);
	blob_module(&w, module + KERNEL_module_name, module);
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef EVENT_security_bpf
int hook_security_bpf(struct bpf_raw_tracepoint_args *ctx)
{
	struct writer w;
	if (!event_begin(ctx, &w, true, EVENT_security_bpf, 1, 0))
		return 0;
	w.head->arg0 = (u32)HOOKED(ctx, 0);
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef EVENT_security_bpf_map
int hook_security_bpf_map(struct bpf_raw_tracepoint_args *ctx)
{
	u64 map = HOOKED(ctx, 0);
	struct writer w;
	if (!event_begin(ctx, &w, true, EVENT_security_bpf_map, 2, 64))
		return 0;
	w.head->arg0 = KREAD(u32, map + KERNEL_bpf_map_id);
	blob_string(&w, 1, map + KERNEL_bpf_map_name, false);
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef EVENT_security_bpf_prog
int hook_security_bpf_prog(struct bpf_raw_tracepoint_args *ctx)
{
	u64 program = HOOKED(ctx, 0), more = KREAD(u64, program + KERNEL_bpf_prog_aux);
	struct writer w;
	if (!event_begin(ctx, &w, true, EVENT_security_bpf_prog, 4, 64))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	w.head->arg0 = KREAD(u32, program + KERNEL_bpf_prog_type);
	a[3 - 1] = KREAD(u32, more + KERNEL_bpf_prog_aux_id);
	blob_string(&w, 1, more + KERNEL_bpf_prog_aux_name, false);
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef EVENT_security_kernel_read_file
int hook_security_kernel_read_file(struct bpf_raw_tracepoint_args *ctx)
{
	u64 file = HOOKED(ctx, 0);
	struct writer w;
	struct walks *j = walks_begin();
	if (!file_event(ctx, &w, j, EVENT_security_kernel_read_file, 5, file))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	struct file_id id = file_cells(&w, file ? file_inode(file) : 0);
	a[3 - 1] = (u32)HOOKED(ctx, 1);
	a[4 - 1] = id.ctime_ns;
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

#ifdef EVENT_security_kernel_post_read_file
int hook_security_kernel_post_read_file(struct bpf_raw_tracepoint_args *ctx)
{
	struct writer w;
	struct walks *j = walks_begin();
	if (!file_event(ctx, &w, j, EVENT_security_kernel_post_read_file, 3, HOOKED(ctx, 0)))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	a[1 - 1] = HOOKED(ctx, 2);
	a[2 - 1] = (u32)HOOKED(ctx, 3);
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

/* A read or write of an open file: path, device, inode, count, position. */
static __always_inline void transfer_event(struct bpf_raw_tracepoint_args *ctx, u16 event)
{
	u64 file = HOOKED(ctx, 0), position = HOOKED(ctx, 3);
	struct writer w;
	struct walks *j = walks_begin();
	if (!file_event(ctx, &w, j, event, 5, file))
		return;
	u64 *a = (u64 *)(w.head + 1);
	file_cells(&w, file_inode(file));
	a[3 - 1] = HOOKED(ctx, 2);
	a[4 - 1] = KREAD(u64, position ? position : file + KERNEL_file_f_pos);
	record_walk(ctx, &w, j, 0);
}

#ifdef EVENT___kernel_write
int hook___kernel_write(struct bpf_raw_tracepoint_args *ctx)
{
	transfer_event(ctx, EVENT___kernel_write);
	return 0;
}
#endif

#ifdef EVENT_vfs_read
int hook_vfs_read(struct bpf_raw_tracepoint_args *ctx)
{
	transfer_event(ctx, EVENT_vfs_read);
	return 0;
}
#endif

#ifdef EVENT_vfs_readv
int hook_vfs_readv(struct bpf_raw_tracepoint_args *ctx)
{
	transfer_event(ctx, EVENT_vfs_readv);
	return 0;
}
#endif

#ifdef EVENT_vfs_utimes
static __always_inline u64 time_ns(u64 timespec)
{
	return KREAD(u64, timespec) * 1000000000ULL + KREAD(u64, timespec + 8);
}

int hook_vfs_utimes(struct bpf_raw_tracepoint_args *ctx)
{
	u64 path = HOOKED(ctx, 0), times = HOOKED(ctx, 1);
	struct place at = place_of(path);
	struct writer w;
	struct walks *j = walks_begin();
	if (!j || !event_begin(ctx, &w, false, EVENT_vfs_utimes, 5, PATH_ROOM))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	file_cells(&w, KREAD(u64, at.dentry + KERNEL_dentry_d_inode));
	/* no times: set to the current time */
	a[3 - 1] = times ? time_ns(times) : 0;
	a[4 - 1] = times ? time_ns(times + 16) : 0;
	path_later(j, 0, at);
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

#ifdef EVENT_proc_create
int hook_proc_create(struct bpf_raw_tracepoint_args *ctx)
{
	struct writer w;
	if (!event_begin(ctx, &w, false, EVENT_proc_create, 2, BLOB_ROOM))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	a[1 - 1] = HOOKED(ctx, 3);
	blob_string(&w, 0, HOOKED(ctx, 0), false);
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef EVENT_kprobe_attach
int hook_kprobe_attach(struct bpf_raw_tracepoint_args *ctx)
{
	u64 probe = HOOKED(ctx, 0);
	struct writer w;
	if (!event_begin(ctx, &w, true, EVENT_kprobe_attach, 3, BLOB_ROOM))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	a[1 - 1] = KREAD(u64, probe + KERNEL_kprobe_pre_handler);
	a[2 - 1] = KREAD(u64, probe + KERNEL_kprobe_post_handler);
	blob_string(&w, 0, KREAD(u64, probe + KERNEL_kprobe_symbol_name), false);
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef EVENT_call_usermodehelper
int hook_call_usermodehelper(struct bpf_raw_tracepoint_args *ctx)
{
	u64 info = HOOKED(ctx, 0);
	struct writer w;
	if (!event_begin(ctx, &w, true, EVENT_call_usermodehelper, 4, BLOB_ROOM + 2 * (VECTOR_BYTES + VECTOR_STRING + 64)))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	a[3 - 1] = (u32)HOOKED(ctx, 1);
	blob_string(&w, 0, KREAD(u64, info + KERNEL_subprocess_info_path), false);
	blob_strings(&w, 1, KREAD(u64, info + KERNEL_subprocess_info_argv), false, SOURCE_KERNEL);
	blob_strings(&w, 2, KREAD(u64, info + KERNEL_subprocess_info_envp), false, SOURCE_KERNEL);
	record_end(ctx, &w);
	return 0;
}
#endif

#if defined(EVENT_debugfs_create_file) || defined(EVENT_debugfs_create_dir)
/*
 * Write the name and the path of the parent directory inside debugfs. A NULL parent is the root of
 * debugfs.
 */
static __always_inline void debugfs_event(void *ctx, struct writer *w, struct walks *j, u64 name, u64 parent)
{
	struct place at = {.dentry = parent};
	blob_string(w, 0, name, false);
	if (parent)
		path_later(j, 1, at);
	record_walk(ctx, w, j, 0);
}
#endif

#ifdef EVENT_debugfs_create_file
int hook_debugfs_create_file(struct bpf_raw_tracepoint_args *ctx)
{
	struct writer w;
	struct walks *j = walks_begin();
	if (!j || !event_begin(ctx, &w, false, EVENT_debugfs_create_file, 4, BLOB_ROOM + PATH_ROOM))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	a[2 - 1] = (u16)HOOKED(ctx, 1);
	/* since 6.14 another parameter precedes it */
	a[3 - 1] = HOOK_debugfs_create_file ? HOOKED(ctx, 5) : HOOKED(ctx, 4);
	debugfs_event(ctx, &w, j, HOOKED(ctx, 0), HOOKED(ctx, 2));
	return 0;
}
#endif

#ifdef EVENT_debugfs_create_dir
int hook_debugfs_create_dir(struct bpf_raw_tracepoint_args *ctx)
{
	struct writer w;
	struct walks *j = walks_begin();
	if (!j || !event_begin(ctx, &w, false, EVENT_debugfs_create_dir, 2, BLOB_ROOM + PATH_ROOM))
		return 0;
	debugfs_event(ctx, &w, j, HOOKED(ctx, 0), HOOKED(ctx, 1));
	return 0;
}
#endif

#ifdef EVENT_device_add
/* Before a device is added, its name may be in init_name. */
static __always_inline u64 device_name(u64 device)
{
	u64 first = KREAD(u64, device + KERNEL_device_init_name);
	return first ? first : KREAD(u64, device + KERNEL_device_kobj_name);
}

int hook_device_add(struct bpf_raw_tracepoint_args *ctx)
{
	u64 device = HOOKED(ctx, 0), parent = KREAD(u64, device + KERNEL_device_parent);
	struct writer w;
	if (!event_begin(ctx, &w, false, EVENT_device_add, 2, 2 * BLOB_ROOM))
		return 0;
	blob_string(&w, 0, device_name(device), false);
	blob_string(&w, 1, parent ? device_name(parent) : 0, false);
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef EVENT_register_chrdev
int hook_register_chrdev(struct bpf_raw_tracepoint_args *ctx)
{
	u32 major = HOOKED(ctx, 0);
	struct writer w;
	if (!event_begin(ctx, &w, false, EVENT_register_chrdev, 4, BLOB_ROOM))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	w.head->arg0 = a[1 - 1] = major;
	/* a requested number is assigned or the call fails; for 0 the kernel chooses one later */
	if (!major)
		w.head->flags |= HEAD_NO_OBJECT;
	a[3 - 1] = HOOKED(ctx, 4);
	blob_string(&w, 2, HOOKED(ctx, 3), false);
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef EVENT_load_elf_phdrs
int hook_load_elf_phdrs(struct bpf_raw_tracepoint_args *ctx)
{
	u64 file = HOOKED(ctx, 1);
	struct writer w;
	struct walks *j = walks_begin();
	if (!file_event(ctx, &w, j, EVENT_load_elf_phdrs, 3, file))
		return 0;
	file_cells(&w, file_inode(file));
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

#ifdef EVENT_security_path_notify
int hook_security_path_notify(struct bpf_raw_tracepoint_args *ctx)
{
	struct place at = place_of(HOOKED(ctx, 0));
	struct writer w;
	struct walks *j = walks_begin();
	if (!j || !event_begin(ctx, &w, false, EVENT_security_path_notify, 5, PATH_ROOM))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	dentry_cells(&w, at.dentry);
	a[3 - 1] = HOOKED(ctx, 1);
	a[4 - 1] = (u32)HOOKED(ctx, 2);
	path_later(j, 0, at);
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

#ifdef EVENT_set_fs_pwd
int hook_set_fs_pwd(struct bpf_raw_tracepoint_args *ctx)
{
	struct writer w;
	struct walks *j = walks_begin();
	if (!j || !event_begin(ctx, &w, false, EVENT_set_fs_pwd, 2, PATH_ROOM))
		return 0;
	path_later(j, 1, place_of(HOOKED(ctx, 1)));
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

#ifdef EVENT_security_task_prctl
int hook_security_task_prctl(struct bpf_raw_tracepoint_args *ctx)
{
	struct writer w;
	if (!event_begin(ctx, &w, false, EVENT_security_task_prctl, 5, 0))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	w.head->arg0 = (s32)HOOKED(ctx, 0);
	a[1 - 1] = HOOKED(ctx, 1);
	a[2 - 1] = HOOKED(ctx, 2);
	a[3 - 1] = HOOKED(ctx, 3);
	a[4 - 1] = HOOKED(ctx, 4);
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef EVENT_security_task_setrlimit
int hook_security_task_setrlimit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 limit = HOOKED(ctx, 2);
	struct writer w;
	if (!event_begin(ctx, &w, false, EVENT_security_task_setrlimit, 4, 0))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	w.head->arg0 = KREAD(u32, HOOKED(ctx, 0) + KERNEL_task_struct_tgid);
	a[1 - 1] = (u32)HOOKED(ctx, 1);
	a[2 - 1] = KREAD(u64, limit);
	a[3 - 1] = KREAD(u64, limit + 8);
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef EVENT_security_settime64
int hook_security_settime64(struct bpf_raw_tracepoint_args *ctx)
{
	u64 time = HOOKED(ctx, 0), zone = HOOKED(ctx, 1);
	struct writer w;
	if (!event_begin(ctx, &w, true, EVENT_security_settime64, 4, 0))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	w.head->arg0 = time ? KREAD(s64, time) : 0;
	a[1 - 1] = time ? KREAD(s64, time + 8) : 0;
	a[2 - 1] = zone ? KREAD(s32, zone) : 0;
	a[3 - 1] = zone ? KREAD(s32, zone + 4) : 0;
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef EVENT_kallsyms_lookup_name
int hook_kallsyms_lookup_name(struct bpf_raw_tracepoint_args *ctx)
{
	struct writer w;
	if (!event_begin(ctx, &w, false, EVENT_kallsyms_lookup_name, 2, BLOB_ROOM))
		return 0;
	blob_string(&w, 0, HOOKED(ctx, 0), false);
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef EVENT_do_sigaction
#define SIG_IGN 1
#define SIG_HANDLER 2
#define SIGNALS 64

/*
 * Write five arguments for a signal action: whether it was passed, flags, mask, kind of handler,
 * handler address.
 */
static __always_inline void action_cells(u64 *a, u64 action)
{
	u64 handler = KREAD(u64, action + KERNEL_k_sigaction_sa_sa_handler);
	if (!action)
		return;
	a[0] = 1;
	a[1] = KREAD(u64, action + KERNEL_k_sigaction_sa_sa_flags);
	a[2] = KREAD(u64, action + KERNEL_k_sigaction_sa_sa_mask);
	a[3] = handler > SIG_IGN ? SIG_HANDLER : handler;
	a[4] = handler > SIG_IGN ? handler : 0;
}

int hook_do_sigaction(struct bpf_raw_tracepoint_args *ctx)
{
	s32 signal = HOOKED(ctx, 0);
	u64 actions = KREAD(u64, current_task_btf() + KERNEL_task_struct_sighand) + KERNEL_sighand_struct_action;
	bool there = signal >= 1 && signal <= SIGNALS;
	struct writer w;
	if (!event_begin(ctx, &w, false, EVENT_do_sigaction, 11, 0))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	w.head->arg0 = signal;
	action_cells(a, HOOKED(ctx, 1));
	action_cells(a + 5, there ? actions + (u64)(signal - 1) * KERNEL_k_sigaction_size : 0);
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef EVENT_do_truncate
int hook_do_truncate(struct bpf_raw_tracepoint_args *ctx)
{
	/* since 5.12 another parameter precedes it */
	bool later = KERNEL_do_truncate_parameters > 4;
	struct place at = {.dentry = later ? HOOKED(ctx, 1) : HOOKED(ctx, 0)};
	struct writer w;
	struct walks *j = walks_begin();
	if (!j || !event_begin(ctx, &w, false, EVENT_do_truncate, 4, PATH_ROOM))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	dentry_cells(&w, at.dentry);
	a[3 - 1] = later ? HOOKED(ctx, 2) : HOOKED(ctx, 1);
	path_later(j, 0, at);
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif

#if defined(EVENT_zeroed_inodes) || defined(EVENT_hidden_inodes)
#define NAME_MAX 255
/*
 * A directory entry without an inode number: getdents(2) returns it, and programs that list
 * directories skip it.
 */
static __always_inline int entry_without_inode(struct bpf_raw_tracepoint_args *ctx, u16 event)
{
	struct writer w;
	if (HOOKED(ctx, 4) || !event_begin(ctx, &w, true, event, 1, BLOB_ROOM))
		return 0;
	blob_memory_of(&w, 0, HOOKED(ctx, 1), (u32)HOOKED(ctx, 2), NAME_MAX, SOURCE_KERNEL, STRING_BYTES);
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef EVENT_zeroed_inodes
int hook_zeroed_inodes(struct bpf_raw_tracepoint_args *ctx)
{
	return entry_without_inode(ctx, EVENT_zeroed_inodes);
}
#endif

#ifdef EVENT_hidden_inodes
int hook_hidden_inodes(struct bpf_raw_tracepoint_args *ctx)
{
	return entry_without_inode(ctx, EVENT_hidden_inodes);
}
#endif

#ifdef EVENT_inotify_watch
int hook_inotify_watch(struct bpf_raw_tracepoint_args *ctx)
{
	bool compat = SYSCALL_IS_COMPAT(current_task_btf());
	struct place at = place_of(HOOKED(ctx, 0));
	struct writer w;
	struct walks *j = walks_begin();
	if (SYSCALL_NUMBER(current_registers()) != SYSCALL_INOTIFY_ADD_WATCH(compat) || !j ||
	    !event_begin(ctx, &w, false, EVENT_inotify_watch, 3, PATH_ROOM))
		return 0;
	dentry_cells(&w, at.dentry);
	path_later(j, 0, at);
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif
