/*
 * uring.c - io_uring. An operation submitted to a ring does the work of a system call without being
 * one. A ring is reported when it is created, an operation when the kernel takes it from the ring:
 * its opcode, its descriptor, the file behind that, and the names that the kernel has copied
 * (io_uring/opdef.c lists which operation has which).
 */
#define IORING_SETUP_SQPOLL 2
#define REQ_F_FIXED_FILE 1 /* fd is an index into the ring's own table of files */
#define OP(name) (1ULL << KERNEL_IORING_OP_##name)

#ifdef EVENT_io_uring_create
int on_io_uring_create(struct bpf_raw_tracepoint_args *ctx)
{
	struct writer w;
	if (!event_begin(ctx, &w, false, EVENT_io_uring_create, 5, 0))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	w.head->arg0 = RING_FD(ctx);
	a[0] = RING_SUBMISSIONS(ctx);
	a[1] = RING_COMPLETIONS(ctx);
	a[2] = RING_FLAGS(ctx);
	a[3] = (RING_FLAGS(ctx) & IORING_SETUP_SQPOLL) != 0;
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef EVENT_io_uring_submit
#define HAS_FILE                                                                                       \
	(OP(READV) | OP(WRITEV) | OP(FSYNC) | OP(READ_FIXED) | OP(WRITE_FIXED) | OP(POLL_ADD) |        \
	 OP(SYNC_FILE_RANGE) | OP(SENDMSG) | OP(RECVMSG) | OP(ACCEPT) | OP(CONNECT) | OP(FALLOCATE) |  \
	 OP(READ) | OP(WRITE) | OP(FADVISE) | OP(SEND) | OP(RECV) | OP(SPLICE) | OP(TEE) |             \
	 OP(SHUTDOWN) | OP(MSG_RING) | OP(FSETXATTR) | OP(FGETXATTR) | OP(URING_CMD) | OP(SEND_ZC) |   \
	 OP(SENDMSG_ZC) | OP(READ_MULTISHOT) | OP(FTRUNCATE) | OP(BIND) | OP(LISTEN) | OP(RECV_ZC) |   \
	 OP(EPOLL_WAIT) | OP(READV_FIXED) | OP(WRITEV_FIXED) | OP(FIXED_FD_INSTALL))

static __always_inline s32 uring_names(struct writer *w, u64 request, u32 dirfd, u32 name, u32 new_name)
{
	u64 filename = KREAD(u64, request + name);
	blob_string(w, 5, KREAD(u64, filename + KERNEL_filename_name), false);
	if (new_name) {
		filename = KREAD(u64, request + new_name);
		blob_string(w, 6, KREAD(u64, filename + KERNEL_filename_name), false);
	}
	return KREAD(s32, request + dirfd);
}

/*
 * The descriptor of an operation. Also writes its names. An operation with names has both in a
 * union of the request, whose layout depends on the operation.
 */
static __always_inline s32 uring_operands(struct writer *w, u64 r, u64 op)
{
	if (op & HAS_FILE)
		return KREAD(s32, r + KERNEL_io_kiocb_cqe_fd);
	/* with a slot it closes an entry of the ring's own table, and the descriptor is unused */
	if (op & OP(CLOSE))
		return KREAD(u32, r + KERNEL_io_close_file_slot) ? -1 : KREAD(s32, r + KERNEL_io_close_fd);
	if (op & (OP(OPENAT) | OP(OPENAT2)))
		return uring_names(w, r, KERNEL_io_open_dfd, KERNEL_io_open_filename, 0);
	if (op & OP(STATX))
		return uring_names(w, r, KERNEL_io_statx_dfd, KERNEL_io_statx_filename, 0);
	if (op & OP(UNLINKAT))
		return uring_names(w, r, KERNEL_io_unlink_dfd, KERNEL_io_unlink_filename, 0);
	if (op & OP(MKDIRAT))
		return uring_names(w, r, KERNEL_io_mkdir_dfd, KERNEL_io_mkdir_filename, 0);
	if (op & OP(RENAMEAT))
		return uring_names(w, r, KERNEL_io_rename_old_dfd, KERNEL_io_rename_oldpath, KERNEL_io_rename_newpath);
	if (op & OP(LINKAT))
		return uring_names(w, r, KERNEL_io_link_old_dfd, KERNEL_io_link_oldpath, KERNEL_io_link_newpath);
	if (op & OP(SYMLINKAT))
		return uring_names(w, r, KERNEL_io_link_new_dfd, KERNEL_io_link_oldpath, KERNEL_io_link_newpath);
	return -1;
}

#ifdef KERNEL_io_bind_addr_len
static __always_inline bool is_address(u64 at)
{
	u16 family = KREAD(u16, at);
	return family == AF_UNIX || family == AF_INET || family == AF_INET6;
}

/*
 * The kernel's copy of the address, or 0 if there is none yet. On newer kernels, the async data of
 * CONNECT and BIND is only the address. On others it is an io_async_msghdr, which has the address
 * in the middle and begins with a pointer. The pointer is aligned or NULL, so it cannot be mistaken
 * for one of these families.
 */
static __always_inline u64 uring_copy(u64 request, u64 op, u32 *bytes)
{
	u64 data = KREAD(u64, request + KERNEL_io_kiocb_async_data), name = data + KERNEL_io_async_msghdr_addr;
	if (!data)
		return 0;
#ifdef KERNEL_io_async_msghdr_vec
	if (op & (OP(SENDMSG) | OP(SENDMSG_ZC))) {
		*bytes = KREAD(u32, data + KERNEL_io_async_msghdr_msg_msg_namelen);
		return KREAD(u64, data + KERNEL_io_async_msghdr_msg_msg_name) == name ? name : 0;
	}
	if (op & OP(CONNECT)) {
		*bytes = KREAD(u32, request + KERNEL_io_connect_addr_len);
		return is_address(data) ? data : 0;
	}
#endif
	if (!(op & OP(BIND)))
		return 0;
	*bytes = KREAD(u32, request + KERNEL_io_bind_addr_len);
	return is_address(data) ? data : is_address(name) ? name : 0;
}
#endif

/* The address passed to an operation: the kernel's copy, or else the caller's memory. */
static __always_inline void uring_address(struct writer *w, u64 request, u64 op)
{
	u64 address = 0;
	u32 bytes = 0;
#ifdef KERNEL_io_bind_addr_len
	address = uring_copy(request, op, &bytes);
	if (address) {
		blob_memory_of(w, 8, address, bytes, ADDRESS_BYTES, SOURCE_KERNEL, STRING_BYTES);
		return;
	}
#endif
#ifdef KERNEL_io_connect_addr
	if (op & OP(CONNECT)) {
		address = KREAD(u64, request + KERNEL_io_connect_addr);
		bytes = KREAD(u32, request + KERNEL_io_connect_addr_len);
	}
	if (op & (OP(SENDMSG) | OP(SENDMSG_ZC)))
		address = message_name(KREAD(u64, request + KERNEL_io_sr_msg_umsg), false, &bytes);
#endif
	if (address)
		blob_memory_of(w, 8, address, bytes, ADDRESS_BYTES, SOURCE_USER_ENTRY, STRING_BYTES);
}

int on_io_uring_submit_req(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = current_task_btf(), request = RING_REQUEST(ctx);
	struct writer w;
	struct walks *j = walks_begin();
	if (!j || !event_begin(ctx, &w, false, EVENT_io_uring_submit, 9, 2 * BLOB_ROOM + PATH_ROOM + 256))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	u32 code = KREAD(u8, request + KERNEL_io_kiocb_opcode);
	u64 op = code < 64 ? 1ULL << code : 0;
	s32 fd = uring_operands(&w, request, op);
	bool indexed = KREAD(u64, request + KERNEL_io_kiocb_flags) & REQ_F_FIXED_FILE;
	u64 file = indexed ? 0 : task_file(task, fd);
	w.head->arg0 = code;
	a[0] = fd;
	struct file_id id = file_id(file ? file_inode(file) : 0);
	a[2] = id.device;
	a[3] = id.inode;
	a[6] = KREAD(u64, request + KERNEL_io_kiocb_cqe_user_data);
	uring_address(&w, request, op);
	if (!file)
		w.head->flags |= HEAD_NO_OBJECT;
	if (file)
		path_later(j, 2, file_place(file));
	else if (fd == AT_FDCWD)
		path_later(j, 2, task_cwd(task));
	record_walk(ctx, &w, j, 0);
	return 0;
}
#endif
