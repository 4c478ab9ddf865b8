/*
 * cgroup.c - cgroups created, removed and entered, and the containers that they belong to. A scope
 * of containers applies to the container that an event is about, any other scope to the current
 * task. The same holds for each policy.
 */
static __always_inline bool of_hierarchy(u64 cgroup)
{
	u64 root = KREAD(u64, cgroup + KERNEL_cgroup_root);
	return KREAD(u32, root + KERNEL_cgroup_root_hierarchy_id) == CGROUP_HIERARCHY;
}

static __always_inline u64 node_id(u64 node)
{
	return KREAD(u64, node + KERNEL_kernfs_node_id);
}

static __always_inline bool container_wanted(struct subject *s, struct container *k)
{
	bool in = in_scope(s, current_task_btf()) && !(s->flags & GROUP_ARMED);
#ifdef SCOPE_CONTAINERS
	in = scope_container(k, k);
#endif
#ifdef POLICY_CONTAINERS
	s->policies = (s->policies & ~POLICY_CONTAINERS) | (policy_containers(k, k) & POLICY_CONTAINERS);
	in = s->policies != 0;
#endif
	return in;
}

/* The container id as text. Same format as shown_id() in workers/enrich/containers.py. */
static __always_inline void blob_container(struct writer *w, u32 arg, const struct container *k)
{
	struct blob *b = blob_begin(w, arg, sizeof(struct blob) + ID_HEX);
	if (!b)
		return;
	char *text = (char *)(b + 1);
	bool plain = k->runtime == RUNTIME_LXC || k->runtime == RUNTIME_BUILDKIT, ecs = k->runtime == RUNTIME_ECS;
	u32 bytes = 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < ID_HEX; i++) {
		u8 byte = k->id[(i / 2) & 31], digit = i & 1 ? byte & 15 : byte >> 4;
		u8 shown = digit < 10 ? '0' + digit : 'a' + digit - 10;
		if (plain)
			shown = i < ID_BYTES ? k->id[i & 31] : 0;
		if (ecs && i >= ECS_HEX)
			shown = i == ECS_HEX ? '-' : i <= ECS_HEX + 16 ? k->id[(i - ECS_HEX - 1 + 16) & 31] : 0;
		text[i & (ID_HEX - 1)] = shown;
		bytes += shown != 0;
	}
	blob_end(w, b, bytes, BLOB_OK | SOURCE_KERNEL);
}

static __always_inline void blob_runtime(struct writer *w, u32 arg, u8 runtime)
{
	struct blob *b = blob_begin(w, arg, sizeof(struct blob) + 16);
	if (!b)
		return;
	u64 *to = (u64 *)(b + 1);
	u32 bytes = 0;
	to[0] = to[1] = 0;
	if (runtime == RUNTIME_DOCKER)
		bytes = 6, to[0] = TEXT8('d', 'o', 'c', 'k', 'e', 'r', 0, 0);
	else if (runtime == RUNTIME_CONTAINERD)
		bytes = 10, to[0] = TEXT8('c', 'o', 'n', 't', 'a', 'i', 'n', 'e'), to[1] = 'r' | 'd' << 8;
	else if (runtime == RUNTIME_CRIO)
		bytes = 4, to[0] = TEXT8('c', 'r', 'i', 'o', 0, 0, 0, 0);
	else if (runtime == RUNTIME_PODMAN)
		bytes = 6, to[0] = TEXT8('p', 'o', 'd', 'm', 'a', 'n', 0, 0);
	else if (runtime == RUNTIME_LXC)
		bytes = 3, to[0] = TEXT8('l', 'x', 'c', 0, 0, 0, 0, 0);
	else if (runtime == RUNTIME_BUILDKIT)
		bytes = 8, to[0] = TEXT8('b', 'u', 'i', 'l', 'd', 'k', 'i', 't');
	else if (runtime == RUNTIME_ECS)
		bytes = 3, to[0] = TEXT8('e', 'c', 's', 0, 0, 0, 0, 0);
	blob_end(w, b, bytes, BLOB_OK | SOURCE_KERNEL);
}

#define CONTAINER_ROOM 256
static __always_inline void container_made(void *ctx, const struct subject *s, u16 event, const struct container *k)
{
	struct writer w;
	if (!record_begin(ctx, &w, s, URGENT, event, 8, CONTAINER_ROOM))
		return;
	u64 *a = (u64 *)(w.head + 1);
	a[1] = k->ctime_ns;
	a[2] = a[3] = a[4] = a[5] = a[6] = 0;
	blob_runtime(&w, 0, k->runtime);
	blob_container(&w, 1, k);
	record_end(ctx, &w);
}

