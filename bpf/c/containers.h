/*
 * containers.h - which container a control group belongs to. `containers` has an entry for each group of
 * a container and for all groups below it: entered by cgroup_mkdir, before the first process can be in it,
 * and at the start of headrace for those that exist (enter_cgroup). The innermost container wins.
 *
 * One hierarchy counts, chosen at the start (bpf/cgroups.py): version 2 if it has the controllers, else
 * that of one controller of version 1, where containers have their groups even if they all share the
 * root of version 2.
 */
#define ID_HEX 64
#define SUFFIX ".scope"
#define NAME_BYTES (ID_HEX + sizeof(SUFFIX))

/* The struct cgroup of a task, and its id. */
static __always_inline u64 task_cgroup(u64 task)
{
	u64 set = LOAD8(task, KERNEL_task_struct_cgroups);
#ifdef CGROUP_CONTROLLER
	u64 css = LOAD8(set, KERNEL_css_set_subsys + CGROUP_CONTROLLER * 8);
	return LOAD8(css, KERNEL_cgroup_subsys_state_cgroup);
#else
	return LOAD8(set, KERNEL_css_set_dfl_cgrp);
#endif
}

static __always_inline u64 task_cgroup_id(u64 task)
{
	return LOAD8(LOAD8(task_cgroup(task), KERNEL_cgroup_kn), KERNEL_kernfs_node_id);
}

static __always_inline u64 cgroup_node(u64 cgroup)
{
	return KREAD(u64, cgroup + KERNEL_cgroup_kn);
}

static __always_inline u64 cgroup_parent_node(u64 cgroup)
{
	u64 css = KREAD(u64, cgroup + KERNEL_cgroup_self + KERNEL_cgroup_subsys_state_parent);
	return css ? cgroup_node(KREAD(u64, css + KERNEL_cgroup_subsys_state_cgroup)) : 0;
}

/* The container's own entry, where its state is kept; `k` may be that of a group below. */
static __always_inline struct container *container_root(struct container *k, u64 id)
{
	return k->root == id ? k : containers.lookup(&k->root);
}

static __always_inline void containers_changed(void)
{
	u32 zero = 0;
	struct status *st = status.lookup(&zero);
	if (st)
		__sync_fetch_and_add(&st->containers_epoch, 1);
}

#define TEXT8(a, b, c, d, e, f, g, h)                                                                                  \
	((u64)(a) | (u64)(b) << 8 | (u64)(c) << 16 | (u64)(d) << 24 | (u64)(e) << 32 | (u64)(f) << 40 |               \
	 (u64)(g) << 48 | (u64)(h) << 56)
#define IS(word, bytes, ...) (((word) & (~0ULL >> (64 - 8 * (bytes)))) == TEXT8(__VA_ARGS__))

/* Whose groups begin like this, and with how many bytes before the id. */
static __always_inline enum runtime runtime_of(const u64 *name, u32 *prefix)
{
	if (IS(name[0], 7, 'd', 'o', 'c', 'k', 'e', 'r', '-', 0)) {
		*prefix = 7;
		return RUNTIME_DOCKER;
	}
	if (IS(name[0], 8, 'c', 'r', 'i', '-', 'c', 'o', 'n', 't') &&
	    IS(name[1], 7, 'a', 'i', 'n', 'e', 'r', 'd', '-', 0)) {
		*prefix = 15;
		return RUNTIME_CONTAINERD;
	}
	if (IS(name[0], 5, 'c', 'r', 'i', 'o', '-', 0, 0, 0)) {
		*prefix = 5;
		return RUNTIME_CRIO;
	}
	if (IS(name[0], 7, 'l', 'i', 'b', 'p', 'o', 'd', '-', 0)) {
		*prefix = 7;
		return RUNTIME_PODMAN;
	}
	*prefix = 0;
	return RUNTIME_UNKNOWN;
}

/* The runtime of a group whose name is a bare id, by the name of the group above it. */
static __always_inline enum runtime runtime_above(const u64 *name)
{
	if (IS(name[0], 7, 'd', 'o', 'c', 'k', 'e', 'r', 0, 0))
		return RUNTIME_DOCKER;
	if (IS(name[0], 3, 'p', 'o', 'd', 0, 0, 0, 0, 0) || IS(name[0], 8, 'k', 'u', 'b', 'e', 'p', 'o', 'd', 's'))
		return RUNTIME_CONTAINERD;
	return RUNTIME_UNKNOWN;
}

