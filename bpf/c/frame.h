/*
 * frame.h - per-CPU frames that collect records. User space relies on this order of stores to know
 * that no record older than a given time is still to come (pipeline/transport/watermark.py):
 *
 *   record_begin   busy = 1 (a full barrier), then the clock is read, then first_ns is set
 *   frame_send     the perf sample is visible before first_ns is cleared
 *   record_end     busy = 0 comes last
 *
 * A program that interrupts another one on the same CPU and finds `busy` set writes nothing. A
 * flush leaves the frame for its next turn; a record counts itself in lost_nested.
 */
#define PRIVATE_BYTES __builtin_offsetof(struct frame, size)
#define WIRE_BYTES (sizeof(struct frame) - FRAME_CELLS * CELL_BYTES - PRIVATE_BYTES)
#define CELLS_BYTES (FRAME_CELLS * CELL_BYTES)
#define CONTEXT_CELLS (sizeof(struct context) / CELL_BYTES)
#define RECORD_CELLS 6 /* a head and its arguments, at most */
#ifdef POLICIES
#define FRAME_VERSION 3 /* contexts have a mask of policies */
#else
#define FRAME_VERSION 2
#endif
#define CONTEXT_KEPT_NS 10000000

struct writer {
	struct frame *frame;
	struct mark *mark;
	struct head *head;
	u32 slot;
	u32 start; /* offset of the head in the cells */
	u32 event;
};

/*
 * Offset of the next blob. It is kept in the frame, not in the writer: the verifier does not track
 * it there, so its states do not multiply and calls with several strings stay within its limit.
 */
#define BLOB_AT(w) (*(volatile u64 *)&(w)->frame->at)

/* Call before the events are counted: a reader that sees the new count also finds the time of the loss. */
static __always_inline void time_loss(struct mark *m, u64 first_ns, u64 last_ns)
{
	if (!m->lost_first_ns)
		m->lost_first_ns = first_ns;
	m->lost_last_ns = last_ns;
	asm volatile("" ::: "memory");
}

static __always_inline void frame_send(void *ctx, struct frame *f, struct mark *m, u32 slot)
{
	u64 bytes = f->used + WIRE_BYTES - 4;
	f->cpu = bpf_get_smp_processor_id();
	f->sequence = m->frames++;
	f->version = FRAME_VERSION;
	f->shards = SHARDS;
	long error;
	OPAQUE(bytes);
	if (bytes > sizeof(struct frame) - PRIVATE_BYTES - 4)
		bytes = sizeof(struct frame) - PRIVATE_BYTES - 4;
	if (slot >= URGENT) {
		f->stream = slot == FACTS ? STREAM_FACTS : STREAM_URGENT;
		error = urgent.perf_submit(ctx, &f->cpu, bytes);
	} else {
		f->stream = STREAM_BULK;
		error = bulk.perf_submit(ctx, &f->cpu, bytes);
	}
	if (error) {
		m->lost_frames++;
		m->last_error = -error;
		time_loss(m, f->first_ns, f->last_ns);
		if (error == -ENOSPC)
			m->lost_full += f->heads;
		else
			m->lost_other += f->heads;
	}
	f->used = 0;
	f->heads = 0;
#pragma unroll
	for (int i = 0; i < BITMAP_WORDS; i++)
		f->bitmap[i] = 0;
	*(volatile u64 *)&m->first_ns = 0;
}

static __always_inline void context_container(struct context *c)
{
	u64 id = c->cgroup_id;
	struct container *k = containers.lookup(&id), *root = k ? container_root(k, id) : 0;
	c->runtime = k ? k->runtime : 0;
	c->container_state = root ? root->state : k ? CONTAINER_EXISTING : CONTAINER_NONE;
	c->pad = 0;
	if (k)
		__builtin_memcpy(c->container, k->id, sizeof(c->container));
	else
		__builtin_memset(c->container, 0, sizeof(c->container));
}

/* Invalidate the cached context in this CPU's frames. */
static __always_inline void contexts_forget(void)
{
	for (u32 slot = 0; slot < SLOTS; slot++) {
		u32 at = slot;
		struct frame *f = frames.lookup(&at);
		if (f)
			f->key[0] = 0;
	}
}

/*
 * The values in a context that come from objects which the kernel can free, and allocate again at
 * the same address, while the context is in a frame: credentials, namespaces, cgroup, executable.
 * Contexts are therefore compared by these values and not by pointers (decisions/0034). With
 * HAVE_TASK each value is a direct load, without a helper call.
 */
struct standing {
	u64 cap_effective, cgroup_id, exe_inode, start_ns;
	u32 uid, gid, euid, mntns, utsns, exe_dev, loginuid, sessionid;
};