/*
 * Report a cgroup that existed before headrace. The loader runs this program for each one, from the
 * root down.
 */
int enter_cgroup(struct bpf_raw_tracepoint_args *ctx)
{
	STAY;
	u64 id = ctx->args[0];
	struct container *k = container_enter(id, ctx->args[1], ctx->args[2], ctx->args[3], true, CONTAINER_EXISTING,
					      ctx->args[4]);
#ifdef EVENT_existing_container
	struct subject s;
	if (k && k->root == id && k->state == CONTAINER_EXISTING && container_wanted(&s, k))
		container_made(ctx, &s, EVENT_existing_container, k);
#endif
	LEAVE;
	return 0;
}

static __always_inline void write_cgroup(void *ctx, u16 event, u64 cgroup, u64 path)
{
	struct writer w;
	if (!event_begin(ctx, &w, true, event, 3, BLOB_ROOM))
		return;
	u64 *a = (u64 *)(w.head + 1);
	u64 root = KREAD(u64, cgroup + KERNEL_cgroup_root);
	w.head->arg0 = node_id(cgroup_node(cgroup));
	a[1] = KREAD(u32, root + KERNEL_cgroup_root_hierarchy_id);
	blob_string(&w, 1, path, false);
	record_end(ctx, &w);
}

static __always_inline void cgroup_made(struct bpf_raw_tracepoint_args *ctx)
{
	u64 cgroup = ctx->args[0];
#ifdef EVENT_cgroup_mkdir
	write_cgroup(ctx, EVENT_cgroup_mkdir, cgroup, ctx->args[1]);
#endif
	u32 zero = 0;
	struct status *st = status.lookup(&zero);
	if (!of_hierarchy(cgroup) || !st)
		return;
	u64 node = cgroup_node(cgroup), above = cgroup_parent_node(cgroup), id = node_id(node);
	struct container *k = container_enter(id, node_id(above), KREAD(u64, node + KERNEL_kernfs_node_name),
					      KREAD(u64, above + KERNEL_kernfs_node_name), false, CONTAINER_CREATED,
					      ktime_boot_ns() + st->boot_epoch_ns);
#ifdef EVENT_container_create
	struct subject s;
	if (k && k->root == id && container_wanted(&s, k))
		container_made(ctx, &s, EVENT_container_create, k);
#endif
}

int on_cgroup_mkdir(struct bpf_raw_tracepoint_args *ctx)
{
	STAY;
	cgroup_made(ctx);
	LEAVE;
	return 0;
}

static __always_inline void cgroup_removed(struct bpf_raw_tracepoint_args *ctx)
{
	u64 cgroup = ctx->args[0];
#ifdef EVENT_cgroup_rmdir
	write_cgroup(ctx, EVENT_cgroup_rmdir, cgroup, ctx->args[1]);
#endif
	if (!of_hierarchy(cgroup))
		return;
	u64 id = node_id(cgroup_node(cgroup));
#ifdef EVENT_container_remove
	struct subject s;
	struct writer w;
	struct container *k = containers.lookup(&id);
	if (k && k->root == id && container_wanted(&s, k) &&
	    record_begin(ctx, &w, &s, URGENT, EVENT_container_remove, 2, CONTAINER_ROOM)) {
		blob_runtime(&w, 0, k->runtime);
		blob_container(&w, 1, k);
		record_end(ctx, &w);
	}
#endif
	if (!containers.delete(&id))
		containers_changed();
}

int on_cgroup_rmdir(struct bpf_raw_tracepoint_args *ctx)
{
	STAY;
	cgroup_removed(ctx);
	LEAVE;
	return 0;
}

#ifdef EVENT_cgroup_attach_task
static __always_inline void cgroup_attached(struct bpf_raw_tracepoint_args *ctx)
{
	struct writer w;
	u64 path = ctx->args[1], task = ctx->args[2];
	if (!event_begin(ctx, &w, true, EVENT_cgroup_attach_task, 3, 2 * BLOB_ROOM))
		return;
	u64 *a = (u64 *)(w.head + 1);
	a[1] = KREAD(u32, task + KERNEL_task_struct_pid);
	blob_string(&w, 0, path, false);
	blob_string(&w, 1, task + KERNEL_task_struct_comm, false);
	record_end(ctx, &w);
}

int on_cgroup_attach_task(struct bpf_raw_tracepoint_args *ctx)
{
	STAY;
	cgroup_attached(ctx);
	LEAVE;
	return 0;
}
#endif