static __always_inline long read_name(void *to, u32 bytes, u64 from, bool user)
{
	return user ? bpf_probe_read_user_str(to, bytes, (void *)from) : bpf_probe_read_kernel_str(to, bytes, (void *)from);
}

/* The value of a digit, above 15 if it is none. */
static __always_inline u32 hex_digit(u8 c)
{
	u64 digit = (u64)c - '0', letter = (u64)c - 'a';
	u64 is_digit = LESS(digit, 10), is_letter = LESS(letter, 6);
	return is_digit * digit + is_letter * (letter + 10) + (1 - is_digit - is_letter) * 16;
}

/* 64 hexadecimal digits, in lower case, as 32 bytes; false if there is another character. */
static __always_inline bool read_hex(u8 *to, const char *text)
{
	u32 bad = 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < ID_HEX; i += 2) {
		u32 high = hex_digit(text[i & (ID_HEX - 1)]), low = hex_digit(text[(i + 1) & (ID_HEX - 1)]);
		bad |= high | low;
		to[(i / 2) & 31] = high << 4 | low;
	}
	bad &= ~15;
	return !bad;
}

/*
 * What the name of a group says: [docker-|cri-containerd-|crio-|libpod-]<64 digits>[.scope]. The scopes of
 * conmon, pod slices and all else are none.
 */
static __always_inline bool container_named(struct container_scratch *c, u64 name, u64 above, bool user)
{
	u32 prefix = 0;
	c->name[0] = c->name[1] = 0;
	if (read_name(c->name, 16, name, user) < 0)
		return false;
	c->container.runtime = runtime_of(c->name, &prefix);
	long bytes = read_name(c->name, NAME_BYTES + 1, name + prefix, user);
	bool scope = bytes == NAME_BYTES && IS(c->name[8], 6, '.', 's', 'c', 'o', 'p', 'e', 0, 0);
	if ((!scope && bytes != ID_HEX + 1) || (scope && !prefix))
		return false;
	if (!read_hex(c->container.id, (char *)c->name))
		return false;
	if (!prefix) {
		c->name[0] = c->name[1] = 0;
		read_name(c->name, 16, above, user);
		c->container.runtime = runtime_above(c->name);
	}
	return true;
}

/* Enter a group if it is a container's or below one; its entry, or 0. */
static __always_inline struct container *container_enter(u64 id, u64 above_id, u64 name, u64 above, bool user,
							 u8 state, u64 ctime_ns)
{
	u32 zero = 0;
	struct container_scratch *c = container_scratches.lookup(&zero);
	if (!c)
		return 0;
	c->container.root = id;
	c->container.ctime_ns = ctime_ns;
	c->container.state = state;
	if (!container_named(c, name, above, user)) {
		struct container *outer = containers.lookup(&above_id);
		if (!outer)
			return 0;
		__builtin_memcpy(&c->container, outer, sizeof(c->container));
	}
	if (containers.insert(&id, &c->container)) {
		struct status *st = status.lookup(&zero);
		if (st && !containers.lookup(&id))
			__sync_fetch_and_add(&st->containers_overflow, 1);
	}
	containers_changed();
	return containers.lookup(&id);
}

/* An image was run: a container's first in a mount namespace other than its parent's has started it. */
static __always_inline bool container_started(u64 task)
{
	u64 id = task_cgroup_id(task);
	struct container *k = containers.lookup(&id);
	k = k ? container_root(k, id) : 0;
	if (!k || k->state != CONTAINER_CREATED)
		return false;
	u64 parent = KREAD(u64, task + KERNEL_task_struct_real_parent);
	u64 above = KREAD(u64, KREAD(u64, parent + KERNEL_task_struct_nsproxy) + KERNEL_nsproxy_mnt_ns);
	if (KREAD(u64, KREAD(u64, task + KERNEL_task_struct_nsproxy) + KERNEL_nsproxy_mnt_ns) == above)
		return false;
	k->state = CONTAINER_STARTED;
	containers_changed();
	return true;
}
