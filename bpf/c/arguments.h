/*
 * arguments.h - memory that pointer arguments of a call refer to. Each pointer becomes a blob. A
 * record is never dropped because memory could not be read: the blob's status gives the reason, and
 * `faults` counts it.
 */
#define STRING_BYTES 4096 /* PATH_MAX, including the NUL */
#define BLOB_ROOM (sizeof(struct blob) + STRING_BYTES + 8)
#ifdef HAVE_LOOP
#define VECTOR_ITEMS (VECTOR_BYTES + 1) /* all strings empty, plus the NULL */
#else
#define VECTOR_ITEMS 65
#endif
#define VECTOR_STRING 1024
#define VECTOR_BYTES 8192
#define ARGV_BYTES 16384
#define ENVP_BYTES 8192

/* Begin a blob. Returns NULL if the frame cannot hold `room` more bytes. */
static __always_inline struct blob *blob_begin(struct writer *w, u32 arg, u32 room)
{
	u64 at = BLOB_AT(w);
	if (at > CELLS_BYTES - room) {
		w->mark->cut++;
		return 0;
	}
	w->head->blobs++;
	struct blob *b = (struct blob *)(w->frame->cells + at);
	b->bytes = 0;
	b->arg = arg;
	b->status = BLOB_OK;
	b->whole = 0;
	return b;
}

static __always_inline void blob_end(struct writer *w, struct blob *b, u32 bytes, u32 status)
{
	u32 outcome = status & BLOB_STATUS;
	b->bytes = bytes;
	b->status = status;
	if (outcome == BLOB_FAULT)
		w->mark->faults++;
	if (outcome == BLOB_CUT)
		w->mark->cut++;
	if (outcome == BLOB_RACED)
		w->mark->raced++;
	BLOB_AT(w) += sizeof(*b) + round_up(bytes, 8);
}

/* Argument `i` as written to the record. */
static __always_inline u64 written_argument(const struct writer *w, u32 i)
{
	u64 *cell = (u64 *)(w->head + 1);
	return i ? *(volatile u64 *)&cell[(i - 1) & 7] : *(volatile u64 *)&w->head->arg0;
}

#define PAGE_BYTES 4096
/*
 * Read a string whose end is unreadable, up to the end of its first page. Returns the number of
 * bytes, 0 on a fault.
 */
static __always_inline u32 readable_part(void *to, u64 address)
{
	u64 left = PAGE_BYTES - (address & (PAGE_BYTES - 1));
	OPAQUE(left);
	return bpf_probe_read_user(to, BOUNDED(left, PAGE_BYTES), (void *)address) ? 0 : left;
}

static __always_inline void blob_string(struct writer *w, u32 arg, u64 address, bool user)
{
	struct blob *b = blob_begin(w, arg, BLOB_ROOM);
	if (!b)
		return;
	u32 status = BLOB_OK, bytes = 0;
	if (!address) {
		status = BLOB_NULL;
	} else {
		long n = read_text(b + 1, STRING_BYTES + 1, address, user);
		if (__builtin_expect(n <= 0, 0)) { /* keep the fault path out of line */
			status = BLOB_FAULT;
			bytes = user ? readable_part(b + 1, address) : 0;
		} else if (n > STRING_BYTES) {
			bytes = STRING_BYTES;
			status = BLOB_CUT;
		} else {
			bytes = n - 1;
		}
	}
	blob_end(w, b, bytes, status | (user ? SOURCE_USER_EXIT : SOURCE_KERNEL));
}

/*
 * Copy at most `most` of `whole` bytes. `limit` is a constant upper bound of `most` for the
 * verifier, and a power of two (BOUNDED).
 */
static __always_inline void blob_memory_of(struct writer *w, u32 arg, u64 address, u64 whole, u32 most, u32 source,
					   const u32 limit)
{
	bool kernel = source == SOURCE_KERNEL;
	struct blob *b = blob_begin(w, arg, sizeof(struct blob) + limit + 8);
	if (!b)
		return;
	u32 status = BLOB_OK;
	u64 bytes = whole < most ? whole : most;
	b->whole = whole;
	OPAQUE(bytes);
	if (bytes > limit)
		bytes = limit;
	if (!address) {
		status = BLOB_NULL;
		bytes = 0;
	} else if (bytes && (kernel ? bpf_probe_read_kernel(b + 1, BOUNDED(bytes, limit), (void *)address) :
				      bpf_probe_read_user(b + 1, BOUNDED(bytes, limit), (void *)address))) {
		status = BLOB_FAULT;
		bytes = 0;
	} else if (bytes < whole) {
		status = BLOB_CUT;
	}
	blob_end(w, b, bytes, status | source);
}

