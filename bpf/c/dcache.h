/*
 * dcache.h - the kernel's dentry hash table, which finds a name in a directory of any size:
 *
 *   table[hash >> shift] -> dentry.d_hash -> dentry.d_hash ...     hash of the name and its directory's address
 *
 * bpf/host/dcache.py derives the table's address from samples. If it is not known, or if a file
 * system has its own hash function, the directory's children are searched one by one (resolve.h).
 */
#define NAME_SAMPLES 64
#define NAME_SAMPLE_LOOKS 1024
#define NAME_WORDS (COMPONENT_BYTES / 8)
#define NAME_CHAIN 1024
#define GOLDEN_RATIO 0x61C8864680B583EBULL /* GOLDEN_RATIO_64 of include/linux/hash.h */
#define LIST_LOCKED 1ULL                   /* LIST_BL_LOCKMASK of include/linux/list_bl.h */
#define DENTRY_HASH (KERNEL_dentry_d_name_name - 8)
#define DENTRY_LENGTH (KERNEL_dentry_d_name_name - 4)
#define DENTRY_CHAIN (KERNEL_dentry_d_hash_pprev - 8)

#if defined(HAVE_LOOP) && defined(WANT_NAMES)
/* Mix one word of the name into the hash: HASH_MIX() in fs/namei.c. */
LOOP_BODY(mix_name, struct resolving **at)
{
	struct resolving *r = *at;
	u64 *words = (u64 *)r->name;
	u32 n = r->mixed++ & (NAME_WORDS - 1);
	r->mix[0] ^= words[n];
	if (n >= r->length / 8)
		return 1;
	r->mix[1] ^= r->mix[0];
	r->mix[0] = (r->mix[0] << 12 | r->mix[0] >> 52) + r->mix[1];
	r->mix[1] = (r->mix[1] << 45 | r->mix[1] >> 19) * 9;
	return 0;
}

/*
 * First dentry in the name's hash chain, 0 if the table is not known. The hash is that of
 * full_name_hash() in fs/namei.c.
 */
static __always_inline u64 first_of_name(struct resolving *r)
{
	u32 zero = 0;
	struct status *st = status.lookup(&zero);
	if (!st || !st->names_table)
		return 0;
	r->mix[0] = r->mixed = 0;
	r->mix[1] = r->at.dentry;
	LOOP(NAME_WORDS, mix_name, &r);
	u32 hash = (r->mix[1] ^ r->mix[0] * GOLDEN_RATIO) * GOLDEN_RATIO >> 32;
	return KREAD(u64, st->names_table + 8ULL * (hash >> (st->names_shift & 31))) & ~LIST_LOCKED;
}

/* State of sample_names(): children of the process's root directory. */
struct sampling {
	u64 node;
	u32 samples;
};

LOOP_BODY(sample_name, struct sampling *s)
{
	u64 node = s->node;
	if (!node || s->samples >= NAME_SAMPLES)
		return 1;
	s->node = KREAD(u64, node);
	u64 dentry = node - KERNEL_dentry_sibling;
	union dentry_head d = {};
	bpf_probe_read_kernel(&d, sizeof(d), (void *)dentry);
	u32 length = FIELD(&d, u32, DENTRY_LENGTH), number = s->samples;
	struct name_sample *n = name_samples.lookup(&number);
	if (!n || length >= sizeof(n->name) || !FIELD(&d, u64, KERNEL_dentry_d_hash_pprev))
		return 0;
	n->bucket = FIELD(&d, u64, KERNEL_dentry_d_hash_pprev);
	n->folder = FIELD(&d, u64, KERNEL_dentry_d_parent);
	n->hash = FIELD(&d, u32, DENTRY_HASH);
	n->length = length;
	bpf_probe_read_kernel_str(n->name, sizeof(n->name), (void *)FIELD(&d, u64, KERNEL_dentry_d_name_name));
	s->samples++;
	return 0;
}

/* The loader runs this program once. */
int sample_names(struct bpf_raw_tracepoint_args *ctx)
{
	struct place root = task_root(current_task_cold());
	struct sampling s = {.node = KREAD(u64, root.dentry + KERNEL_dentry_children)};
	LOOP(NAME_SAMPLE_LOOKS, sample_name, &s);
	return 0;
}
#endif
