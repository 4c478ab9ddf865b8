/*
 * early.h - conditions that are decided here. The loader generates record_passes() from them (bpf/programs/early.py)
 * and inserts it where EARLY_TESTS stands: a record is tested when it is complete, where it stands in the frame, and
 * record_end() takes back what fails. Only what certainly does not match may fail.
 *
 * A record is read through its address as a plain number: what the verifier cannot follow costs it nothing.
 */
#ifdef EARLY
#define EARLY_BLOBS 8

struct early {
	u64 at;        /* address of the text */
	u64 bytes;     /* of the text */
	u64 first;     /* its first 8 bytes, and what stands behind it if it is shorter */
	u64 last;      /* its last 8 bytes, and what stands before it */
	u64 component; /* bytes of the component that was looked at last */
	u64 hits;      /* a bit for each test of signatures that may hold */
	u64 words[33]; /* what is compared */
};
BPF_PERCPU_ARRAY(earlies, struct early, 1);

/* In memory: what the verifier cannot follow, it cannot multiply its states by. */
#define EARLY_HIT(s, bits) (*(volatile u64 *)&(s)->hits |= (bits))

/* Whether signatures are those that their tests were made of. */
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

/* The blob behind an argument; false if there is none, or if it was not read whole. */
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

/* A text as it was passed. Some end with NULs that workers take off. */
static __always_inline bool early_text(struct early *s, const struct head *h, u32 arg)
{
	return early_blob(s, h, arg) && s->bytes && s->last >> 56;
}

/*
 * A path that was walked up to the root; without an object it would be a name. What has no root (a memfd) can have
 * slashes in its name.
 */
static __always_inline bool early_path(struct early *s, const struct head *h, u32 arg)
{
	return !(h->flags & HEAD_NO_OBJECT) && early_blob(s, h, arg) && s->bytes > 1 && s->last >> 48 == '/';
}

static __always_inline bool early_read(struct early *s, u64 at, u32 bytes)
{
	return !bpf_probe_read_kernel(s->words, bytes, (void *)at);
}

/* Length of the component that begins at a byte of a walked path. */
static __always_inline u64 early_name(struct early *s, u64 at)
{
	long n = bpf_probe_read_kernel_str(s->words, COMPONENT_BYTES, (void *)(s->at + at));
	s->component = n > 0 ? n - 1 : 0;
	return s->component;
}

/* Length of the component whose NUL is that byte of a walked path. */
static __always_inline u64 early_component(struct early *s, u64 end)
{
	u32 n = 0;
	/* what stands before the path is not looked at, and is a part of the frame, whose header is longer than this */
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
