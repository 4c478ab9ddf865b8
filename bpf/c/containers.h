/*
 * containers.h - which container a cgroup belongs to. `containers` has an entry for each
 * container's own cgroup and for all cgroups below it. cgroup_mkdir adds entries before the first
 * process can enter the cgroup; enter_cgroup adds those that exist when headrace starts. The
 * innermost container wins.
 *
 * Only one hierarchy counts, chosen at the start (bpf/host/cgroups.py): version 2 if it has the
 * controllers, else that of one version 1 controller. Containers have cgroups of their own there
 * even if they all share the root of version 2.
 */
#define ID_HEX 64
#define ID_BYTES 32
#define NAME_BYTES 256 /* NAME_MAX and a NUL */
#define ECS_HEX 32

/* The struct cgroup of a task in the chosen hierarchy. */
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

/* True if the task's version 2 ancestor cgroup at `level` (0: the root) has this id. */
static __always_inline bool task_in_cgroup(u64 task, s32 level, u64 id)
{
#ifdef HAVE_ANCESTOR
	return bpf_get_current_ancestor_cgroup_id(level) == id;
#else
	u64 cgroup = KREAD(u64, KREAD(u64, task + KERNEL_task_struct_cgroups) + KERNEL_css_set_dfl_cgrp);
	if (KREAD(s32, cgroup + KERNEL_cgroup_level) < level)
		return false;
#ifdef KERNEL_cgroup_ancestor_ids
	return KREAD(u64, cgroup + KERNEL_cgroup_ancestor_ids + level * sizeof(id)) == id;
#else
	u64 ancestor = KREAD(u64, cgroup + KERNEL_cgroup_ancestors + level * sizeof(id));
	return KREAD(u64, KREAD(u64, ancestor + KERNEL_cgroup_kn) + KERNEL_kernfs_node_id) == id;
#endif
#endif
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

/* The entry of the container's own cgroup, which holds its state. `k` may be the entry of a cgroup below. */
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

/*
 * The runtime that names cgroups PREFIX<id>. `text` starts with the prefix, which has `bytes`
 * bytes. Slices use SLICE:PREFIX:ID: then the last 16 bytes before the id (`end`) decide.
 */
static __always_inline enum runtime runtime_before(const u64 *text, u32 bytes, const u64 *end)
{
	if (bytes == 7 && IS(text[0], 7, 'd', 'o', 'c', 'k', 'e', 'r', '-', 0))
		return RUNTIME_DOCKER;
	if (bytes == 15 && IS(text[0], 8, 'c', 'r', 'i', '-', 'c', 'o', 'n', 't') &&
	    IS(text[1], 7, 'a', 'i', 'n', 'e', 'r', 'd', '-', 0))
		return RUNTIME_CONTAINERD;
	if (bytes == 8 && IS(text[0], 8, 'n', 'e', 'r', 'd', 'c', 't', 'l', '-'))
		return RUNTIME_CONTAINERD;
	if (bytes == 5 && IS(text[0], 5, 'c', 'r', 'i', 'o', '-', 0, 0, 0))
		return RUNTIME_CRIO;
	if (bytes == 7 && IS(text[0], 7, 'l', 'i', 'b', 'p', 'o', 'd', '-', 0))
		return RUNTIME_PODMAN;
	if (bytes == 15 && IS(text[0], 8, 'l', 'i', 'b', 'p', 'o', 'd', '-', 'p') &&
	    IS(text[1], 7, 'a', 'y', 'l', 'o', 'a', 'd', '-', 0))
		return RUNTIME_PODMAN;
	if (bytes < 16)
		return RUNTIME_UNKNOWN;
	if (end[0] == TEXT8(':', 'c', 'r', 'i', '-', 'c', 'o', 'n') && end[1] == TEXT8('t', 'a', 'i', 'n', 'e', 'r', 'd', ':'))
		return RUNTIME_CONTAINERD;
	if (end[1] == TEXT8(':', 'd', 'o', 'c', 'k', 'e', 'r', ':'))
		return RUNTIME_DOCKER;
	if (end[1] == TEXT8(':', 'l', 'i', 'b', 'p', 'o', 'd', ':'))
		return RUNTIME_PODMAN;
	return RUNTIME_UNKNOWN;
}

/* The runtime of a cgroup named by a bare id, from the name of its parent cgroup. */
static __always_inline enum runtime runtime_above(const u64 *name)
{
	if (IS(name[0], 7, 'd', 'o', 'c', 'k', 'e', 'r', 0, 0))
		return RUNTIME_DOCKER;
	if (IS(name[0], 3, 'p', 'o', 'd', 0, 0, 0, 0, 0) || IS(name[0], 8, 'k', 'u', 'b', 'e', 'p', 'o', 'd', 's'))
		return RUNTIME_CONTAINERD;
	return RUNTIME_UNKNOWN;
}

/* Value of a lower-case hexadecimal digit; above 15 for any other character. */
static __always_inline u32 hex_digit(u8 c)
{
	u64 digit = (u64)c - '0', letter = (u64)c - 'a';
	u64 is_digit = LESS(digit, 10), is_letter = LESS(letter, 6);
	return is_digit * digit + is_letter * (letter + 10) + (1 - is_digit - is_letter) * 16;
}

/* Convert `digits` lower-case hexadecimal digits to bytes. Returns false if any other character occurs. */
static __always_inline bool read_hex(u8 *to, const char *text, u32 digits)
{
	u32 bad = 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < digits; i += 2) {
		u32 high = hex_digit(text[i & (ID_HEX - 1)]), low = hex_digit(text[(i + 1) & (ID_HEX - 1)]);
		bad |= high | low;
		to[(i / 2) & 31] = high << 4 | low;
	}
	bad &= ~15;
	return !bad;
}

