/*
 * path.h - the path of a file, from the kernel's own objects. bpf_d_path() is not allowed in raw
 * tracepoints. These functions walk dentries, and mounts where a dentry is its mount's root, up to
 * the root of the mount namespace:
 *
 *   blob   leaf NUL, its directory NUL, ... "/" NUL      an object without a directory (memfd) lacks the "/"
 *   whole  bytes before the process's own root, plus 1; 0 if that is the namespace's root,
 *          ROOT_NOT_MET if the file is not below the process's root
 *
 * The walk takes no lock. A second walk, over sequence numbers only, must see what the first one
 * saw: every rename changes the d_seq of the dentries that it moves (__d_move() in fs/dcache.c). On
 * a mismatch the status is BLOB_RACED and the blob is empty. The position is kept in the blob, not
 * in a variable: the verifier does not track it there, so its states do not multiply.
 */
#ifdef HAVE_LOOP
#define PATH_STEPS 4096 /* PATH_MAX of one-byte names, plus as many mounts */
#else
#define PATH_STEPS 48 /* the verifier checks each of them */
#endif
#define PATH_ROOM (4096 + COMPONENT_BYTES + sizeof(struct blob))
#define DENTRY_HEAD (KERNEL_dentry_d_name_name + 8)
#define ROOT_NOT_MET 0xffffffff
#define BASE 0x80 /* added to an argument: the directory of its path */
#define MOUNT_HEAD (KERNEL_mount_mnt + KERNEL_vfsmount_mnt_root + 8)

/* The parts of a dentry and of a mount that a walk needs, each read by one helper call. */
union dentry_head {
	char bytes[DENTRY_HEAD];
	u64 words[DENTRY_HEAD / 8];
};

union mount_head {
	char bytes[MOUNT_HEAD];
	u64 words[MOUNT_HEAD / 8];
};

/* The place of a struct path at any address. */
static __always_inline struct place place_of(u64 path)
{
	u64 words[2] = {}; /* a struct path is a mount and a dentry */
	bpf_probe_read_kernel(words, sizeof(words), (void *)path);
	struct place p = {
		.dentry = words[KERNEL_path_dentry / 8],
		.mount = words[KERNEL_path_mnt / 8] - KERNEL_mount_mnt,
	};
	return p;
}

static __always_inline struct place file_place(u64 file)
{
	return place_of(file + KERNEL_file_f_path);
}

/* The place of the struct path at an offset in a task's fs_struct. The verifier must know the task. */
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

/* One step up. `name` is 0 if the step left a mount. Returns false at the top. */
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

/* State of a walk. */
struct walk {
	struct place at;
	struct place root; /* of the process */
	struct blob *blob;
	u64 seen;
	u32 own;
	u32 status;
	union mount_head mount;
};

static __always_inline void walk_from(struct walk *w, struct place at)
{
	w->at = at;
	w->seen = 0;
	bpf_probe_read_kernel(&w->mount, sizeof(w->mount), (void *)at.mount);
}

/* One step, which appends a name to the path. Returns 1 at the end. */
LOOP_BODY(path_step, struct walk *w)
{
	struct blob *b = w->blob;
	char *data = (char *)(b + 1);
	u64 end = *(volatile u32 *)&b->whole, name = 0;
	if (end > 4096)
		return 1;
	if (w->at.dentry == w->root.dentry && w->at.mount == w->root.mount)
		w->own = end + 1;
	bool more = step_up(&w->at, &w->mount, &w->seen, &name);
	if (name) {
		long n = bpf_probe_read_kernel_str(data + end, COMPONENT_BYTES, (void *)name);
		if (n <= 0) {
			w->status = BLOB_FAULT;
			return 1;
		}
		*(volatile u32 *)&b->whole = end + n;
	} else if (!more) {
		data[end] = '/';
		data[end + 1] = 0;
		*(volatile u32 *)&b->whole = end + 2;
	}
	if (more)
		return 0;
	w->status = BLOB_OK;
	return 1;
}

/* The same step of the second walk. */
LOOP_BODY(path_step_again, struct walk *w)
{
	u64 name;
	return !step_up(&w->at, &w->mount, &w->seen, &name);
}

static __always_inline void blob_path(struct writer *writer, u32 arg, struct place from, struct place root)
{
	struct blob *b = blob_begin(writer, arg, PATH_ROOM);
	if (!b)
		return;
	struct walk w = {.root = root, .blob = b, .own = ROOT_NOT_MET, .status = BLOB_CUT};
	walk_from(&w, from);
	LOOP(PATH_STEPS, path_step, &w);
	u32 bytes = b->whole, status = w.status;
	u64 seen = w.seen;
	if (status == BLOB_OK) {
		walk_from(&w, from);
		LOOP(PATH_STEPS, path_step_again, &w);
		if (w.seen != seen) {
			status = BLOB_RACED;
			bytes = 0;
		}
	}
	/* only the "/" follows: the process's root is the namespace's */
	b->whole = w.own + 1 == bytes ? 0 : w.own;
	if (b->whole && status == BLOB_OK)
		writer->head->flags |= HEAD_OWN_ROOT;
	blob_end(writer, b, bytes, status | SOURCE_KERNEL);
}