static __always_inline void blob_memory(struct writer *w, u32 arg, u64 address, u64 whole, u32 most)
{
	blob_memory_of(w, arg, address, whole, most, SOURCE_USER_EXIT, STRING_BYTES);
}

#define SMALL_BYTES 1024
static __always_inline void blob_small(struct writer *w, u32 arg, u64 address, u64 whole, u32 most)
{
	blob_memory_of(w, arg, address, whole, most, SOURCE_USER_EXIT, SMALL_BYTES);
}

/* State of a loop over an array of strings. */
struct strings {
	struct blob *blob;
	u64 address;
	u32 width; /* bytes of a pointer */
	u32 items; /* read so far */
	u32 cut;
	u32 status;
	u32 user;
};

LOOP_BODY(vector_item, struct strings *v)
{
	struct blob *b = v->blob;
	char *data = (char *)(b + 1);
	u64 item = 0;
	u32 width = v->width;
	void *at_item = (void *)(v->address + v->items++ * width);
	if (v->user ? bpf_probe_read_user(&item, width == 4 ? 4 : 8, at_item) : bpf_probe_read_kernel(&item, 8, at_item)) {
		v->status = BLOB_FAULT;
		return 1;
	}
	if (!item) {
		v->status = v->cut ? BLOB_CUT : BLOB_OK;
		return 1;
	}
	u64 at = *(volatile u32 *)&b->whole;
	if (at > VECTOR_BYTES - VECTOR_STRING)
		return 1;
	/* read one byte more than is kept, to detect truncation */
	long n = read_text(data + at, VECTOR_STRING + 1, item, v->user);
	if (n <= 0) {
		v->status = BLOB_FAULT;
		return 1;
	}
	if (n > VECTOR_STRING) {
		n = VECTOR_STRING;
		data[at + VECTOR_STRING - 1] = 0;
		v->cut = 1;
	}
	*(volatile u32 *)&b->whole = at + n;
	return 0;
}

/*
 * Copy a NULL-terminated array of strings, such as argv of a failed execve: one after the other,
 * each with its NUL. A string longer than VECTOR_STRING is truncated, and the blob's status says
 * so. The position, which differs in each iteration, is kept in the blob, see path.h.
 */
static __always_inline void blob_strings(struct writer *w, u32 arg, u64 address, bool compat, u32 source)
{
	struct blob *b = blob_begin(w, arg, sizeof(struct blob) + VECTOR_BYTES + VECTOR_STRING + 8);
	if (!b)
		return;
	struct strings v = {
		.blob = b,
		.address = address,
		.width = compat ? 4 : 8,
		.status = BLOB_CUT,
		.user = source != SOURCE_KERNEL,
	};
	if (address)
		LOOP(VECTOR_ITEMS, vector_item, &v);
	blob_end(w, b, b->whole, (address ? v.status : BLOB_NULL) | source);
}

static __always_inline void blob_vector(struct writer *w, u32 arg, u64 address, bool compat)
{
	blob_strings(w, arg, address, compat, SOURCE_USER_EXIT);
}

/* A range of the image's memory: argv or the environment, as the kernel laid them out at exec. */
static __always_inline void blob_image(struct writer *w, u32 arg, u64 from, u64 to, u32 most, u32 source)
{
	struct blob *b = blob_begin(w, arg, sizeof(struct blob) + most);
	if (!b)
		return;
	u64 whole = to - from;
	u32 status = BLOB_OK;
	u64 bytes = whole < most ? whole : most;
	b->whole = whole;
	OPAQUE(bytes);
	if (bytes > most)
		bytes = most;
	if (bytes && bpf_probe_read_user(b + 1, bytes, (void *)from)) {
		status = BLOB_FAULT;
		bytes = 0;
	} else if (bytes < whole) {
		status = BLOB_CUT;
	}
	blob_end(w, b, bytes, status | source);
}