/* Use the first 32 bytes of a name as the container id. */
static __always_inline bool named_by_text(struct container_scratch *c, u64 at, bool user, u8 runtime)
{
	__builtin_memset(c->container.id, 0, ID_BYTES);
	c->container.runtime = runtime;
	/* one byte more than an id: the string read ends with a NUL */
	__builtin_memset(c->name, 0, 40);
	if (read_text(c->name, ID_BYTES + 1, at, user) <= 1)
		return false;
	__builtin_memcpy(c->container.id, c->name, ID_BYTES);
	return true;
}

/*
 * LXC and LXD: lxc.payload.NAME, or NAME below `lxc` or `lxc.payload`. BuildKit: ID below
 * `buildkit`. ECS on Fargate: 32 digits, a dash, a number. Their monitors and all other cgroups are
 * not containers.
 */
static __always_inline bool container_of_others(struct container_scratch *c, u64 name, u64 above, bool user)
{
	if (IS(c->name[0], 8, 'l', 'x', 'c', '.', 'p', 'a', 'y', 'l') && IS(c->name[1], 4, 'o', 'a', 'd', '.', 0, 0, 0, 0))
		return named_by_text(c, name + 12, user, RUNTIME_LXC);
	if (((char *)c->name)[ECS_HEX] == '-' && read_hex(c->container.id, (char *)c->name, ECS_HEX)) {
		u32 bad = 0;
		__builtin_memset(c->container.id + 16, 0, 16);
#pragma clang loop unroll(disable)
		for (u32 i = 0; i < 16; i++) {
			u8 digit = ((char *)c->name)[ECS_HEX + 1 + (i & 15)];
			if (!digit)
				break;
			bad |= !LESS(digit - '0', 10);
			c->container.id[16 + (i & 15)] = digit;
		}
		c->container.runtime = RUNTIME_ECS;
		return !bad && c->container.id[16];
	}
	c->name[0] = c->name[1] = 0;
	read_text(c->name, 16, above, user);
	if (IS(c->name[0], 8, 'b', 'u', 'i', 'l', 'd', 'k', 'i', 't') && !c->name[1])
		return named_by_text(c, name, user, RUNTIME_BUILDKIT);
	if (c->name[0] == TEXT8('l', 'x', 'c', 0, 0, 0, 0, 0) ||
	    (c->name[0] == TEXT8('l', 'x', 'c', '.', 'p', 'a', 'y', 'l') && c->name[1] == TEXT8('o', 'a', 'd', 0, 0, 0, 0, 0)))
		return named_by_text(c, name, user, RUNTIME_LXC);
	return false;
}

/*
 * Parse a cgroup name: PREFIX<64 digits>[.scope], or a form that container_of_others() knows. The
 * scopes of conmon, pod slices and all other cgroups are not containers.
 */
static __always_inline bool container_named(struct container_scratch *c, u64 name, u64 above, bool user)
{
	u64 end[2] = {}, tail = 0;
	__builtin_memset(c->name, 0, 64);
	long bytes = read_text(c->name, NAME_BYTES, name, user) - 1;
	if (bytes <= 0)
		return false;
	if (bytes >= 6)
		read_text(&tail, 7, name + bytes - 6, user);
	long before = bytes - ID_HEX - (tail == TEXT8('.', 's', 'c', 'o', 'p', 'e', 0, 0) ? 6 : 0);
	if (before < 0)
		return container_of_others(c, name, above, user);
	if (before >= 16) {
		if (user)
			bpf_probe_read_user(end, 16, (void *)(name + before - 16));
		else
			bpf_probe_read_kernel(end, 16, (void *)(name + before - 16));
	}
	c->container.runtime = runtime_before(c->name, before, end);
	if (before && c->container.runtime == RUNTIME_UNKNOWN)
		return container_of_others(c, name, above, user);
	__builtin_memset(c->name, 0, ID_HEX + 8);
	read_text(c->name, ID_HEX + 1, name + before, user);
	if (!read_hex(c->container.id, (char *)c->name, ID_HEX)) {
		__builtin_memset(c->name, 0, 64);
		read_text(c->name, 64, name, user);
		return container_of_others(c, name, above, user);
	}
	if (!before) {
		c->name[0] = c->name[1] = 0;
		read_text(c->name, 16, above, user);
		c->container.runtime = runtime_above(c->name);
	}
	return true;
}

/* Add a cgroup to `containers` if it is a container's or below one. Returns its entry, or 0. */
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

/*
 * Called at exec. The first exec in a mount namespace other than the parent's starts a created
 * container. Returns true if it did.
 */
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
