/*
 * early.h - conditions evaluated in the kernel. The loader generates record_passes() and
 * record_wanted() from them (bpf/programs/early.py) and inserts both at EARLY_TESTS. A complete
 * record is tested in its frame, and removed if it fails. A test may reject only what certainly
 * does not match.
 *
 * Records are accessed through a plain integer address, so that the verifier does not track the
 * accesses.
 */
#ifdef EARLY
#define EARLY_BLOBS 8

struct early {
	u64 at;        /* address of the text */
	u64 bytes;     /* length of the text */
	u64 first;     /* first 8 bytes, including bytes behind a shorter text */
	u64 last;      /* last 8 bytes, including bytes before a shorter text */
	u64 component; /* length of the component examined last */
	u64 hits;      /* one bit for each signature test that may hold */
	u64 words[33]; /* bytes to compare */
};
BPF_PERCPU_ARRAY(earlies, struct early, 1);

/* Kept in memory: the verifier does not track the value, so its states do not multiply. */
#define EARLY_HIT(s, bits) (*(volatile u64 *)&(s)->hits |= (bits))

/* True if the signatures are those that the tests were generated from. */
static __always_inline bool early_narrows(void)
{
	u32 zero = 0;
	struct status *st = status.lookup(&zero);
	return st && !*(volatile u64 *)&st->let_pass;
}

static __always_inline u64 early_argument(const struct head *h, u32 i)
{
	return i ? ((const u64 *)(h + 1))[i - 1] : h->arg0;
}

/* Find the blob of an argument. Returns false if there is none, or if its status is not BLOB_OK. */
static __always_inline bool early_blob(struct early *s, const struct head *h, u32 arg)
{
	*(volatile u64 *)&s->at = (u64)h;
	u64 at = *(volatile u64 *)&s->at + (u64)h->cells * CELL_BYTES;
	for (int i = 0; i < EARLY_BLOBS; i++) {
		struct blob b = {};
		if (i >= h->blobs)
			break;
		bpf_probe_read_kernel(&b, sizeof(b), (void *)at);
		if (b.arg == arg) {
			s->at = at + sizeof(b);
			s->bytes = b.bytes;
			s->first = KREAD(u64, s->at);
			s->last = KREAD(u64, s->at + s->bytes - 8);
			return (b.status & BLOB_STATUS) == BLOB_OK;
		}
		at += sizeof(b) + round_up(b.bytes, 8);
	}
	return false;
}

/* A string as passed. Returns false if it ends with a NUL: workers strip those. */
static __always_inline bool early_text(struct early *s, const struct head *h, u32 arg)
{
	return early_blob(s, h, arg) && s->bytes && s->last >> 56;
}

/*
 * A path walked up to the root. Without an object the blob is a name instead. An object without a
 * root (memfd) may have slashes in its name.
 */
static __always_inline bool early_path(struct early *s, const struct head *h, u32 arg)
{
	return !(h->flags & HEAD_NO_OBJECT) && early_blob(s, h, arg) && s->bytes > 1 && s->last >> 48 == '/';
}

static __always_inline bool early_read(struct early *s, u64 at, u32 bytes)
{
	return !bpf_probe_read_kernel(s->words, bytes, (void *)at);
}

/* Length of the component that begins at byte `at` of a walked path. */
static __always_inline u64 early_name(struct early *s, u64 at)
{
	long n = bpf_probe_read_kernel_str(s->words, COMPONENT_BYTES, (void *)(s->at + at));
	s->component = n > 0 ? n - 1 : 0;
	return s->component;
}

/* Length of the component whose NUL is byte `end` of a walked path. */
static __always_inline u64 early_component(struct early *s, u64 end)
{
	u32 n = 0;
	/*
	 * The read may begin before the path, but not before the frame: its header is longer than
	 * COMPONENT_BYTES. The bytes before the path are not examined.
	 */
	if (!early_read(s, s->at + end - COMPONENT_BYTES, COMPONENT_BYTES))
		end = 0;
	for (; n < COMPONENT_BYTES; n++)
		if (n >= end || !((volatile char *)s->words)[COMPONENT_BYTES - 1 - n])
			break;
	s->component = n;
	return n;
}

EARLY_TESTS
#endif
