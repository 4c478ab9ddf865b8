/* file.h - open files: from a task's descriptor to its struct file and inode. */
#define O_PATH 010000000

/* The struct file behind a descriptor of the task, 0 if there is none. */
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

/* Identity of a file. All zero if there is no inode. */
struct file_id {
	u64 device; /* as the kernel counts: major << 20 | minor */
	u64 inode;
	u64 ctime_ns;
};

/*
 * The leading part of struct inode that covers the identity. One helper call reads it, because a
 * call costs more than the extra bytes.
 */
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
 * Since 6.13 the top bit of the nanoseconds marks a ctime that has been queried (I_CTIME_QUERIED in
 * include/linux/fs.h). Before, it is never set.
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
#else /* on older kernels, stack space is the tighter limit */
	struct file_id id = {
		.device = KREAD(u32, KREAD(u64, inode + KERNEL_inode_i_sb) + KERNEL_super_block_s_dev),
		.inode = KREAD(u64, inode + KERNEL_inode_i_ino),
		.ctime_ns = KREAD(u64, inode + KERNEL_inode_ctime_sec) * 1000000000ULL +
			    (KREAD(u32, inode + KERNEL_inode_ctime_nsec) & ~CTIME_QUERIED),
	};
#endif
	return id;
}