/* Kernels without audit have no such members. */
#ifdef KERNEL_task_struct_loginuid
#define LOAD_AUDIT(task, member) LOAD4(task, member)
#else
#define LOAD_AUDIT(task, member) 0xffffffffU
#endif

static __always_inline void standing_read(struct standing *now, u64 task)
{
	u64 cred = LOAD8(task, KERNEL_task_struct_cred), nsproxy = LOAD8(task, KERNEL_task_struct_nsproxy);
	u64 exe = LOAD8(LOAD8(task, KERNEL_task_struct_mm), KERNEL_mm_struct_exe_file);
	u64 inode = LOAD8(exe, KERNEL_file_f_inode);
	now->uid = LOAD4(cred, KERNEL_cred_uid);
	now->gid = LOAD4(cred, KERNEL_cred_gid);
	now->euid = LOAD4(cred, KERNEL_cred_euid);
	now->cap_effective = LOAD8(cred, KERNEL_cred_cap_effective);
	now->mntns = LOAD4(LOAD8(nsproxy, KERNEL_nsproxy_mnt_ns), KERNEL_mnt_namespace_ns_inum);
	now->utsns = LOAD4(LOAD8(nsproxy, KERNEL_nsproxy_uts_ns), KERNEL_uts_namespace_ns_inum);
	now->cgroup_id = task_cgroup_id(task);
	now->exe_inode = LOAD8(inode, KERNEL_inode_i_ino);
	now->exe_dev = LOAD4(LOAD8(inode, KERNEL_inode_i_sb), KERNEL_super_block_s_dev);
	now->start_ns = LOAD8(task, KERNEL_task_struct_start_boottime);
	now->loginuid = LOAD_AUDIT(task, KERNEL_task_struct_loginuid);
	now->sessionid = LOAD_AUDIT(task, KERNEL_task_struct_sessionid);
}

/* True if a context has the same values. Branch-free, because the verifier would follow each branch. */
static __always_inline bool standing_is(const struct standing *now, const struct context *c)
{
	u64 wide = (now->cap_effective ^ c->cap_effective) | (now->cgroup_id ^ c->cgroup_id) |
		   (now->exe_inode ^ c->exe_inode) | (now->start_ns ^ c->thread_start_ns);
	u32 narrow = (now->uid ^ c->uid) | (now->gid ^ c->gid) | (now->euid ^ c->euid) | (now->mntns ^ c->mntns) |
		     (now->utsns ^ c->utsns) | (now->exe_dev ^ c->exe_dev) | (now->loginuid ^ c->loginuid) |
		     (now->sessionid ^ c->sessionid);
	return !(wide | narrow);
}

/* The policies in a context. */
static __always_inline bool policies_are(const struct subject *s, const struct context *c)
{
#ifdef POLICIES
	return c->policies == s->policies;
#else
	return true;
#endif
}

