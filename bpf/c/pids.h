/*
 * pids.h - from process and thread numbers to tasks. The numbers of a pid namespace are in a radix
 * tree (include/linux/idr.h, lib/xarray.c). The low bits of a node's address are 2, those of an
 * entry's address are 0.
 */
/* The number of a process or thread in its own namespace. */
static __always_inline u32 own_number(u64 task)
{
	u64 pid = KREAD(u64, task + KERNEL_task_struct_thread_pid);
	u32 level = KREAD(u32, pid + KERNEL_pid_level);
	return KREAD(u32, pid + KERNEL_pid_numbers + (u64)(level & 31) * KERNEL_upid_size + KERNEL_upid_nr);
}

#ifdef KERNEL_xa_node_slots
#define XA_NODE_MARK 2
#define XA_SLOTS 64
#define XA_LEVELS 6

/* The pid namespace of a process, `level` levels below the host's; 0 is the host's. */
static __always_inline u64 pid_namespace(u64 task, u64 level)
{
	u64 own = KREAD(u64, task + KERNEL_task_struct_thread_pid);
	return KREAD(u64, own + KERNEL_pid_numbers + level * KERNEL_upid_size + KERNEL_upid_ns);
}

/* The thread with number `nr` in a pid namespace, or 0. */
static __always_inline u64 task_numbered(u64 ns, u32 nr)
{
	u64 entry = KREAD(u64, ns + KERNEL_pid_namespace_idr_idr_rt_xa_head);
	u32 index = nr - KREAD(u32, ns + KERNEL_pid_namespace_idr_idr_base);
	for (int i = 0; i < XA_LEVELS; i++) {
		if ((entry & 3) != XA_NODE_MARK)
			break;
		u64 node = entry - XA_NODE_MARK;
		u32 slot = index >> (KREAD(u8, node + KERNEL_xa_node_shift) & 31);
		if (!i && slot >= XA_SLOTS)
			return 0;
		entry = KREAD(u64, node + KERNEL_xa_node_slots + (slot & (XA_SLOTS - 1)) * 8ULL);
	}
	if (!entry || (entry & 3))
		return 0;
	/* the first of tasks[PIDTYPE_PID] */
	u64 link = KREAD(u64, entry + KERNEL_pid_tasks);
	return link ? link - KERNEL_task_struct_pid_links : 0;
}

/* True if `nr` in the task's pid namespace is a thread of the task's own process. */
static __always_inline bool is_own_thread(u64 task, u32 nr)
{
	u64 own = KREAD(u64, task + KERNEL_task_struct_thread_pid);
	u64 found = task_numbered(pid_namespace(task, KREAD(u32, own + KERNEL_pid_level) & 31), nr);
	return found && KREAD(u32, found + KERNEL_task_struct_tgid) == KREAD(u32, task + KERNEL_task_struct_tgid);
}
#else
static __always_inline u64 pid_namespace(u64 task, u64 level)
{
	return 0;
}

static __always_inline u64 task_numbered(u64 ns, u32 nr)
{
	return 0;
}

static __always_inline bool is_own_thread(u64 task, u32 nr)
{
	return false;
}
#endif

/* The thread with number `nr` on the host, whose pid namespace has all threads. `task` may be any task. */
static __always_inline u64 task_of_host(u64 task, u32 nr)
{
	return task_numbered(pid_namespace(task, 0), nr);
}
