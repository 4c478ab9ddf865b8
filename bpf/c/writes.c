/*
 * writes.c - data written to regular files. magic_write reports the first bytes of a file, which
 * identify its type; vfs_write and vfs_writev report the writes themselves. Data written by
 * copy_file_range, sendfile, splice or a shared mapping is not in memory that can be read: the
 * bytes are then null.
 */
#define S_IFREG 0100000
#define MAGIC_BYTES 20
#define MAGIC_ROOM 32 /* a power of two for BOUNDED */
#ifdef HAVE_LOOP
#define MAGIC_BUFFERS 1024 /* UIO_MAXIOV: the first ones may be empty */
#else
#define MAGIC_BUFFERS 8
#endif
#define O_APPEND 02000
#define RWF_APPEND 0x10
#define RWF_NOAPPEND 0x20
#define PROT_WRITE 2
#define MAP_SHARED_TYPE 1 /* MAP_SHARED_VALIDATE has the bit of MAP_SHARED, too */

/* State of collecting the first bytes from a call's buffers. */
struct gathering {
	struct blob *blob;
	u64 buffers; /* address of the next struct iovec */
	u64 count;   /* number of buffers left */
	u64 left;    /* bytes to collect in all */
	u32 narrow;  /* the struct has 32-bit members */
	u32 status;
};

LOOP_BODY(magic_buffer, struct gathering *g)
{
	struct blob *b = g->blob;
	char *data = (char *)(b + 1);
	u64 buffer[2] = {};
	u64 at = *(volatile u32 *)&b->whole;
	if (at >= g->left || at > MAGIC_BYTES || !g->count--)
		return 1;
	long failed = bpf_probe_read_user(buffer, g->narrow ? 8 : 16, (void *)g->buffers);
	g->buffers += g->narrow ? 8 : 16;
	u64 base = g->narrow ? (u32)buffer[0] : buffer[0];
	u64 bytes = g->narrow ? buffer[0] >> 32 : buffer[1];
	u64 n = bytes < g->left - at ? bytes : g->left - at;
	OPAQUE(n);
	if (n > MAGIC_BYTES)
		n = MAGIC_BYTES;
	if (failed || (n && bpf_probe_read_user(data + at, BOUNDED(n, MAGIC_ROOM), (void *)base))) {
		g->status = BLOB_FAULT;
		return 1;
	}
	*(volatile u32 *)&b->whole = at + n;
	return 0;
}

/* The first bytes, from as many buffers as needed. */
static __always_inline void blob_magic(struct writer *w, u32 arg, const struct exit_context *o)
{
	struct blob *b = blob_begin(w, arg, sizeof(struct blob) + MAGIC_BYTES + MAGIC_ROOM + 8);
	if (!b)
		return;
	u32 status = BLOB_OK;
	char *data = (char *)(b + 1);
	u64 left = o->retval < MAGIC_BYTES ? o->retval : MAGIC_BYTES;
	if (o->call->variant == VARIANT_VECTOR) {
		struct gathering g = {
			.blob = b,
			.buffers = o->a[1],
			.count = o->a[2],
			.left = left,
			.narrow = o->call->narrow,
		};
		LOOP(MAGIC_BUFFERS, magic_buffer, &g);
		status = g.status;
	} else {
		OPAQUE(left);
		if (left > MAGIC_BYTES)
			left = MAGIC_BYTES;
		if (bpf_probe_read_user(data, BOUNDED(left, MAGIC_ROOM), (void *)o->a[1]))
			status = BLOB_FAULT;
		*(volatile u32 *)&b->whole = left;
	}
	u32 bytes = status == BLOB_OK ? b->whole : 0;
	b->whole = 0;
	blob_end(w, b, bytes, status | SOURCE_USER_EXIT);
}

static __always_inline void blob_bypass(struct writer *w, u32 arg)
{
	struct blob *b = blob_begin(w, arg, sizeof(struct blob));
	if (b)
		blob_end(w, b, 0, BLOB_BYPASS | SOURCE_KERNEL);
}

static __always_inline bool is_regular(u64 inode)
{
	return (KREAD(u16, inode + KERNEL_inode_i_mode) & S_IFMT) == S_IFREG;
}

