/*
 * path.h - the path of a file, from the kernel's own objects. bpf_d_path() is not allowed in raw
 * tracepoints, so dentries are walked by hand, and mounts where a dentry is its mount's root, up to the
 * root of the mount namespace:
 *
 *   blob   leaf NUL, its directory NUL, ... "/" NUL      what has no directory (memfd) lacks the "/"
 *   whole  bytes up to where the process's own root was met, plus 1; 0 if that is the namespace's root,
 *          ROOT_NOT_MET if the file is not below the process's root
 *
 * Nothing is locked. A second walk, over sequence numbers alone, must see what the first saw: every
 * rename moves the d_seq of the dentry that it touches (__d_move() in fs/dcache.c). If it does not, the
 * blob says BLOB_RACED, and its bytes are not to be believed. The position is kept in the blob, not in a
 * variable: what the verifier cannot follow, it cannot multiply its states by.
 */
#define PATH_COMPONENTS 48
#define PATH_ROOM (4096 + COMPONENT_BYTES + sizeof(struct blob))
#define DENTRY_HEAD (KERNEL_dentry_d_name_name + 8)
#define ROOT_NOT_MET 0xffffffff
#define MOUNT_HEAD (KERNEL_mount_mnt + KERNEL_vfsmount_mnt_root + 8)

struct place {
	u64 dentry;
	u64 mount; /* struct mount, not the vfsmount in it */
};

/* What a walk needs of one dentry and one mount, each read by one call. */
union dentry_head {
	char bytes[DENTRY_HEAD];
	u64 words[DENTRY_HEAD / 8];
};

union mount_head {
	char bytes[MOUNT_HEAD];
	u64 words[MOUNT_HEAD / 8];
};

/* Of a struct path anywhere. */
static __always_inline struct place place_of(u64 path)
{
	u64 words[2] = {}; /* all that a struct path is: a mount and a dentry */
	bpf_probe_read_kernel(words, sizeof(words), (void *)path);
	struct place p = {
		.dentry = words[KERNEL_path_dentry / 8],
		.mount = words[KERNEL_path_mnt / 8] - KERNEL_mount_mnt,
	};
	return p;
}

/* Of the struct path at an offset in the fs_struct of a task that the verifier knows. */
#define TASK_PLACE(task, offset)                                                                           \
	({                                                                                                 \
		u64 fs_ = LOAD8(task, KERNEL_task_struct_fs);                                              \
		(struct place){                                                                            \
			.dentry = LOAD8(fs_, (offset) + KERNEL_path_dentry),                               \
			.mount = LOAD8(fs_, (offset) + KERNEL_path_mnt) - KERNEL_mount_mnt,                \
		};                                                                                         \
	})

static __always_inline struct place task_root(u64 task)
{
	return TASK_PLACE(task, KERNEL_fs_struct_root);
}

static __always_inline struct place task_cwd(u64 task)
{
	return TASK_PLACE(task, KERNEL_fs_struct_pwd);
}

/* One step up. `name` is 0 where a mount was left; false at the top. */
static __always_inline bool step_up(struct place *at, union mount_head *m, u64 *seen, u64 *name)
{
	union dentry_head d = {};
	bpf_probe_read_kernel(&d, sizeof(d), (void *)at->dentry);
	u64 parent = FIELD(&d, u64, KERNEL_dentry_d_parent);
	*seen = *seen * 31 + at->dentry + FIELD(&d, u32, KERNEL_dentry_d_seq);
	*name = FIELD(&d, u64, KERNEL_dentry_d_name_name);
	if (at->dentry != FIELD(m, u64, KERNEL_mount_mnt + KERNEL_vfsmount_mnt_root)) {
		if (at->dentry == parent)
			return false;
		at->dentry = parent;
		return true;
	}
	*name = 0;
	u64 above = FIELD(m, u64, KERNEL_mount_mnt_parent);
	if (above == at->mount)
		return false;
	at->dentry = FIELD(m, u64, KERNEL_mount_mnt_mountpoint);
	at->mount = above;
	*seen = *seen * 31 + above + at->dentry;
	bpf_probe_read_kernel(m, sizeof(*m), (void *)above);
	return true;
}

