/*
 * told.h - images that records have reported. Workers know a process by its exec. The image of a
 * process that ran before headrace, or that entered the scope later, is reported when its first
 * call ends. All images are reported again after a worker is restarted. An image is identified by
 * its mm: exec creates a new one, and a fork's child has another.
 */
static __always_inline u64 told_epoch(void)
{
	u32 zero = 0;
	struct status *st = status.lookup(&zero);
	return st ? *(volatile u64 *)&st->told_epoch : 0;
}

static __always_inline u64 group_start_ns(u64 task)
{
	u64 leader = KREAD(u64, task + KERNEL_task_struct_group_leader);
	return KREAD(u64, leader + KERNEL_task_struct_start_boottime);
}

static __always_inline void told_image(u64 task, u32 tgid)
{
	struct told t = {
		.mm = KREAD(u64, task + KERNEL_task_struct_mm),
		.start_ns = group_start_ns(task),
		.epoch = told_epoch(),
	};
	told.update(&tgid, &t);
}

static __always_inline bool is_told(u64 task, u32 tgid, u64 mm)
{
	struct told *t = told.lookup(&tgid);
	return t && t->mm == mm && t->epoch == told_epoch() && t->start_ns == group_start_ns(task);
}

/* A child has its creator's image, and counts as reported if its creator does. */
static __always_inline void told_inherit(u64 task, u32 tgid, u64 child, u32 child_tgid)
{
	if (is_told(task, tgid, KREAD(u64, task + KERNEL_task_struct_mm)))
		told_image(child, child_tgid);
}

/* True if the subject's image must be reported. The result is cached with its flags (group_flags()). */
static __always_inline bool untold(const struct subject *s)
{
	u32 zero = 0;
	u64 mm = LOAD8(s->task, KERNEL_task_struct_mm);
	struct group_cache *c = group_caches.lookup(&zero);
	if (!c || !mm || (c->tgid == s->tgid && c->told_mm == mm))
		return false;
	if (!is_told(s->task, s->tgid, mm))
		return true;
	if (c->tgid == s->tgid)
		c->told_mm = mm;
	return false;
}

/* For the programs at sys_exit only: they run again after the image is reported. */
static __always_inline void tell_first(void *ctx, const struct subject *s)
{
	if (!(s->flags & GROUP_ARMED) && untold(s))
		objects.call(ctx, PROGRAM_tell);
}
