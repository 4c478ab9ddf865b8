/*
 * resolve.h - where a path leads, component by component as the kernel has just gone: in its cache of names, through
 * links and mounts. For calls that leave no object behind whose path could be asked for: rename, link, unlink ...
 *
 *   text   |......... room for targets of links .........|the path as it was passed NUL|
 *                                          ^ pos: what is still to be gone
 *
 * A component waits (`name_at`) until it is known whether it is the last, which is a name in the directory and not
 * gone into. A link's target is put before what follows it. What is not found in the cache, or cannot be followed
 * here (a link that its file system computes) ends it: the path is then text alone.
 * Whoever changes directories or links while his own call ends makes it look at what is there by then.
 */
#define RESOLVE_TEXT 4096 /* of each half */
#define RESOLVE_TURNS 12288
#define RESOLVE_LOOKS 65536 /* names and mounts that are looked at, in all */
#define RESOLVE_LINKS 40 /* as the kernel: MAXSYMLINKS */
#define S_IFMT 0170000
#define S_IFLNK 0120000
#define PROC_SUPER_MAGIC 0x9fa0

/* Names of procfs, as the first word of a component. */
#define WORD_SELF 0x666c6573ULL                /* self */
#define WORD_THREAD_SELF 0x732d646165726874ULL /* thread-s */
#define WORD_ROOT 0x746f6f72ULL                /* root */
#define WORD_CWD 0x647763ULL                   /* cwd */
#define WORD_FD 0x6466ULL                      /* fd */
#define WORD_TASK 0x2f6b7361742fULL            /* /task/ */

#if defined(HAVE_LOOP) && defined(WANT_NAMES)
static __always_inline u64 word_of(const char *text)
{
	return *(const u64 *)text;
}

LOOP_BODY(resolve_name_end, struct resolving **at)
{
	struct resolving *r = *at;
	u32 n = r->length & (COMPONENT_BYTES - 1);
	char c = r->other[n];
	if (!c || c == '/' || n == COMPONENT_BYTES - 1)
		return 1;
	r->length = n + 1;
	return 0;
}

/* The next of a list, 0 at its end. */
static __always_inline u64 next_node(struct resolving *r)
{
	u64 node = r->node;
	if (!node || node == r->head || r->looks++ >= RESOLVE_LOOKS)
		return 0;
	r->node = KREAD(u64, node);
	return node;
}

/* A name: is it the one in the directory that is looked for, and in use? */
LOOP_BODY(resolve_child, struct resolving **at)
{
	struct resolving *r = *at;
	u64 node = next_node(r);
	if (!node)
		return 1;
	u64 dentry = node - r->link;
	union dentry_head d = {};
	bpf_probe_read_kernel(&d, sizeof(d), (void *)dentry);
	u32 length = FIELD(&d, u32, DENTRY_LENGTH);
	if (length != r->length || FIELD(&d, u64, KERNEL_dentry_d_parent) != r->at.dentry ||
	    !FIELD(&d, u64, KERNEL_dentry_d_hash_pprev))
		return 0;
	u64 *name = (u64 *)r->name, *other = (u64 *)r->other, different = 0;
#pragma unroll
	for (int i = 0; i < NAME_WORDS; i++)
		other[i] = 0;
	bpf_probe_read_kernel(other, length & (COMPONENT_BYTES - 1), (void *)FIELD(&d, u64, KERNEL_dentry_d_name_name));
#pragma unroll
	for (int i = 0; i < NAME_WORDS; i++)
		different |= name[i] ^ other[i];
	if (different || !KREAD(u64, dentry + KERNEL_dentry_d_inode))
		return 0;
	r->found = dentry;
	return 1;
}

/* Whether the directory has the name, by the table of names and then by its own list. */
static __always_inline bool resolve_found(struct resolving *r)
{
	r->found = r->head = 0;
	r->node = first_of_name(r);
	r->link = DENTRY_CHAIN;
	LOOP(NAME_CHAIN, resolve_child, &r);
	if (r->found)
		return true;
	r->head = r->at.dentry + KERNEL_dentry_children;
	r->node = KREAD(u64, r->head);
	r->link = KERNEL_dentry_sibling;
	LOOP(RESOLVE_LOOKS, resolve_child, &r);
	return r->found;
}

/* A mount in the one that is looked at: is it where the walk stands? */
LOOP_BODY(resolve_mount, struct resolving **at)
{
	struct resolving *r = *at;
	u64 node = next_node(r);
	if (!node)
		return 1;
	u64 mount = node - KERNEL_mount_mnt_child;
	if (KREAD(u64, mount + KERNEL_mount_mnt_mountpoint) != r->at.dentry)
		return 0;
	r->at.mount = mount;
	r->at.dentry = KREAD(u64, mount + KERNEL_mount_mnt + KERNEL_vfsmount_mnt_root);
	r->found = 1;
	return 1;
}

