/*
 * told.h - of which images a record has told. Workers know a process by its exec; one that was running
 * before headrace, or came into the scope later, is told of when its first call ends, and all are told of
 * again when a worker was started anew. An image is its mm: an exec has another, a fork's child as well.
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

/* A child has its creator's image. */
static __always_inline void told_inherit(u64 task, u32 tgid, u64 child, u32 child_tgid)
{
	if (is_told(task, tgid, KREAD(u64, task + KERNEL_task_struct_mm)))
		told_image(child, child_tgid);
}

/* Whether the subject's image must be told of; remembered with its flags (group_flags()). */
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

/* Only from the programs at sys_exit: they are run again once it is told. */
static __always_inline void tell_first(void *ctx, const struct subject *s)
{
	if (!(s->flags & GROUP_ARMED) && untold(s))
		objects.call(ctx, PROGRAM_tell);
}