static __always_inline u64 walked_again(struct place at)
{
	u64 seen = 0, name;
	union mount_head m = {};
	bpf_probe_read_kernel(&m, sizeof(m), (void *)at.mount);
	for (int i = 0; i < PATH_COMPONENTS; i++)
		if (!step_up(&at, &m, &seen, &name))
			break;
	return seen;
}

static __always_inline void blob_path(struct writer *w, u32 arg, struct place at, struct place root)
{
	struct blob *b = blob_begin(w, arg, PATH_ROOM);
	if (!b)
		return;
	struct place from = at;
	u32 status = BLOB_CUT, own = ROOT_NOT_MET;
	u64 seen = 0, name = 0;
	char *data = (char *)(b + 1);
	union mount_head m = {};
	bpf_probe_read_kernel(&m, sizeof(m), (void *)at.mount);
	for (int i = 0; i < PATH_COMPONENTS; i++) {
		u64 end = *(volatile u32 *)&b->whole;
		if (end > 4096 - COMPONENT_BYTES)
			break;
		if (at.dentry == root.dentry && at.mount == root.mount)
			own = end + 1;
		bool more = step_up(&at, &m, &seen, &name);
		if (name) {
			long n = bpf_probe_read_kernel_str(data + end, COMPONENT_BYTES, (void *)name);
			if (n <= 0) {
				status = BLOB_FAULT;
				break;
			}
			*(volatile u32 *)&b->whole = end + n;
		} else if (!more) {
			data[end] = '/';
			data[end + 1] = 0;
			*(volatile u32 *)&b->whole = end + 2;
		}
		if (!more) {
			status = BLOB_OK;
			break;
		}
	}
	u32 bytes = b->whole;
	if (status == BLOB_OK && walked_again(from) != seen) {
		status = BLOB_RACED;
		bytes = 0;
	}
	/* nothing but the "/" behind it: the namespace's root is the process's own */
	b->whole = own + 1 == bytes ? 0 : own;
	if (b->whole && status == BLOB_OK)
		w->head->flags |= HEAD_OWN_ROOT;
	blob_end(w, b, bytes, status | SOURCE_KERNEL);
}

/*
 * Walks are long, and the verifier would look at each where it stands: they are done by one program, which
 * also ends the record. A program says which paths belong to its record, and leaves by record_walk().
 */
static __always_inline void path_later(struct walks *j, u32 arg, struct place at)
{
	u32 i = j->count;
	if (i >= WALKS)
		return;
	j->walk[i].arg = arg;
	j->walk[i].dentry = at.dentry;
	j->walk[i].mount = at.mount;
	j->count = i + 1;
}

/* This CPU's list of walks, empty. */
static __always_inline struct walks *walks_begin(void)
{
	u32 zero = 0;
	struct walks *j = walks.lookup(&zero);
	if (j)
		j->count = 0;
	return j;
}

/* Walk, end the record, and go on with program `then` (0: with none). Comes back only if it cannot. */
static __always_inline void record_walk(void *ctx, struct writer *w, struct walks *j, u32 then)
{
	if (j) {
		j->slot = w->slot;
		j->start = w->start;
		j->then = then;
		objects.call(ctx, PROGRAM_walk);
	}
	record_end(ctx, w);
}

int on_walk(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0, cpu = bpf_get_smp_processor_id();
	struct walks *j = walks.lookup(&zero);
	if (!j)
		return 0;
	struct writer w = {.slot = j->slot, .start = j->start};
	u32 at = cpu * SLOTS + w.slot, slot = w.slot, start = w.start;
	w.mark = marks.lookup(&at);
	w.frame = frames.lookup(&slot);
	OPAQUE(start);
	if (!w.mark || !w.frame || start > CELLS_BYTES - RECORD_CELLS * CELL_BYTES)
		return 0;
	w.head = (struct head *)(w.frame->cells + start);
	w.event = w.head->event;
	struct place root = task_root(current_task_btf());
	for (int i = 0; i < WALKS; i++) {
		if (i >= j->count)
			break;
		struct place from = {.dentry = j->walk[i].dentry, .mount = j->walk[i].mount};
		blob_path(&w, j->walk[i].arg, from, root);
	}
#ifdef EARLY
	if (w.slot != FACTS && !record_wanted(w.head, w.event))
		record_take_back(&w);
	else
#endif
		record_end(ctx, &w);
	if (j->then)
		objects.call(ctx, j->then);
	return 0;
}
