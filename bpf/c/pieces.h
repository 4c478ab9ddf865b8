/*
 * pieces.h - arguments and environment of a process that do not fit into its record. They are sent
 * before it in frames of their own (struct piece), in the bulk stream of the process's shard
 * whatever the record's stream is, because the urgent buffer is small. The ledger does not count
 * them: a blob with missing pieces is reported as truncated.
 */
#define PIECE_BYTES 30720
#define PIECES_MOST 131072 /* limit on a blob, including the part in its record */
#define PIECES 10
#define ARGV_RANGE 0
#define ENVP_RANGE 1

static __always_inline void range_of(struct pieces *p, u32 range, u32 arg, u64 from, u64 to, u32 held)
{
	u64 whole = to - from;
	u32 sent = held;
	if (whole > PIECES_MOST)
		whole = PIECES_MOST;
	if (whole > sent)
		p->count += (whole - sent + PIECE_BYTES - 1) / PIECE_BYTES;
	else
		sent = whole;
	p->range[range].from = from;
	p->range[range].whole = to - from < 0xffffffff ? to - from : 0xffffffff;
	p->range[range].sent = sent;
	p->range[range].arg = arg;
}

/*
 * Called before a record of the image of `task` with argv as argument `arg` and the environment as
 * the next. Sends the part that does not fit into the record, then runs program `then` again.
 * Returns if there is nothing to send.
 */
static __always_inline void pieces_first(void *ctx, u64 task, u32 slot, u32 arg, u32 then)
{
	u32 zero = 0;
	struct pieces *p = pieces.lookup(&zero);
	if (!p)
		return;
	u64 thread = bpf_get_current_pid_tgid();
	if (p->thread == thread) {
		p->thread = 0;
		return;
	}
	u64 mm = KREAD(u64, task + KERNEL_task_struct_mm);
	p->thread = 0;
	p->count = 0;
	range_of(p, ARGV_RANGE, arg, KREAD(u64, mm + KERNEL_mm_struct_arg_start),
		 KREAD(u64, mm + KERNEL_mm_struct_arg_end), ARGV_BYTES);
	range_of(p, ENVP_RANGE, arg + 1, KREAD(u64, mm + KERNEL_mm_struct_env_start),
		 EXEC_ENVIRONMENT ? KREAD(u64, mm + KERNEL_mm_struct_env_end) :
				    KREAD(u64, mm + KERNEL_mm_struct_env_start),
		 ENVP_BYTES);
	if (!p->count)
		return;
	p->thread = thread;
	p->slot = slot;
	p->then = then;
	objects.call(ctx, PROGRAM_pieces);
	p->thread = 0;
}

/* Copy the next bytes of a range into the frame. Returns their number. */
static __always_inline u32 piece_fill(struct frame *f, struct pieces *p, u32 range)
{
	struct piece *h = (struct piece *)f->cells;
	u32 whole = p->range[range].whole, sent = p->range[range].sent;
	if (whole > PIECES_MOST)
		whole = PIECES_MOST;
	if (sent >= whole)
		return 0;
	u64 n = whole - sent;
	if (n > PIECE_BYTES)
		n = PIECE_BYTES;
	OPAQUE(n);
	if (n > PIECE_BYTES)
		return 0;
	if (bpf_probe_read_user(h + 1, n, (void *)(p->range[range].from + sent)))
		return 0;
	h->offset = sent;
	h->bytes = n;
	h->whole = p->range[range].whole;
	h->arg = p->range[range].arg;
	p->range[range].sent = sent + n;
	return n;
}

int on_pieces(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0, cpu = bpf_get_smp_processor_id();
	struct pieces *p = pieces.lookup(&zero);
	if (!p)
		return 0;
	u64 thread = bpf_get_current_pid_tgid();
	u32 tgid = thread >> 32, slot = tgid % SHARDS, at = cpu * SLOTS + slot, of = cpu * SLOTS + p->slot;
	struct frame *f = frames.lookup(&slot);
	struct mark *m = marks.lookup(&at), *target = marks.lookup(&of);
	if (f && m && target && claim(&m->busy)) {
		if (f->heads)
			frame_send(ctx, f, m, slot);
		for (u32 i = 0; i < PIECES; i++) {
			u32 left = p->count;
			u32 n = piece_fill(f, p, ARGV_RANGE);
			if (!n)
				n = piece_fill(f, p, ENVP_RANGE);
			if (!n || !left)
				break;
			struct piece *h = (struct piece *)f->cells;
			p->count = left - 1;
			h->sequence = target->frames + (slot == p->slot ? left : 0);
			h->tgid = tgid;
			h->tid = thread;
			h->stream = p->slot == FACTS ? STREAM_FACTS : p->slot == URGENT ? STREAM_URGENT : STREAM_BULK;
			h->pad = 0;
			f->piece = 1;
			f->used = sizeof(*h) + round_up(n, CELL_BYTES);
			f->shard = slot;
			f->context = 0;
			f->first_ns = f->last_ns = ktime_boot_ns();
			frame_send(ctx, f, m, slot);
			f->piece = 0;
		}
		*(volatile u64 *)&m->busy = 0;
	}
	objects.call(ctx, p->then);
	return 0;
}
