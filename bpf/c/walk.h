/*
 * walk.h - the path walks of a record. They are long, and the verifier would check each one
 * wherever it is inlined. One program does all of them and also ends the record. Other programs
 * list the paths of their record and leave by record_walk().
 */
static __always_inline void path_later(struct walks *j, u32 arg, struct place at)
{
	u32 i = j->count;
	if (i >= WALKS)
		return;
	j->walk[i].arg = arg;
	j->walk[i].dentry = at.dentry;
	j->walk[i].mount = at.mount;
	j->walk[i].text = 0;
	j->count = i + 1;
}

/*
 * The same for a string at byte `text` of the cells, which starts at `at`: the directory of its
 * last component, or with `follow` the object that it leads to (resolve.h).
 */
static __always_inline void path_of_later(struct walks *j, u32 arg, struct place at, u32 text, bool follow)
{
	u32 i = j->count;
	path_later(j, arg, at);
	if (i < WALKS) {
		j->texts++;
		j->walk[i].text = text;
		j->walk[i].follow = follow;
	}
}

/* This CPU's list of walks, emptied. */
static __always_inline struct walks *walks_begin(void)
{
	u32 zero = 0;
	struct walks *j = walks.lookup(&zero);
	if (j)
		j->count = j->texts = j->done = 0;
	return j;
}

/*
 * Walk the listed paths, end the record and continue with program `then` (0: none). If the tail
 * call fails, ends the record without the paths and returns.
 */
static __always_inline void record_walk(void *ctx, struct writer *w, struct walks *j, u32 then)
{
	if (j) {
		j->slot = w->slot;
		j->start = w->start;
		j->then = then;
#ifdef WANT_NAMES
		if (j->texts)
			objects.call(ctx, PROGRAM_resolve);
#endif
		objects.call(ctx, PROGRAM_walk);
	}
	record_end(ctx, w);
}

/* The writer of the record to which the walks belong. */
static __always_inline bool walk_writer(struct writer *w, struct walks *j)
{
	u32 at = bpf_get_smp_processor_id() * SLOTS + j->slot, slot = j->slot, start = j->start;
	w->slot = slot;
	w->start = start;
	w->mark = marks.lookup(&at);
	w->frame = frames.lookup(&slot);
	OPAQUE(start);
	if (!w->mark || !w->frame || start > CELLS_BYTES - RECORD_CELLS * CELL_BYTES)
		return false;
	w->head = (struct head *)(w->frame->cells + start);
	w->event = w->head->event;
	return true;
}

#ifdef WANT_NAMES
/*
 * Move `from` from the start of a string to where the string leads. `whole` of its blob becomes the
 * offset of the remaining part, plus 1.
 */
static __always_inline void walk_resolve(struct writer *w, u32 text, u32 arg, bool follow, struct place *from)
{
	if (!text)
		return;
	OPAQUE(text);
	if (text > CELLS_BYTES - BLOB_ROOM)
		return;
	struct blob *b = (struct blob *)(w->frame->cells + text);
	u32 name = 0;
	if (b->arg == (arg & ~BASE) && (b->status & BLOB_STATUS) == BLOB_OK &&
	    resolve(from, (char *)(b + 1), b->bytes, follow, &name))
		b->whole = name ? name : b->bytes + 1;
}

/* Resolve the strings of a record before its walks, one per run. */
int on_resolve(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0;
	struct walks *j = walks.lookup(&zero);
	struct writer w;
	if (!j || !walk_writer(&w, j))
		return 0;
	u32 i = j->done;
	if (i < WALKS && i < j->count) {
		struct place from = {.dentry = j->walk[i].dentry, .mount = j->walk[i].mount};
		walk_resolve(&w, j->walk[i].text, j->walk[i].arg, j->walk[i].follow, &from);
		j->walk[i].dentry = from.dentry;
		j->walk[i].mount = from.mount;
		j->done = i + 1;
		objects.call(ctx, PROGRAM_resolve);
	}
	objects.call(ctx, PROGRAM_walk);
	record_end(ctx, &w);
	return 0;
}
#endif

int on_walk(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0;
	struct walks *j = walks.lookup(&zero);
	struct writer w;
	if (!j || !walk_writer(&w, j))
		return 0;
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
