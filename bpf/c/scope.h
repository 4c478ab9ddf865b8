/*
 * scope.h - which tasks are traced. The loader generates scope_terms() from the scope expressions
 * (bpf/programs/scope.py), a C condition on the accessors below, and inserts it at SCOPE_TERMS.
 *
 * With policies, a task must also be in the scope of at least one of them. policy_terms() and
 * policy_containers(), generated in the same way, return a mask of those (decisions/0056). Each event
 * has a mask of the policies that ask for it, and is recorded if the two have a bit in common.
 */
struct subject {
	u64 task;
	u32 tgid;
	u32 tid;
	u32 flags; /* of its thread group */
	u32 head_flags; /* flags of every record of the task */
#ifdef POLICIES
	u64 policies; /* mask of the policies whose scope the task is in */
	u64 in_run; /* whether it is in the scope of the run, which limits all policies */
#endif
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

/* 1 if the value is not 0, without a branch: the verifier would follow each of them. */
static __always_inline u64 is_set(u64 value)
{
	u64 negative = -value;
	OPAQUE(negative);
	return (value | negative) >> 63;
}

/* The name of a task, for globs. */
struct comm_text {
	u64 words[2]; /* zero behind the name */
	u64 bytes;
};

static __always_inline void comm_read(struct comm_text *t, u64 task)
{
	u64 open = ~0ULL;
	t->words[0] = up_to_nul(LOAD8(task, KERNEL_task_struct_comm), &open);
	t->words[1] = up_to_nul(LOAD8(task, KERNEL_task_struct_comm + 8), &open);
	t->bytes = 0;
#pragma unroll
	for (u32 i = 0; i < 16; i++)
		t->bytes += is_set(t->words[i / 8] >> 8 * (i % 8) & 0xff);
}

/*
 * One part of a glob. `at` has a bit for each place in the name that the parts before can have led
 * to; returns the same for the places behind this part. Behind a star, every later place will do.
 * With `ends`, the name must end there. A byte whose mask is 0 can be any.
 */
static __always_inline u64 comm_next(const struct comm_text *t, u64 at, bool star, bool ends, u32 bytes, u64 first,
				     u64 first_mask, u64 second, u64 second_mask)
{
	u64 hits = 0, low = t->words[0], high = t->words[1];
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < 16; i++) {
		hits |= (1 - is_set(((low & first_mask) ^ first) | ((high & second_mask) ^ second))) << i;
		low = low >> 8 | high << 56;
		high >>= 8;
	}
	/* the places with enough of the name behind them; bytes can be more than there are */
	u64 fits = ((1ULL << (t->bytes + 17 - bytes)) - 1) >> 16;
	if (star)
		at |= -at;
	if (ends)
		fits &= ~(fits >> 1);
	return (hits & fits & at) << bytes;
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

#ifdef POLICIES
/* Where the mask of policies is collected. A program that interrupts this one has the same task, and so the same mask. */
static __always_inline u64 *policies_found(void)
{
	u32 zero = 0;
	struct group_cache *c = group_caches.lookup(&zero);
	return c ? &c->found : 0;
}
#endif

SCOPE_CONTAINER

#if defined(SCOPE_CONTAINERS) || defined(POLICY_CONTAINERS)
/* The conditions on containers, cached per CPU. */
static __always_inline struct container_cache *container_verdicts(u64 task)
{
	u32 zero = 0;
	u64 id = task_cgroup_id(task);
	struct status *st = status.lookup(&zero);
	struct container_cache *c = container_caches.lookup(&zero);
	if (!st || !c)
		return 0;
	u64 epoch = *(volatile u64 *)&st->containers_epoch;
	if (c->cgroup_id != id || c->epoch != epoch) {
		struct container *k = containers.lookup(&id), *root = k ? container_root(k, id) : 0;
#ifdef SCOPE_CONTAINERS
		c->verdict = scope_container(k, root);
#endif
#ifdef POLICY_CONTAINERS
		c->policies = policy_containers(k, root);
#endif
		c->cgroup_id = id;
		c->epoch = epoch;
	}
	return c;
}
#endif

#ifdef SCOPE_CONTAINERS
static __always_inline bool container_in_scope(u64 task)
{
	struct container_cache *c = container_verdicts(task);
	return c && c->verdict;
}
#endif

#ifdef POLICY_GROUPS
/* What the policies' trees and `follow` say about the thread group that group_flags() looked up last. */
static __always_inline struct policy_group *policy_group(void)
{
	u32 zero = 0;
	struct group_cache *c = group_caches.lookup(&zero);
	return c ? &c->policies : 0;
}

static __always_inline bool in_policy_tree(u64 policy)
{
	struct policy_group *g = policy_group();
	return g && (g->trees & policy);
}

static __always_inline bool in_other_tree(u64 policy)
{
	struct policy_group *g = policy_group();
	return g && (g->excluded & policy);
}
#endif

SCOPE_TERMS

/* True if the task is in the scope of the run. */
static __always_inline bool in_run(struct subject *s)
{
	bool in = (s->flags & GROUP_FOLLOWED) || scope_terms(s);
#ifdef POLICIES
	s->in_run = in;
#endif
	return in;
}

#ifdef POLICIES
/* Fill in the subject's policies. Returns false if there are none. */
static __always_inline bool in_policies(struct subject *s)
{
	u64 found = policy_terms(s);
#ifdef POLICY_CONTAINERS
	struct container_cache *c = container_verdicts(s->task);
	found &= c ? c->policies | ~POLICY_CONTAINERS : ~POLICY_CONTAINERS;
#endif
#ifdef POLICY_GROUPS
	struct policy_group *g = policy_group();
	if (g)
		found |= g->followed;
#endif
	s->policies = found;
	return found != 0;
}

/* True if one of the subject's policies asks for the event. */
static __always_inline bool policies_want(const struct subject *s, u32 event)
{
	u64 *asked = policy_events.lookup(&event);
	return asked && (*asked & s->policies);
}

/* For events that are not about a task: they belong to every policy that asks for them. */
static __always_inline void in_all_policies(struct subject *s)
{
	s->policies = ~0ULL;
}
#else
static __always_inline bool in_policies(struct subject *s)
{
	return true;
}

static __always_inline bool policies_want(const struct subject *s, u32 event)
{
	return true;
}

static __always_inline void in_all_policies(struct subject *s)
{
}
#endif

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
#ifdef POLICY_GROUPS
	struct policy_group *kept = policy_groups.lookup(&tgid);
	if (kept)
		c->policies = *kept;
	else
		__builtin_memset(&c->policies, 0, sizeof(c->policies));
#endif
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
#ifdef POLICIES
	s->policies = 0;
	s->in_run = 0;
#endif
	if (s->flags & GROUP_OWN)
		return false;
	return in_run(s) && in_policies(s);
}
