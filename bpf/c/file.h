/* file.h - an open file: from a task's descriptor to its struct file, its inode and what they say. */
#define O_PATH 010000000

/* The file behind a descriptor of the task; 0 if there is none. */
static __always_inline u64 task_file(u64 task, u32 fd)
{
	u64 table = KREAD(u64, LOAD8(task, KERNEL_task_struct_files) + KERNEL_files_struct_fdt);
	if (fd >= KREAD(u32, table + KERNEL_fdtable_max_fds))
		return 0;
	return KREAD(u64, KREAD(u64, table + KERNEL_fdtable_fd) + (u64)fd * 8);
}

/* As the kernel counts devices: major << 20 | minor. */
static __always_inline u64 file_device(u64 inode)
{
	u32 dev = KREAD(u32, KREAD(u64, inode + KERNEL_inode_i_sb) + KERNEL_super_block_s_dev);
	return dev;
}

static __always_inline u64 file_inode(u64 file)
{
	return KREAD(u64, file + KERNEL_file_f_inode);
}

/*
 * Since 6.13 the highest bit of the nanoseconds says that somebody has asked for the time (I_CTIME_QUERIED
 * of include/linux/fs.h); before, it is never set.
 */
#define CTIME_QUERIED (1U << 31)
static __always_inline u64 inode_ctime_ns(u64 inode)
{
	u32 ns = KREAD(u32, inode + KERNEL_inode_ctime_nsec) & ~CTIME_QUERIED;
	return KREAD(u64, inode + KERNEL_inode_ctime_sec) * 1000000000ULL + ns;
}