/* Return the cell of the task's context. Writes a new one unless the frame's last one still holds. */
static __always_inline u16 context_cell(struct frame *f, const struct subject *s)
{
	u64 task = s->task;
	u64 pid_tgid = ((u64)s->tgid << 32) | s->tid;
	u64 parent = LOAD8(task, KERNEL_task_struct_real_parent);
	u64 comm0 = LOAD8(task, KERNEL_task_struct_comm), comm1 = LOAD8(task, KERNEL_task_struct_comm + 8);
	struct standing now;
	standing_read(&now, task);
	u32 known = (u32)f->context * CELL_BYTES;
	OPAQUE(known);
	if (f->used && f->key[0] == pid_tgid && f->key[1] == parent && f->key[2] == comm0 && f->key[3] == comm1 &&
	    known <= CELLS_BYTES - sizeof(struct context) &&
	    standing_is(&now, (const struct context *)(f->cells + known)) &&
	    policies_are(s, (const struct context *)(f->cells + known)))
		return f->context;

	u32 at = f->used;
	OPAQUE(at);
	if (at > CELLS_BYTES - sizeof(struct context))
		return 0;
	struct context *c = (struct context *)(f->cells + at);
	/* before anything else: older verifiers keep the bounds of a pointer on the stack, but not those of `at` */
	OPAQUE(c);
	f->key[0] = pid_tgid;
	f->key[1] = parent;
	f->key[2] = comm0;
	f->key[3] = comm1;

	u64 leader = KREAD(u64, task + KERNEL_task_struct_group_leader);
	u64 pid = KREAD(u64, task + KERNEL_task_struct_thread_pid);
	u64 leader_pid = KREAD(u64, leader + KERNEL_task_struct_thread_pid);
	u64 parent_pid = KREAD(u64, parent + KERNEL_task_struct_thread_pid);
	u64 parent_leader = KREAD(u64, parent + KERNEL_task_struct_group_leader);
	u64 parent_leader_pid = KREAD(u64, parent_leader + KERNEL_task_struct_thread_pid);
	u32 level = KREAD(u32, pid + KERNEL_pid_level);
	u64 upid = KERNEL_pid_numbers + (u64)(level & 31) * KERNEL_upid_size;
	u64 pidns = KREAD(u64, pid + upid + KERNEL_upid_ns);
	u64 utsns = LOAD8(LOAD8(task, KERNEL_task_struct_nsproxy), KERNEL_nsproxy_uts_ns);

	c->thread_start_ns = now.start_ns;
	c->process_start_ns = KREAD(u64, leader + KERNEL_task_struct_start_boottime);
	c->parent_start_ns = KREAD(u64, parent_leader + KERNEL_task_struct_start_boottime);
	c->cgroup_id = now.cgroup_id;
	context_container(c);
	c->exe_inode = now.exe_inode;
	c->exe_dev = now.exe_dev;
	c->cap_effective = now.cap_effective;
	c->loginuid = now.loginuid;
	c->sessionid = now.sessionid;
	c->tgid = s->tgid;
	c->tid = s->tid;
	c->ppid = KREAD(u32, parent + KERNEL_task_struct_tgid);
	c->ns_tgid = KREAD(u32, leader_pid + upid + KERNEL_upid_nr);
	c->ns_tid = KREAD(u32, pid + upid + KERNEL_upid_nr);
	/* as getppid() returns it: 0 if the parent is outside the child's namespace */
	c->ns_ppid = KREAD(u64, parent_leader_pid + upid + KERNEL_upid_ns) == pidns ?
			     KREAD(u32, parent_leader_pid + upid + KERNEL_upid_nr) :
			     0;
	c->uid = now.uid;
	c->gid = now.gid;
	c->euid = now.euid;
	c->mntns = now.mntns;
	c->pidns = KREAD(u32, pidns + KERNEL_pid_namespace_ns_inum);
	c->utsns = now.utsns;
	u64 open = ~0ULL;
	*(u64 *)c->comm = up_to_nul(comm0, &open);
	*(u64 *)(c->comm + 8) = up_to_nul(comm1, &open);
	bpf_probe_read_kernel(c->nodename, sizeof(c->nodename), (void *)(utsns + KERNEL_uts_namespace_name_nodename));
#ifdef POLICIES
	c->policies = s->policies;
#endif
	f->context = at / CELL_BYTES;
	f->used = at + sizeof(struct context);
	return f->context;
}

/* Count an event as produced and lost, without writing a record. */
static __always_inline void record_lost(u32 slot, u32 event)
{
	u32 cpu = bpf_get_smp_processor_id(), at = cpu * SLOTS + slot;
	struct counts *counts = produced.lookup(&cpu);
	struct mark *m = marks.lookup(&at);
	u64 now = ktime_boot_ns();
	if (!counts || !m)
		return;
	if (slot == FACTS)
		m->facts++;
	else
		counts->events[event]++;
	time_loss(m, now, now);
	m->lost_room++;
}

/* Count the event as produced and begin its record. Returns false if the record cannot be written. */
static __always_inline bool record_begin(void *ctx, struct writer *w, const struct subject *s, u32 slot, u16 event,
					 u32 arguments, u32 room)
{
	if (slot != FACTS && !policies_want(s, event))
		return false;
	u32 cpu = bpf_get_smp_processor_id(), at = cpu * SLOTS + slot;
	struct counts *counts = produced.lookup(&cpu);
	struct mark *m = marks.lookup(&at);
	struct frame *f = frames.lookup(&slot);
	if (!counts || !m)
		return false;
	if (slot == FACTS) {
		m->facts++;
	} else {
		/* in a register and of 64 bits: older verifiers lose the bounds of a copy, and of a value on the stack */
		u64 number = event;
		OPAQUE(number);
		if (number >= EVENTS)
			return false;
		counts->events[number]++;
	}
	if (!f) {
		m->lost_room++;
		return false;
	}
	if (!claim(&m->busy)) {
		u64 now = ktime_boot_ns();
		time_loss(m, now, now);
		m->lost_nested++;
		return false;
	}
	u32 cells = 1 + (arguments + 2) / 4;
	u32 most = sizeof(struct context) + RECORD_CELLS * CELL_BYTES + round_up(room, CELL_BYTES);
#ifdef STACK_ADDRESSES
	most += STACK_ROOM;
#endif
	if (f->used + most > CELLS_BYTES) {
		if (f->heads)
			frame_send(ctx, f, m, slot);
		f->used = 0;
	}
	u64 now = ktime_boot_ns();
	if (!f->heads) {
		/* the frame may hold the context of a removed record: it can be used for a while */
		if (now - f->first_ns > CONTEXT_KEPT_NS)
			f->used = 0;
		if (!f->used)
			f->first_ns = now;
		f->shard = s->tgid % SHARDS;
		*(volatile u64 *)&m->first_ns = now;
	}
	u16 context = context_cell(f, s);
	u32 start = f->used;
	OPAQUE(start);
	if (start > CELLS_BYTES - RECORD_CELLS * CELL_BYTES) {
		time_loss(m, now, now);
		m->lost_room++;
		m->busy = 0;
		return false;
	}
	struct head *h = (struct head *)(f->cells + start);
	h->time_ns = now;
	h->retval = 0;
	h->event = event;
	h->context = context;
	h->cells = cells;
	h->flags = s->head_flags;
	h->blobs = 0;
	h->arg0 = 0;
	/* clear arguments that a program does not write; system calls write all of theirs */
	if (__builtin_constant_p(arguments))
#pragma unroll
		for (u32 i = 0; i < (arguments + 2) / 4 * (CELL_BYTES / 8); i++)
			((u64 *)(h + 1))[i] = 0;
	f->last_ns = now;
	w->frame = f;
	w->mark = m;
	w->head = h;
	w->slot = slot;
	w->start = start;
	w->event = event;
	BLOB_AT(w) = start + cells * CELL_BYTES;
	return true;
}

