/* file.h - an open file: from a task's descriptor to its struct file, its inode and what they say. */
#define O_PATH 010000000

/* The file behind a descriptor of the task; 0 if there is none. */
static __always_inline u64 task_file(u64 task, u32 fd)
{
	u64 table = LOAD8(LOAD8(task, KERNEL_task_struct_files), KERNEL_files_struct_fdt);
	if (fd >= LOAD4(table, KERNEL_fdtable_max_fds))
		return 0;
	return KREAD(u64, LOAD8(table, KERNEL_fdtable_fd) + (u64)fd * 8);
}

static __always_inline u64 file_inode(u64 file)
{
	return KREAD(u64, file + KERNEL_file_f_inode);
}

/* Which file an inode is. All zero for no inode. */
struct file_id {
	u64 device; /* as the kernel counts: major << 20 | minor */
	u64 inode;
	u64 ctime_ns;
};

/* The part of a struct inode that holds it, read by one call: a call costs more than the bytes do. */
#define LARGER(a, b) ((a) > (b) ? (a) : (b))
#define INODE_HEAD                                                                                         \
	(LARGER(LARGER(KERNEL_inode_i_sb, KERNEL_inode_i_ino),                                             \
		LARGER(KERNEL_inode_ctime_sec, KERNEL_inode_ctime_nsec)) +                                 \
	 8)
union inode_head {
	char bytes[INODE_HEAD];
	u64 words[INODE_HEAD / 8];
};

/*
 * Since 6.13 the highest bit of the nanoseconds says that somebody has asked for the time (I_CTIME_QUERIED
 * of include/linux/fs.h); before, it is never set.
 */
#define CTIME_QUERIED (1U << 31)
static __always_inline struct file_id file_id(u64 inode)
{
#ifdef HAVE_TASK
	union inode_head head = {};
	bpf_probe_read_kernel(&head, sizeof(head), (void *)inode);
	u32 ns = FIELD(&head, u32, KERNEL_inode_ctime_nsec) & ~CTIME_QUERIED;
	struct file_id id = {
		.device = KREAD(u32, FIELD(&head, u64, KERNEL_inode_i_sb) + KERNEL_super_block_s_dev),
		.inode = FIELD(&head, u64, KERNEL_inode_i_ino),
		.ctime_ns = FIELD(&head, u64, KERNEL_inode_ctime_sec) * 1000000000ULL + ns,
	};
#else /* there, stack is shorter than time */
	struct file_id id = {
		.device = KREAD(u32, KREAD(u64, inode + KERNEL_inode_i_sb) + KERNEL_super_block_s_dev),
		.inode = KREAD(u64, inode + KERNEL_inode_i_ino),
		.ctime_ns = KREAD(u64, inode + KERNEL_inode_ctime_sec) * 1000000000ULL +
			    (KREAD(u32, inode + KERNEL_inode_ctime_nsec) & ~CTIME_QUERIED),
	};
#endif
	return id;
}
