/*
 * integrity.c - kernel tables that rootkits modify. headrace reads them through peek(), compares
 * them with the kernel's symbols (bpf/load/integrity.py), and emits each finding as an event. It
 * runs these programs itself.
 */
#ifdef WANT_INTEGRITY
#define FOUND_TEXT 256
#define FOUND_ROOM (sizeof(struct blob) + FOUND_TEXT + 8)

BPF_F_TABLE("array", u32, struct peeked, peeked, 1, BPF_F_MMAPABLE);

/* Copy args[1] words from the kernel address args[0]. */
int peek(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0;
	struct peeked *p = peeked.lookup(&zero);
	u64 words = ctx->args[1];
	if (!p)
		return 0;
	OPAQUE(words);
	if (words > PEEK_WORDS)
		words = PEEK_WORDS;
	p->failed = bpf_probe_read_kernel(p->words, words * 8, (void *)ctx->args[0]) != 0;
	return 0;
}

/* A string in headrace's own memory. */
static __always_inline void blob_found(struct writer *w, u32 arg, u64 address)
{
	struct blob *b = blob_begin(w, arg, FOUND_ROOM);
	if (!b)
		return;
	long n = address ? read_text(b + 1, FOUND_TEXT, address, true) : 0;
	blob_end(w, b, n > 0 ? n - 1 : 0, (!address ? BLOB_NULL : n > 0 ? BLOB_OK : BLOB_FAULT) | SOURCE_KERNEL);
}

/*
 * Emit a finding. The program's arguments are those of the event. A bit in `texts` marks an
 * argument that is the address of a string, a bit in `lists` one that is the address of an array of
 * strings.
 */
static __always_inline int tell_found(struct bpf_raw_tracepoint_args *ctx, u16 event, u32 count, u32 texts, u32 lists)
{
	struct subject s;
	struct writer w;
	u32 room = lists ? FOUND_ROOM + sizeof(struct blob) + VECTOR_BYTES / 2 : count * FOUND_ROOM;
	in_scope(&s, current_task_btf());
	in_all_policies(&s);
	STAY;
	if (record_begin(ctx, &w, &s, URGENT, event, count, room)) {
		u64 *a = (u64 *)(w.head + 1);
		w.head->arg0 = ctx->args[0];
#pragma unroll
		for (u32 i = 1; i < 8; i++)
			if (i < count)
				a[i - 1] = ctx->args[i];
#pragma unroll
		for (u32 i = 0; i < 8; i++) {
			if (i < count && (texts >> i & 1))
				blob_found(&w, i, ctx->args[i]);
			if (i < count && (lists >> i & 1))
				blob_strings(&w, i, ctx->args[i], false, SOURCE_USER_EXIT);
		}
		record_end(ctx, &w);
	}
	LEAVE;
	return 0;
}

#define TELL(event, count, texts, lists)                                                               \
	int tell_##event(struct bpf_raw_tracepoint_args *ctx)                                          \
	{                                                                                              \
		return tell_found(ctx, EVENT_##event, count, texts, lists);                            \
	}
#ifdef EVENT_hooked_syscall
TELL(hooked_syscall, 4, 0xf, 0)
#endif
#ifdef EVENT_hooked_syscalls
TELL(hooked_syscalls, 1, 0, 1)
#endif
#ifdef EVENT_hooked_seq_ops
TELL(hooked_seq_ops, 1, 0, 1)
#endif
#ifdef EVENT_hooked_proc_fops
TELL(hooked_proc_fops, 1, 0, 1)
#endif
#ifdef EVENT_hidden_kernel_module
TELL(hidden_kernel_module, 3, 7, 0)
#endif
#ifdef EVENT_ftrace_hook
TELL(ftrace_hook, 7, 0x37, 0)
#endif
#endif