/* If something is mounted where the walk stands, into that; true if so. */
static __always_inline bool resolve_mounted(struct resolving *r)
{
	if (!(KREAD(u32, r->at.dentry + KERNEL_dentry_d_flags) & KERNEL_DCACHE_MOUNTED))
		return false;
	r->head = r->at.mount + KERNEL_mount_mnt_mounts;
	r->node = KREAD(u64, r->head);
	r->found = 0;
	LOOP(RESOLVE_LOOKS, resolve_mount, &r);
	return r->found;
}

static __always_inline bool resolve_up(struct resolving *r)
{
	for (int i = 0; i < 8; i++) {
		if (r->at.dentry == r->root.dentry && r->at.mount == r->root.mount)
			return true;
		u64 top = KREAD(u64, r->at.mount + KERNEL_mount_mnt + KERNEL_vfsmount_mnt_root);
		if (r->at.dentry != top) {
			r->at.dentry = KREAD(u64, r->at.dentry + KERNEL_dentry_d_parent);
			r->mounted = 1;
			return true;
		}
		u64 above = KREAD(u64, r->at.mount + KERNEL_mount_mnt_parent);
		if (above == r->at.mount)
			return true;
		r->at.dentry = KREAD(u64, r->at.mount + KERNEL_mount_mnt_mountpoint);
		r->at.mount = above;
	}
	return false;
}

/* What goes on after the name that was taken begins with so many bytes of `target`. */
static __always_inline bool resolve_splice(struct resolving *r, u32 bytes)
{
	u32 end = r->name_at + r->length;
	if (!bytes || bytes >= RESOLVE_TEXT - 1 || end < bytes || end > 2 * RESOLVE_TEXT || r->links++ >= RESOLVE_LINKS)
		return false;
	u32 begin = end - bytes;
	OPAQUE(begin);
	begin &= 2 * RESOLVE_TEXT - 1;
	bpf_probe_read_kernel(r->text + begin, bytes & (RESOLVE_TEXT - 1), r->target);
	r->pos = begin;
	if (r->target[0] == '/')
		r->at = r->root;
	return true;
}

/* The number that a name is; -1 if it is none. */
static __always_inline s64 number_of(const char *name)
{
	s64 number = 0;
	for (int i = 0; i < 11; i++) {
		char c = ((volatile const char *)name)[i];
		if (!c)
			return i ? number : -1;
		if (c < '0' || c > '9')
			return -1;
		number = number * 10 + (c - '0');
	}
	return -1;
}

static __always_inline u32 put_number(char *text, u32 at, u32 number)
{
	u32 digits = 1, scale = 1;
	for (int i = 0; i < 9; i++)
		if (number / scale >= 10) {
			scale *= 10;
			digits++;
		}
	for (int i = 0; i < 10; i++)
		if (scale) {
			text[at++ & (COMPONENT_BYTES - 1)] = '0' + number / scale % 10;
			scale /= 10;
		}
	return at;
}

/* The process or thread in whose part of procfs an inode is; 0 if it has gone. */
static __always_inline u64 proc_task(u64 inode)
{
#if defined(KERNEL_proc_inode_pid) && defined(KERNEL_pid_tasks)
	u64 pid = KREAD(u64, inode - KERNEL_proc_inode_vfs_inode + KERNEL_proc_inode_pid);
	/* the first of tasks[PIDTYPE_PID] */
	u64 link = pid ? KREAD(u64, pid + KERNEL_pid_tasks) : 0;
	return link ? link - KERNEL_task_struct_pid_links : 0;
#else
	return 0;
#endif
}

/* The file at a descriptor of any task. */
static __always_inline u64 file_at(u64 task, u32 fd)
{
	u64 table = KREAD(u64, KREAD(u64, task + KERNEL_task_struct_files) + KERNEL_files_struct_fdt);
	if (fd >= KREAD(u32, table + KERNEL_fdtable_max_fds))
		return 0;
	return KREAD(u64, KREAD(u64, table + KERNEL_fdtable_fd) + (u64)fd * 8);
}

