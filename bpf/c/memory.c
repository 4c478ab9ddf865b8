/*
 * memory.c - mappings and their protection. A region's protection before mprotect is known only
 * before the call. It is read at the entry of the call, from the process's own list of regions, and
 * kept until the exit.
 */
#define PROT_READ 1
#define PROT_EXEC 4
#define VM_WRITE 2
#define VM_EXEC 4
#define MAP_ANONYMOUS 0x20
#define MMAP2_SHIFT 12 /* mmap2(2) counts in units of 4096 bytes */

enum alert {
	ALERT_MAPPED_WRITE_EXEC = 1,
	ALERT_ADDED_EXEC = 2,
	ALERT_ADDED_WRITE = 3,
	ALERT_TOOK_WRITE = 4, /* was writable, is executable and no longer writable */
};

#define VM_PROTECTION 7 /* VM_READ, VM_WRITE and VM_EXEC are PROT_READ, PROT_WRITE and PROT_EXEC */
#define READ_IMPLIES_EXEC 0x0400000 /* of personality(2): readable memory is executable */

static __always_inline bool reading_is_executing(u64 task)
{
	return LOAD4(task, KERNEL_task_struct_personality) & READ_IMPLIES_EXEC;
}

#ifdef WANT_REGIONS
static __always_inline u32 alert_for(u64 was, u64 is)
{
	if (!(is & PROT_EXEC))
		return 0;
	if ((was & VM_WRITE) && !(is & PROT_WRITE))
		return ALERT_TOOK_WRITE;
	if (!(was & VM_EXEC))
		return ALERT_ADDED_EXEC;
	return !(was & VM_WRITE) && (is & PROT_WRITE) ? ALERT_ADDED_WRITE : 0;
}

/* The most that a region can allow after a call that asks for `protection`. */
static __always_inline u64 can_become(u64 task, u64 protection)
{
	return (protection & PROT_READ) && reading_is_executing(task) ? protection | PROT_EXEC : protection;
}

/* Progress over the regions that a call is about to change. */
struct passing {
	struct regions *kept;
	u64 mm;
	u64 at;
	u64 end;
	u64 protection;
};

/* True if a call can raise an event. */
static __always_inline bool regions_matter(u64 protection)
{
#ifdef EVENT_security_file_mprotect
	return true;
#endif
	return protection & PROT_EXEC;
}

static __always_inline bool region_matters(u64 region, u64 flags, u64 protection)
{
#ifdef EVENT_security_file_mprotect
	if (KREAD(u64, region + KERNEL_vm_area_struct_vm_file))
		return true;
#endif
	return alert_for(flags, protection);
}

LOOP_BODY(region_passed, struct passing *p)
{
	struct regions *r = p->kept;
	u64 region = region_of(p->mm, p->at);
	if (!region) {
		p->at = p->end;
		return 1;
	}
	u64 flags = KREAD(u64, region + KERNEL_vm_area_struct_vm_flags);
	if (region_matters(region, flags, p->protection)) {
		u32 i = r->count;
		if (i >= REGIONS - 1)
			return 1;
		r->was[i].flags = flags;
		r->was[i].start = KREAD(u64, region + KERNEL_vm_area_struct_vm_start);
		r->was[i].end = KREAD(u64, region + KERNEL_vm_area_struct_vm_end);
		r->count = i + 1;
	}
	p->at = KREAD(u64, region + KERNEL_vm_area_struct_vm_end);
	return p->at >= p->end;
}

/* Keep the remaining range as one region with unknown flags: it has more regions than are kept or visited. */
static __always_inline void keep_rest(struct regions *r, u64 start, u64 end)
{
	u32 i = r->count;
	if (i >= REGIONS)
		return;
	r->was[i].flags = 0;
	r->was[i].start = start;
	r->was[i].end = end;
	r->rest = r->count = i + 1;
}

static __always_inline struct regions *regions_begin(void)
{
	u32 zero = 0;
	struct regions *r = regions_scratch.lookup(&zero);
	if (r)
		r->count = r->done = r->rest = 0;
	return r;
}

