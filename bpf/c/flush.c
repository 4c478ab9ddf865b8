/*
 * flush.c - limits how long a record waits in a frame. A CPU that goes idle sends its frames (raw
 * sched_switch to pid 0). For a busy CPU, the reader runs flush_now there by BPF_PROG_TEST_RUN when
 * the oldest unsent record is older than the bound (pipeline/transport/watermark.py).
 */
static __always_inline bool flush_all(void *ctx)
{
	u32 cpu = bpf_get_smp_processor_id();
	bool sent = false;
	for (u32 slot = 0; slot < SLOTS; slot++)
		sent |= flush_slot(ctx, cpu, slot);
	return sent;
}

int on_sched_switch(struct bpf_raw_tracepoint_args *ctx)
{
	u64 next = ctx->args[2];
	u32 next_tid = KREAD(u32, next + KERNEL_task_struct_pid);
#ifdef WANT_SCHED_SWITCH
	struct subject s;
	struct writer w;
	if (in_scope(&s, current_task_btf()) && !(s.flags & GROUP_ARMED) &&
	    record_begin(ctx, &w, &s, s.tgid % SHARDS, EVENT_sched_switch, 5, 2 * 64)) {
		u64 *a = (u64 *)(w.head + 1);
		w.head->arg0 = bpf_get_smp_processor_id();
		a[0] = s.tid;
		a[2] = next_tid;
		blob_string(&w, 2, s.task + KERNEL_task_struct_comm, false);
		blob_string(&w, 4, next + KERNEL_task_struct_comm, false);
		record_end(ctx, &w);
	}
#endif
	if (next_tid == 0 && flush_all(ctx)) {
		/*
		 * A bulk sample does not wake the reader: in a flood, the interrupt for it costs
		 * more than its events. This sample, too short for a frame, does. If there is no
		 * room for it, an unread one has already woken the reader.
		 */
		u32 bell = 0;
		urgent.perf_submit(ctx, &bell, sizeof(bell));
	}
	return 0;
}

int flush_now(struct bpf_raw_tracepoint_args *ctx)
{
	STAY;
	flush_all(ctx);
	LEAVE;
	return 0;
}
