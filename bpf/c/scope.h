/*
 * scope.h - which tasks are traced. The loader generates scope_terms() from the scope expressions
 * (bpf/programs/scope.py), a C condition on the accessors below, and inserts it at SCOPE_TERMS.
 */
struct subject {
	u64 task;
	u32 tgid;
	u32 tid;
	u32 flags; /* of its thread group */
	u32 head_flags; /* flags of every record of the task */
};

static __always_inline u32 task_uid(u64 task)
{
	return LOAD4(LOAD8(task, KERNEL_task_struct_cred), KERNEL_cred_uid);
}

static __always_inline u32 task_gid(u64 task)
{
	return LOAD4(LOAD8(task, KERNEL_task_struct_cred), KERNEL_cred_gid);
}

static __always_inline u32 task_mntns(u64 task)
{
	u64 ns = LOAD8(LOAD8(task, KERNEL_task_struct_nsproxy), KERNEL_nsproxy_mnt_ns);
	return LOAD4(ns, KERNEL_mnt_namespace_ns_inum);
}

static __always_inline u32 task_utsns(u64 task)
{
	u64 ns = LOAD8(LOAD8(task, KERNEL_task_struct_nsproxy), KERNEL_nsproxy_uts_ns);
	return LOAD4(ns, KERNEL_uts_namespace_ns_inum);
}

static __always_inline u32 task_pidns(u64 task)
{
	u64 pid = LOAD8(task, KERNEL_task_struct_thread_pid);
	u32 level = LOAD4(pid, KERNEL_pid_level);
	u64 ns = KREAD(u64, pid + KERNEL_pid_numbers + level * KERNEL_upid_size + KERNEL_upid_ns);
	return KREAD(u32, ns + KERNEL_pid_namespace_ns_inum);
}

static __always_inline bool task_comm_is(u64 task, u64 first, u64 second)
{
	u64 open = ~0ULL;
	return up_to_nul(LOAD8(task, KERNEL_task_struct_comm), &open) == first &&
	       up_to_nul(LOAD8(task, KERNEL_task_struct_comm + 8), &open) == second;
}

/* The same for the bits that the masks select: names that begin with a text. */
static __always_inline bool task_comm_begins(u64 task, u64 first, u64 first_mask, u64 second, u64 second_mask)
{
	return (LOAD8(task, KERNEL_task_struct_comm) & first_mask) == first &&
	       (LOAD8(task, KERNEL_task_struct_comm + 8) & second_mask) == second;
}

static __always_inline bool task_nodename_is(u64 task, const char *name, u32 bytes)
{
	char node[64] = {};
	u64 ns = LOAD8(LOAD8(task, KERNEL_task_struct_nsproxy), KERNEL_nsproxy_uts_ns);
	bpf_probe_read_kernel(node, sizeof(node), (void *)(ns + KERNEL_uts_namespace_name_nodename));
#pragma unroll
	for (int i = 0; i < 64; i++) {
		if (i >= bytes)
			break;
		if (node[i] != name[i])
			return false;
	}
	return true;
}

static __always_inline bool task_exe_is(u64 task, u64 inode_number, u32 device)
{
	u64 mm = LOAD8(task, KERNEL_task_struct_mm);
	u64 file = KREAD(u64, mm + KERNEL_mm_struct_exe_file);
	u64 inode = KREAD(u64, file + KERNEL_file_f_inode);
	u64 sb = KREAD(u64, inode + KERNEL_inode_i_sb);
	return inode && KREAD(u64, inode + KERNEL_inode_i_ino) == inode_number &&
	       KREAD(u32, sb + KERNEL_super_block_s_dev) == device;
}

SCOPE_CONTAINER

#ifdef SCOPE_CONTAINERS
/* The scope's conditions on containers, cached per CPU. */
static __always_inline bool container_in_scope(u64 task)
{
	u32 zero = 0;
	u64 id = task_cgroup_id(task);
	struct status *st = status.lookup(&zero);
	struct container_cache *c = container_caches.lookup(&zero);
	if (!st || !c)
		return false;
	u64 epoch = *(volatile u64 *)&st->containers_epoch;
	if (c->cgroup_id != id || c->epoch != epoch) {
		struct container *k = containers.lookup(&id);
		c->verdict = scope_container(k, k ? container_root(k, id) : 0);
		c->cgroup_id = id;
		c->epoch = epoch;
	}
	return c->verdict;
}
#endif

SCOPE_TERMS

/* A lookup in `groups`, cached per CPU: a hash lookup costs 60 ns a call here, a cache hit 10. */
static __always_inline u32 group_flags(u32 tgid)
{
	u32 zero = 0;
	struct status *st = status.lookup(&zero);
	struct group_cache *c = group_caches.lookup(&zero);
	if (!st || !c)
		return GROUP_OWN;
	u64 epochs = *(volatile u64 *)&st->epoch + *(volatile u64 *)&st->user_epoch;
	if (c->tgid == tgid && c->epochs == epochs)
		return c->flags;
	u32 *flags = groups.lookup(&tgid);
	c->flags = flags ? *flags : 0;
	c->told_mm = 0;
	c->tgid = tgid;
	c->epochs = epochs;
	return c->flags;
}

static __always_inline void groups_changed(void)
{
	u32 zero = 0;
	struct status *st = status.lookup(&zero);
	if (st)
		__sync_fetch_and_add(&st->epoch, 1);
}

/* True if the task is traced. `s` is filled in either case. */
static __always_inline bool in_scope(struct subject *s, u64 task)
{
	s->task = task;
	s->tgid = LOAD4(task, KERNEL_task_struct_tgid);
	s->tid = LOAD4(task, KERNEL_task_struct_pid);
	s->flags = group_flags(s->tgid);
	s->head_flags = 0;
	if (s->flags & GROUP_OWN)
		return false;
	return (s->flags & GROUP_FOLLOWED) || scope_terms(s);
}