/* Before mprotect: keep the regions that it is about to change, and their flags. */
static __always_inline int keep_regions(u64 start, u64 bytes, u64 protection)
{
	struct subject s;
	u64 task = current_task_btf(), pid_tgid = bpf_get_current_pid_tgid();
	struct passing p = {
		.mm = LOAD8(task, KERNEL_task_struct_mm),
		.at = start,
		.end = start + bytes,
		.protection = can_become(task, protection),
	};
	if (!regions_matter(p.protection) || !in_scope(&s, task))
		return 0;
	p.kept = regions_begin();
	if (!p.kept)
		return 0;
	LOOP(REGIONS_PASSED, region_passed, &p);
	if (p.at < p.end)
		keep_rest(p.kept, p.at, p.end);
	regions.update(&pid_tgid, p.kept);
	return 0;
}

int enter_mprotect(struct bpf_raw_tracepoint_args *ctx)
{
	u64 a[6];
	entered_arguments(a);
	return keep_regions(a[0], a[1], a[2]);
}
#endif

static __always_inline void write_file(struct writer *w, struct walks *j, u32 path, u32 first, u64 file)
{
	u64 *a = (u64 *)(w->head + 1);
	struct file_id id = file_id(file_inode(file));
	a[first - 1] = id.device;
	a[first] = id.inode;
	a[first + 1] = id.ctime_ns;
	path_later(j, path, file_place(file));
}

static __always_inline void memory_alert(void *ctx, const struct exit_context *o, u32 alert, u64 start, u64 bytes,
					 u64 before, u64 file, u32 then)
{
#ifdef EVENT_mem_prot_alert
	struct writer w;
	struct walks *j = walks_begin();
	if (!j || !record_begin(ctx, &w, &o->s, o->s.tgid % SHARDS, EVENT_mem_prot_alert, 9, PATH_ROOM))
		return;
	u64 *a = (u64 *)(w.head + 1);
	w.head->arg0 = alert;
	a[0] = start;
	a[1] = bytes;
	a[2] = o->a[2];
	a[3] = before & 7;
	a[5] = a[6] = a[7] = 0;
	if (file)
		write_file(&w, j, 5, 6, file);
	else
		w.head->flags |= HEAD_NO_OBJECT;
	record_walk(ctx, &w, j, then);
#endif
}

#ifdef WANT_MMAP
/* True if a mmap in scope succeeded. *file is 0 if the mapping has no file. */
static __always_inline bool mapping_begin(struct bpf_raw_tracepoint_args *ctx, struct exit_context *o, u64 *file)
{
	if (!exit_context_of(ctx, o, current_task_btf(), FAMILY_STRUCT) || (o->retval < 0 && o->retval >= -MAX_ERRNO))
		return false;
	bool anonymous = (o->a[3] & MAP_ANONYMOUS) || (s32)o->a[4] < 0;
	*file = anonymous ? 0 : task_file(o->s.task, o->a[4]);
	return true;
}

/* The protection that a new mapping has. */
static __always_inline u64 mapped_protection(const struct exit_context *o)
{
	u64 region = reading_is_executing(o->s.task) ? region_of(LOAD8(o->s.task, KERNEL_task_struct_mm), o->retval) : 0;
	return region ? KREAD(u64, region + KERNEL_vm_area_struct_vm_flags) & VM_PROTECTION : o->a[2];
}

/* Each program emits one event and continues with the next program. */
int on_mmap(struct bpf_raw_tracepoint_args *ctx)
{
#ifdef EVENT_do_mmap
	struct exit_context o = {};
	struct writer w;
	struct walks *j = walks_begin();
	u64 file = 0;
	if (!j || !mapping_begin(ctx, &o, &file))
		return 0;
	if (record_begin(ctx, &w, &o.s, o.s.tgid % SHARDS, EVENT_do_mmap, 10, PATH_ROOM)) {
		u64 *a = (u64 *)(w.head + 1);
		w.head->arg0 = o.retval;
		a[5] = o.call->variant == VARIANT_PAGES ? o.a[5] : o.a[5] >> MMAP2_SHIFT;
		a[6] = o.a[1];
		a[7] = o.a[2];
		a[8] = o.a[3];
		if (file) {
			a[1] = KREAD(u32, file + KERNEL_file_f_flags);
			write_file(&w, j, 1, 3, file);
		} else {
			w.head->flags |= HEAD_NO_OBJECT;
		}
		record_walk(ctx, &w, j, PROGRAM_mmap_alert);
	}
#endif
	objects.call(ctx, PROGRAM_mmap_alert);
	return 0;
}

