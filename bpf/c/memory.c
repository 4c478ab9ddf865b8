/*
 * memory.c - mappings and their protection. What a region was before mprotect is known only before it,
 * so it is read at the entry of the call, from the process's own list of regions, and kept for its exit.
 */
#define PROT_READ 1
#define PROT_EXEC 4
#define VM_WRITE 2
#define VM_EXEC 4
#define MAP_ANONYMOUS 0x20
#define MMAP2_SHIFT 12 /* what mmap2(2) counts in */

enum alert {
	ALERT_MAPPED_WRITE_EXEC = 1,
	ALERT_ADDED_EXEC = 2,
	ALERT_ADDED_WRITE = 3,
	ALERT_TOOK_WRITE = 4, /* was writable, is executable and no longer writable */
};

#ifdef WANT_REGIONS
/* Before mprotect: which regions it will touch, and what they may do. */
static __always_inline int keep_regions(u64 start, u64 bytes)
{
	struct subject s;
	u64 task = current_task_btf(), pid_tgid = bpf_get_current_pid_tgid();
	u64 mm = LOAD8(task, KERNEL_task_struct_mm), at = start;
	u32 zero = 0;
	if (!in_scope(&s, task))
		return 0;
	struct regions *r = regions_scratch.lookup(&zero);
	if (!r)
		return 0;
	r->count = r->done = 0;
	for (int i = 0; i < REGIONS && at < start + bytes; i++) {
		u64 region = region_of(mm, at);
		if (!region)
			break;
		r->was[i].flags = KREAD(u64, region + KERNEL_vm_area_struct_vm_flags);
		r->was[i].start = KREAD(u64, region + KERNEL_vm_area_struct_vm_start);
		at = KREAD(u64, region + KERNEL_vm_area_struct_vm_end);
		r->was[i].end = at;
		r->count = i + 1;
	}
	regions.update(&pid_tgid, r);
	return 0;
}

int enter_mprotect(struct bpf_raw_tracepoint_args *ctx)
{
	u64 a[6];
	entered_arguments(a);
	return keep_regions(a[0], a[1]);
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

static __always_inline void memory_alert(void *ctx, const struct occasion *o, u32 alert, u64 start, u64 bytes,
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
/* mmap that succeeded; *file is 0 if it is of none. */
static __always_inline bool mapping_begin(struct bpf_raw_tracepoint_args *ctx, struct occasion *o, u64 *file)
{
	if (!occasion_of(ctx, o, current_task_btf(), FAMILY_STRUCT) || (o->retval < 0 && o->retval >= -MAX_ERRNO))
		return false;
	bool anonymous = (o->a[3] & MAP_ANONYMOUS) || (s32)o->a[4] < 0;
	*file = anonymous ? 0 : task_file(o->s.task, o->a[4]);
	return true;
}

/* One event a program, each goes on with the next. */
int on_mmap(struct bpf_raw_tracepoint_args *ctx)
{
#ifdef EVENT_do_mmap
	struct occasion o = {};
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
	struct occasion o = {};
	u64 file = 0;
	if (!mapping_begin(ctx, &o, &file))
		return 0;
	if ((o.a[2] & (PROT_WRITE | PROT_EXEC)) == (PROT_WRITE | PROT_EXEC))
		memory_alert(ctx, &o, ALERT_MAPPED_WRITE_EXEC, o.retval, o.a[1], 0, file, PROGRAM_mmap_shared);
	if (file)
		objects.call(ctx, PROGRAM_mmap_shared);
	return 0;
}

/* A shared, writable mapping of a file's beginning: what is stored there later shows no call. */
int on_mmap_shared(struct bpf_raw_tracepoint_args *ctx)
{
	struct occasion o = {};
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
	struct occasion o = {};
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

/* Mapped from a file to be run: what a dynamic linker does with a library. */
int on_mmap_object(struct bpf_raw_tracepoint_args *ctx)
{
#ifdef EVENT_shared_object_loaded
	struct occasion o = {};
	struct writer w;
	struct walks *j = walks_begin();
	u64 file = 0;
	if (!j || !mapping_begin(ctx, &o, &file) || !file)
		return 0;
	if ((o.a[2] & (PROT_READ | PROT_WRITE | PROT_EXEC)) != (PROT_READ | PROT_EXEC))
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

/* The file behind the region at hand, if it has one, and the part of it that the call was about. */
static __always_inline u64 region_file(const struct occasion *o, const struct regions *r, u32 i, u64 *start, u64 *end)
{
	*start = r->was[i].start < o->a[0] ? o->a[0] : r->was[i].start;
	*end = r->was[i].end > o->a[0] + o->a[1] ? o->a[0] + o->a[1] : r->was[i].end;
	u64 region = region_of(LOAD8(o->s.task, KERNEL_task_struct_mm), *start);
	return region ? KREAD(u64, region + KERNEL_vm_area_struct_vm_file) : 0;
}

/* One region a run: the alert, then on_mprotect_file, then this program again for the next. */
int on_mprotect(struct bpf_raw_tracepoint_args *ctx)
{
	struct occasion o = {};
	u64 pid_tgid = bpf_get_current_pid_tgid(), start = 0, end = 0;
	struct regions *r = regions.lookup(&pid_tgid);
	if (!r || !occasion_begin(ctx, &o))
		return 0;
	u32 i = r->done;
	if (o.retval || i >= r->count || i >= REGIONS) {
		regions.delete(&pid_tgid);
		return 0;
	}
	u32 alert = alert_for(r->was[i].flags, o.a[2]);
	if (alert) {
		u64 file = region_file(&o, r, i, &start, &end);
		memory_alert(ctx, &o, alert, start, end - start, r->was[i].flags, file, PROGRAM_mprotect_file);
	}
	objects.call(ctx, PROGRAM_mprotect_file);
	return 0;
}

int on_mprotect_file(struct bpf_raw_tracepoint_args *ctx)
{
	struct occasion o = {};
	u64 pid_tgid = bpf_get_current_pid_tgid(), start = 0, end = 0;
	struct regions *r = regions.lookup(&pid_tgid);
	if (!r || !occasion_begin(ctx, &o))
		return 0;
	u32 i = r->done++;
#ifdef EVENT_security_file_mprotect
	struct writer w;
	struct walks *j = walks_begin();
	u64 file = i < REGIONS ? region_file(&o, r, i, &start, &end) : 0;
	if (j && file && record_begin(ctx, &w, &o.s, o.s.tgid % SHARDS, EVENT_security_file_mprotect, 3, PATH_ROOM)) {
		u64 *a = (u64 *)(w.head + 1);
		a[0] = o.a[2];
		a[1] = file_id(file_inode(file)).ctime_ns;
		path_later(j, 0, file_place(file));
		record_walk(ctx, &w, j, PROGRAM_mprotect);
	}
#endif
	objects.call(ctx, PROGRAM_mprotect);
	return 0;
}
#endif
