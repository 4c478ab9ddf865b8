/*
 * modules.c - kernel modules that are loaded and unloaded, on kernels with module support.
 */
#if defined(EVENT_module_load) || defined(EVENT_module_free) || defined(EVENT_do_init_module)
static __always_inline void blob_module(struct writer *w, u64 name, u64 module)
{
	blob_string(w, 0, name, false);
	if (!module)
		return;
	blob_string(w, 1, KREAD(u64, module + KERNEL_module_version), false);
	blob_string(w, 2, KREAD(u64, module + KERNEL_module_srcversion), false);
}
#endif

#if defined(EVENT_module_load) || defined(WATCH_MODULES)
int on_module_load(struct bpf_raw_tracepoint_args *ctx)
{
#ifdef WATCH_MODULES
	u32 zero = 0;
	struct status *st = status.lookup(&zero);
	if (st)
		__sync_fetch_and_add(&st->modules_loaded, 1);
#endif
#ifdef EVENT_module_load
	u64 task = current_task_btf(), regs = registers_of(task), file = 0, inode = 0, a[6];
	bool compat = SYSCALL_IS_COMPAT(task);
	struct writer w;
	struct walks *j = walks_begin();
	if (!j || !event_begin(ctx, &w, true, EVENT_module_load, 7, 3 * BLOB_ROOM + PATH_ROOM))
		return 0;
	if (SYSCALL_NUMBER(regs) == SYSCALL_FINIT_MODULE(compat)) {
		SYSCALL_ARGUMENTS(a, regs, compat);
		file = task_file(task, a[0]);
	}
	if (file) {
		inode = file_inode(file);
		path_later(j, 3, file_place(file));
	} else {
		w.head->flags |= HEAD_NO_OBJECT;
	}
	u64 *cell = (u64 *)(w.head + 1);
	struct file_id id = file_id(inode);
	cell[3] = id.device;
	cell[4] = id.inode;
	cell[5] = id.ctime_ns;
	blob_module(&w, MODULE_NAME(ctx, module_load), MODULE(ctx));
	record_walk(ctx, &w, j, 0);
#endif
	return 0;
}
#endif

#ifdef EVENT_module_free
int on_module_free(struct bpf_raw_tracepoint_args *ctx)
{
	struct writer w;
	if (!event_begin(ctx, &w, true, EVENT_module_free, 3, 3 * BLOB_ROOM))
		return 0;
	blob_module(&w, MODULE_NAME(ctx, module_free), MODULE(ctx));
	record_end(ctx, &w);
	return 0;
}
#endif