int on_mmap_alert(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	u64 file = 0;
	if (!mapping_begin(ctx, &o, &file))
		return 0;
	if ((mapped_protection(&o) & (PROT_WRITE | PROT_EXEC)) == (PROT_WRITE | PROT_EXEC))
		memory_alert(ctx, &o, ALERT_MAPPED_WRITE_EXEC, o.retval, o.a[1], 0, file, PROGRAM_mmap_shared);
	if (file)
		objects.call(ctx, PROGRAM_mmap_shared);
	return 0;
}

/* A shared, writable mapping of a file's beginning: later stores to it make no call. */
int on_mmap_shared(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	u64 file = 0;
	if (!mapping_begin(ctx, &o, &file) || !file)
		return 0;
	if (!o.a[5] && (o.a[2] & PROT_WRITE) && (o.a[3] & MAP_SHARED_TYPE) && is_regular(file_inode(file)))
		magic_write(ctx, &o, file, true, PROGRAM_mmap_file);
	objects.call(ctx, PROGRAM_mmap_file);
	return 0;
}

int on_mmap_file(struct bpf_raw_tracepoint_args *ctx)
{
#ifdef EVENT_security_mmap_file
	struct exit_context o = {};
	struct writer w;
	struct walks *j = walks_begin();
	u64 file = 0;
	if (!j || !mapping_begin(ctx, &o, &file) || !file)
		return 0;
	if (record_begin(ctx, &w, &o.s, o.s.tgid % SHARDS, EVENT_security_mmap_file, 8, PATH_ROOM)) {
		u64 *a = (u64 *)(w.head + 1);
		a[0] = KREAD(u32, file + KERNEL_file_f_flags);
		a[4] = o.a[2];
		a[5] = o.a[3];
		a[6] = SYSCALL_NUMBER(registers_of(o.s.task));
		write_file(&w, j, 0, 2, file);
		record_walk(ctx, &w, j, PROGRAM_mmap_object);
	}
#endif
	objects.call(ctx, PROGRAM_mmap_object);
	return 0;
}

/* A file mapped for execution, as a dynamic linker maps a library. */
int on_mmap_object(struct bpf_raw_tracepoint_args *ctx)
{
#ifdef EVENT_shared_object_loaded
	struct exit_context o = {};
	struct writer w;
	struct walks *j = walks_begin();
	u64 file = 0;
	if (!j || !mapping_begin(ctx, &o, &file) || !file)
		return 0;
	if ((mapped_protection(&o) & VM_PROTECTION) != (PROT_READ | PROT_EXEC))
		return 0;
	if (record_begin(ctx, &w, &o.s, o.s.tgid % SHARDS, EVENT_shared_object_loaded, 5, PATH_ROOM)) {
		u64 *a = (u64 *)(w.head + 1);
		a[0] = KREAD(u32, file + KERNEL_file_f_flags);
		write_file(&w, j, 0, 2, file);
		record_walk(ctx, &w, j, 0);
	}
#endif
	return 0;
}
#endif

#ifdef WANT_REGIONS
/* A region of the call and its protection now. The call may have failed after the first regions. */
struct changed {
	u64 start;
	u64 end;
	u64 was;
	u64 is;
	u64 file;
};

static __always_inline void changed_region(struct changed *c, const struct exit_context *o, const struct regions *r, u32 i)
{
	u64 asked = can_become(o->s.task, o->a[2]);
	c->was = r->was[i].flags;
	c->start = r->was[i].start < o->a[0] ? o->a[0] : r->was[i].start;
	c->end = r->was[i].end > o->a[0] + o->a[1] ? o->a[0] + o->a[1] : r->was[i].end;
	c->is = asked;
	c->file = 0;
	u64 region = region_of(LOAD8(o->s.task, KERNEL_task_struct_mm), c->start);
	if (region) {
		c->is = KREAD(u64, region + KERNEL_vm_area_struct_vm_flags);
		c->file = KREAD(u64, region + KERNEL_vm_area_struct_vm_file);
	}
	if (i + 1 == r->rest)
		c->is = asked;
}