static __always_inline void magic_write(void *ctx, const struct exit_context *o, u64 file, bool bypass, u32 then)
{
#ifdef EVENT_magic_write
	struct writer w;
	struct walks *j = walks_begin();
	if (!j || !record_begin(ctx, &w, &o->s, o->s.tgid % SHARDS, EVENT_magic_write, 4, PATH_ROOM + 64))
		return;
	u64 *a = (u64 *)(w.head + 1);
	w.head->retval = o->retval;
	struct file_id id = file_id(file_inode(file));
	a[1] = id.device;
	a[2] = id.inode;
	path_later(j, 0, file_place(file));
	if (bypass)
		blob_bypass(&w, 1);
	else
		blob_magic(&w, 1, o);
	record_walk(ctx, &w, j, then);
#endif
}

static __always_inline void write_event(void *ctx, const struct exit_context *o, u64 file, u16 event, u64 at)
{
	struct writer w;
	struct walks *j = walks_begin();
	if (!j || !record_begin(ctx, &w, &o->s, o->s.tgid % SHARDS, event, 5, PATH_ROOM))
		return;
	u64 *a = (u64 *)(w.head + 1);
	w.head->retval = o->retval;
	struct file_id id = file_id(file_inode(file));
	a[0] = id.device;
	a[1] = id.inode;
	a[2] = o->a[2];
	a[3] = at;
	path_later(j, 0, file_place(file));
	record_walk(ctx, &w, j, 0);
}

#if defined(EVENT_magic_write) || defined(EVENT_vfs_write) || defined(EVENT_vfs_writev)
/* True if the data went to the file's end, whatever the call's position is. */
static __always_inline bool appended(const struct exit_context *o, u64 file)
{
	u64 flags = exit_context_argument(o, o->call->flags);
	if (flags & RWF_NOAPPEND)
		return false;
	return (flags & RWF_APPEND) || (KREAD(u32, file + KERNEL_file_f_flags) & O_APPEND);
}

/*
 * The offset at which the written bytes end. The row's `path` is the argument with the position,
 * which a 32-bit call passes in two; pwritev2 takes -1 for the file's own position.
 */
static __always_inline u64 write_position(const struct exit_context *o, u64 file)
{
	u32 which = o->call->path;
	u64 at = exit_context_argument(o, which);
	if (o->call->narrow)
		at |= exit_context_argument(o, which + 1) << 32;
	if (which == NONE || (s64)at == -1)
		return KREAD(u64, file + KERNEL_file_f_pos);
	if (appended(o, file))
		return KREAD(u64, file_inode(file) + KERNEL_inode_i_size);
	return at + o->retval;
}

/*
 * The regular file that write, pwrite64, writev, pwritev or pwritev2 wrote to, and the offset; 0 if
 * there is none.
 */
static __always_inline u64 written_file(const struct exit_context *o, u64 *at)
{
	u64 file = o->retval > 0 ? exit_context_file(o) : 0;
	if (!file || !is_regular(file_inode(file)))
		return 0;
	*at = write_position(o, file) - o->retval;
	return file;
}

int on_write(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	u64 at = 0;
	if (!exit_context_begin(ctx, &o))
		return 0;
	u64 file = written_file(&o, &at);
	if (!file)
		return 0;
	if (!at)
		magic_write(ctx, &o, file, false, PROGRAM_write_event);
	objects.call(ctx, PROGRAM_write_event);
	return 0;
}

int on_write_event(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	u64 at = 0;
	if (!exit_context_begin(ctx, &o))
		return 0;
	u64 file = written_file(&o, &at);
#ifdef EVENT_vfs_write
	if (file && o.call->variant == VARIANT_PLAIN)
		write_event(ctx, &o, file, EVENT_vfs_write, at);
#endif
#ifdef EVENT_vfs_writev
	if (file && o.call->variant == VARIANT_VECTOR)
		write_event(ctx, &o, file, EVENT_vfs_writev, at);
#endif
	return 0;
}
#endif

#ifdef EVENT_magic_write
/*
 * copy_file_range, sendfile, splice: the row's `path` is the argument with the address of the
 * offset, if any.
 */
int on_copy(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	if (!exit_context_begin(ctx, &o) || o.retval <= 0)
		return 0;
	u64 file = exit_context_file(&o);
	if (!file || !is_regular(file_inode(file)))
		return 0;
	u64 offset = exit_context_argument(&o, o.call->path), end = KREAD(u64, file + KERNEL_file_f_pos);
	if (offset)
		bpf_probe_read_user(&end, sizeof(end), (void *)offset);
	if (end == o.retval)
		magic_write(ctx, &o, file, true, 0);
	return 0;
}
#endif