/* Begin the record of an event of the current task. Also returns false if the task is out of scope. */
static __always_inline bool event_begin(void *ctx, struct writer *w, bool urgent, u16 event, u32 arguments, u32 room)
{
	struct subject s;
	if (!in_scope(&s, current_task_btf()) || (s.flags & GROUP_ARMED))
		return false;
	return record_begin(ctx, w, &s, urgent ? URGENT : s.tgid % SHARDS, event, arguments, room);
}

#ifdef STACK_ADDRESSES
/* The caller's user stack, as far as frame pointers lead, in a blob behind all others. */
static __always_inline void blob_stack(void *ctx, struct writer *w)
{
	u64 at = BLOB_AT(w);
	if (at > CELLS_BYTES - STACK_ROOM)
		return;
	struct blob *b = (struct blob *)(w->frame->cells + at);
	long n = bpf_get_stack(ctx, b + 1, STACK_DEPTH * 8, BPF_F_USER_STACK);
	b->arg = STACK;
	b->status = (n < 0 ? BLOB_FAULT : BLOB_OK) | SOURCE_USER_EXIT;
	b->bytes = n < 0 ? 0 : n;
	b->whole = 0;
	w->head->blobs++;
	BLOB_AT(w) += sizeof(*b) + (n < 0 ? 0 : n);
}
#endif

#ifdef EARLY
/*
 * Remove the record: its event counts as never produced. If the frame holds one context and no
 * other record, the context stays for the next record, because reading it is the most expensive
 * step. With more than one context the frame starts again.
 */
static __always_inline void record_take_back(struct writer *w)
{
	struct frame *f = w->frame;
	u32 cpu = bpf_get_smp_processor_id();
	struct counts *counts = produced.lookup(&cpu);
	u64 number = w->event;
	OPAQUE(number);
	if (counts && number < EVENTS)
		counts->events[number]--;
	f->used = f->heads || w->start == sizeof(struct context) ? w->start : 0;
	if (!f->heads)
		*(volatile u64 *)&w->mark->first_ns = 0;
	*(volatile u64 *)&w->mark->busy = 0;
}
#endif

static __always_inline void record_end(void *ctx, struct writer *w)
{
	struct frame *f = w->frame;
#ifdef EARLY
	if (w->slot != FACTS && !record_passes(w->head, w->event)) {
		record_take_back(w);
		return;
	}
#endif
#ifdef STACK_ADDRESSES
	if (w->slot != FACTS)
		blob_stack(ctx, w);
#endif
	u32 end = round_up(BLOB_AT(w), CELL_BYTES), cell = w->start / CELL_BYTES, word = cell >> 6;
	OPAQUE(word);
	f->bitmap[word & (BITMAP_WORDS - 1)] |= 1ULL << (cell & 63);
	w->head->cells = (end - w->start) / CELL_BYTES;
	f->used = end;
	f->heads++;
	if (w->slot >= URGENT || end > CELLS_BYTES - sizeof(struct context) - 2 * CELL_BYTES)
		frame_send(ctx, f, w->mark, w->slot);
	*(volatile u64 *)&w->mark->busy = 0;
}

/* Send this CPU's frame of a slot, before idling or on demand. Returns true if it was sent. */
static __always_inline bool flush_slot(void *ctx, u32 cpu, u32 slot)
{
	u32 at = cpu * SLOTS + slot;
	struct mark *m = marks.lookup(&at);
	if (!m || !m->first_ns)
		return false;
	struct frame *f = frames.lookup(&slot);
	if (!f || !claim(&m->busy))
		return false;
	if (f->used)
		frame_send(ctx, f, m, slot);
	*(volatile u64 *)&m->busy = 0;
	return true;
}
