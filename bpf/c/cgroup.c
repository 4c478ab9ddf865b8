/* cgroup.c - control groups made, removed and entered. */
static __always_inline void write_cgroup(void *ctx, u16 event, u64 cgroup, u64 path)
{
	struct subject s;
	struct writer w;
	if (!in_scope(&s, current_task_btf()) || (s.flags & GROUP_ARMED))
		return;
	if (!record_begin(ctx, &w, &s, URGENT, event, 3, BLOB_ROOM))
		return;
	u64 *a = (u64 *)(w.head + 1);
	u64 root = KREAD(u64, cgroup + KERNEL_cgroup_root);
	w.head->arg0 = KREAD(u64, KREAD(u64, cgroup + KERNEL_cgroup_kn) + KERNEL_kernfs_node_id);
	a[1] = KREAD(u32, root + KERNEL_cgroup_root_hierarchy_id);
	blob_string(&w, 1, path, false);
	record_end(ctx, &w);
}

#ifdef WANT_CGROUP_MKDIR
int on_cgroup_mkdir(struct bpf_raw_tracepoint_args *ctx)
{
	write_cgroup(ctx, EVENT_cgroup_mkdir, ctx->args[0], ctx->args[1]);
	return 0;
}
#endif

#ifdef WANT_CGROUP_RMDIR
int on_cgroup_rmdir(struct bpf_raw_tracepoint_args *ctx)
{
	write_cgroup(ctx, EVENT_cgroup_rmdir, ctx->args[0], ctx->args[1]);
	return 0;
}
#endif

#ifdef WANT_CGROUP_ATTACH_TASK
int on_cgroup_attach_task(struct bpf_raw_tracepoint_args *ctx)
{
	struct subject s;
	struct writer w;
	u64 path = ctx->args[1], task = ctx->args[2];
	if (!in_scope(&s, current_task_btf()) || (s.flags & GROUP_ARMED))
		return 0;
	if (!record_begin(ctx, &w, &s, URGENT, EVENT_cgroup_attach_task, 3, 2 * BLOB_ROOM))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	a[1] = KREAD(u32, task + KERNEL_task_struct_pid);
	blob_string(&w, 0, path, false);
	blob_string(&w, 1, task + KERNEL_task_struct_comm, false);
	record_end(ctx, &w);
	return 0;
}
#endif