/* Regions kept at the entry. If other threads' calls evicted them: the whole range, flags unknown. */
static __always_inline struct regions *kept_regions(const struct exit_context *o, u64 pid_tgid)
{
	struct regions *r = regions.lookup(&pid_tgid);
	if (r || !regions_matter(can_become(o->s.task, o->a[2])))
		return r;
	r = regions_begin();
	if (!r)
		return 0;
	keep_rest(r, o->a[0], o->a[0] + o->a[1]);
	regions.update(&pid_tgid, r);
	return regions.lookup(&pid_tgid);
}

/* One region per run: the alert, then on_mprotect_file, then this program again for the next region. */
int on_mprotect(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	struct changed c;
	u64 pid_tgid = bpf_get_current_pid_tgid();
	if (!exit_context_begin(ctx, &o))
		return 0;
	struct regions *r = kept_regions(&o, pid_tgid);
	if (!r)
		return 0;
	u32 i = r->done;
	if (i >= r->count || i >= REGIONS) {
		regions.delete(&pid_tgid);
		return 0;
	}
	changed_region(&c, &o, r, i);
	u32 alert = alert_for(c.was, c.is);
	if (alert)
		memory_alert(ctx, &o, alert, c.start, c.end - c.start, c.was, c.file, PROGRAM_mprotect_file);
	objects.call(ctx, PROGRAM_mprotect_file);
	return 0;
}

int on_mprotect_file(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	struct changed c = {};
	u64 pid_tgid = bpf_get_current_pid_tgid();
	struct regions *r = regions.lookup(&pid_tgid);
	if (!r || !exit_context_begin(ctx, &o))
		return 0;
	u32 i = r->done++;
#ifdef EVENT_security_file_mprotect
	struct writer w;
	struct walks *j = walks_begin();
	if (i < REGIONS)
		changed_region(&c, &o, r, i);
	bool happened = !o.retval || ((c.was ^ c.is) & VM_PROTECTION);
	if (j && c.file && happened &&
	    record_begin(ctx, &w, &o.s, o.s.tgid % SHARDS, EVENT_security_file_mprotect, 3, PATH_ROOM)) {
		u64 *a = (u64 *)(w.head + 1);
		a[0] = o.a[2];
		a[1] = file_id(file_inode(c.file)).ctime_ns;
		path_later(j, 0, file_place(c.file));
		record_walk(ctx, &w, j, PROGRAM_mprotect);
	}
#endif
	objects.call(ctx, PROGRAM_mprotect);
	return 0;
}
#endif

#ifdef WANT_SHMAT
/* System V shared memory, with the region's protection. ipc(2) stores the address where `third` points. */
int on_shmat(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	if (!exit_context_of(ctx, &o, current_task_cold(), FAMILY_IPC) || (o.retval < 0 && o.retval >= -MAX_ERRNO))
		return 0;
	u64 start = o.retval, a[6];
	if (!start) {
		u32 narrow = 0;
		SYSCALL_ARGUMENTS(a, current_registers(), true);
		bpf_probe_read_user(&narrow, sizeof(narrow), (void *)a[3]);
		start = narrow;
	}
	u64 region = region_of(LOAD8(o.s.task, KERNEL_task_struct_mm), start);
	o.a[2] = region ? KREAD(u64, region + KERNEL_vm_area_struct_vm_flags) & VM_PROTECTION : 0;
	if ((o.a[2] & PROT_WRITE) && (o.a[2] & PROT_EXEC))
		memory_alert(ctx, &o, ALERT_MAPPED_WRITE_EXEC, start,
			     KREAD(u64, region + KERNEL_vm_area_struct_vm_end) - start, 0, 0, 0);
	return 0;
}
#endif
