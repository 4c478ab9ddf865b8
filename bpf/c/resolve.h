/*
 * resolve.h - where a path leads, component by component in the dentry cache, as the kernel has
 * just walked it, through links and mounts. For calls that leave no object with the path: rename,
 * link, unlink ...
 *
 *   text   |......... room for targets of links .........|the path as it was passed NUL|
 *                                          ^ pos: start of the remaining path
 *
 * A component is held back (`name_at`) until it is known whether it is the last one: that is a name
 * in the directory, entered only with `follow`. A link's target is put before the remaining path.
 * Resolution fails if a name is not in the cache, or if a link cannot be followed here because its
 * file system computes the target. The path is then a string only. If directories or links change
 * while the call ends, resolution sees the new ones.
 */
#define RESOLVE_TEXT 4096 /* bytes of each half */
#define RESOLVE_TURNS 12288
#define RESOLVE_LOOKS 65536 /* limit on the names and mounts examined for a path */
#define RESOLVE_LINKS 40 /* as the kernel: MAXSYMLINKS */
#define S_IFMT 0170000
#define S_IFLNK 0120000
#define PROC_SUPER_MAGIC 0x9fa0

/* Names in procfs, as the first word of a component. */
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

/* The next member of a list, 0 at its end. */
static __always_inline u64 next_node(struct resolving *r)
{
	u64 node = r->node;
	if (!node || node == r->head || r->looks++ >= RESOLVE_LOOKS)
		return 0;
	r->node = KREAD(u64, node);
	return node;
}

/* One dentry: stop if it is the wanted name in the directory, and in use. */
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

/* True if the directory has the name, by the hash table and then by the directory's own list. */
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

/* One child mount: stop if it covers the current position. */
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

/* Enter the mount that covers the current position, if any. Returns true if there was one. */
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

/* Replace the component just taken by the first `bytes` bytes of `target`. */
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

/* The decimal number that a name is, -1 if it is none. */
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

/* The task whose procfs directory has the inode, 0 if the task is gone. */
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

/* The file behind a descriptor of any task. */
static __always_inline u64 file_at(u64 task, u32 fd)
{
	u64 table = KREAD(u64, KREAD(u64, task + KERNEL_task_struct_files) + KERNEL_files_struct_fdt);
	if (fd >= KREAD(u32, table + KERNEL_fdtable_max_fds))
		return 0;
	return KREAD(u64, KREAD(u64, table + KERNEL_fdtable_fd) + (u64)fd * 8);
}

/* Links of procfs whose target the kernel computes: self and thread-self, and links to an object. */
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

/* Enter the component held back. Returns false if it cannot be followed. */
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
 * Resolve a path of `bytes` bytes that starts at `*from`. Sets `*from` to the directory of the last
 * component and `*name` to the component's offset in the text, plus 1. With `follow`, sets `*from`
 * to the object and `*name` to 0. Returns false if that is not known.
 */
static __always_inline bool resolve(struct place *from, const char *text, u32 bytes, bool follow, u32 *name)
{
	u32 zero = 0;
	struct resolving *r = resolving.lookup(&zero);
	if (!r || bytes >= RESOLVE_TEXT)
		return false;
	/* the blob's NUL may be overwritten: another blob can follow directly */
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