/* The links of procfs, which have no target but an object. */
static __always_inline bool resolve_proc(struct resolving *r, u64 inode)
{
	u64 sb = KREAD(u64, inode + KERNEL_inode_i_sb), parent = r->at.dentry;
	if (KREAD(u64, sb + KERNEL_super_block_s_magic) != PROC_SUPER_MAGIC)
		return false;
	u64 name = word_of(r->name);
	if (name == WORD_SELF && r->length == 4)
		return resolve_splice(r, put_number(r->target, 0, r->tgid));
	if (name == WORD_THREAD_SELF) {
		u32 at = put_number(r->target, 0, r->tgid) & 15;
		*(u64 *)(r->target + at) = WORD_TASK;
		return resolve_splice(r, put_number(r->target, at + 6, r->tid));
	}
	u64 task = proc_task(inode);
	if (!task)
		return false;
	if (name == WORD_ROOT || name == WORD_CWD) {
		u64 fs = KREAD(u64, task + KERNEL_task_struct_fs);
		r->at = place_of(fs + (name == WORD_ROOT ? KERNEL_fs_struct_root : KERNEL_fs_struct_pwd));
		return fs != 0;
	}
	u64 folder = KREAD(u64, KREAD(u64, parent + KERNEL_dentry_d_name_name));
	s64 fd = number_of(r->name);
	if ((folder & 0xffffff) != WORD_FD || fd < 0)
		return false;
	u64 file = file_at(task, fd);
	r->at = file_place(file);
	return file != 0;
}

/* Into the component that waited; false if it cannot be followed. */
static __always_inline bool resolve_into(struct resolving *r)
{
	u64 *name = (u64 *)r->name;
#pragma unroll
	for (int i = 0; i < NAME_WORDS; i++)
		name[i] = 0;
	u32 from = r->name_at & (2 * RESOLVE_TEXT - 1);
	bpf_probe_read_kernel(name, r->length & (COMPONENT_BYTES - 1), r->text + from);
	u64 word = word_of(r->name);
	if (word == '.')
		return true;
	if (word == ('.' | '.' << 8))
		return resolve_up(r);
	if (!resolve_found(r))
		return false;
	u64 inode = KREAD(u64, r->found + KERNEL_dentry_d_inode);
	if ((KREAD(u16, inode + KERNEL_inode_i_mode) & S_IFMT) != S_IFLNK) {
		r->at.dentry = r->found;
		r->mounted = 1;
		return true;
	}
	u64 target = KREAD(u64, inode + KERNEL_inode_i_link);
	if (!target)
		return resolve_proc(r, inode);
	long n = bpf_probe_read_kernel_str(r->target, RESOLVE_TEXT, (void *)target);
	return n > 0 && resolve_splice(r, n - 1);
}

LOOP_BODY(resolve_step, struct resolving **at)
{
	struct resolving *r = *at;
	if (r->mounted) {
		r->mounted = resolve_mounted(r);
		return 0;
	}
	u32 pos = r->pos & (2 * RESOLVE_TEXT - 1);
	char c = r->text[pos];
	if (c == '/') {
		r->pos = pos + 1;
		return pos + 1 >= 2 * RESOLVE_TEXT;
	}
	if (!c && (!r->name_at || !r->follow)) {
		r->done = 1;
		return 1;
	}
	if (r->name_at) {
		bool into = resolve_into(r);
		r->name_at = 0;
		return !into;
	}
	bpf_probe_read_kernel_str(r->other, COMPONENT_BYTES, r->text + pos);
	r->length = 0;
	LOOP(COMPONENT_BYTES, resolve_name_end, &r);
	r->name_at = pos;
	r->pos = pos + r->length;
	return r->length >= COMPONENT_BYTES - 1;
}

/*
 * Where a path of so many bytes leads from `from`: the directory of its last component, of which `name` is where it begins in the text,
 * plus 1; with `follow` the object itself, and `name` is 0. False if that is not known.
 */
static __always_inline bool resolve(struct place *from, const char *text, u32 bytes, bool follow, u32 *name)
{
	u32 zero = 0;
	struct resolving *r = resolving.lookup(&zero);
	if (!r || bytes >= RESOLVE_TEXT)
		return false;
	/* the NUL of the blob may be gone: another one can stand right behind it */
	OPAQUE(bytes);
	bytes &= RESOLVE_TEXT - 1;
	bpf_probe_read_kernel(r->text + RESOLVE_TEXT, bytes, text);
	r->text[RESOLVE_TEXT + bytes] = 0;
	u64 task = current_task_btf();
	r->at = *from;
	r->root = task_root(task);
	r->tgid = own_number(KREAD(u64, task + KERNEL_task_struct_group_leader));
	r->tid = own_number(task);
	r->pos = RESOLVE_TEXT;
	r->name_at = r->links = r->looks = r->done = 0;
	r->follow = follow;
	r->mounted = 0;
	LOOP(RESOLVE_TURNS, resolve_step, &r);
	if (!r->done)
		return false;
	*from = r->at;
	*name = r->name_at > RESOLVE_TEXT - 1 ? r->name_at - RESOLVE_TEXT + 1 : 0;
	return true;
}
#else
static __always_inline bool resolve(struct place *from, const char *text, u32 bytes, bool follow, u32 *name)
{
	return false;
}
#endif
