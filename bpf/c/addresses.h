/*
 * addresses.h - socket addresses of recorded calls. If the kernel's socket has the address, it is
 * read from there. An address that the kernel writes to the caller's memory is truncated to the
 * buffer size that the caller passed: the bytes behind it are the caller's own. The length that the
 * call returns is that of the whole address, so the buffer size is saved at the call's entry. If
 * the entry is not seen (socketcall), no byte of the address is recorded.
 */
#define ADDRESS_BYTES 128
#define MAX_ITEMS 0x10000 /* upper bound of a count that the caller passed */

#ifdef WANT_ROOMS
static __always_inline int keep_room(u64 at)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	u32 room = 0;
	if (at && !bpf_probe_read_user(&room, sizeof(room), (void *)at))
		rooms.update(&pid_tgid, &room);
	return 0;
}

int enter_recvfrom(struct bpf_raw_tracepoint_args *ctx)
{
	u64 a[6];
	entered_arguments(a);
	return a[4] ? keep_room(a[5]) : 0;
}

int enter_recvmsg(struct bpf_raw_tracepoint_args *ctx)
{
	u64 a[6];
	entered_arguments(a);
	return keep_room(a[1] + (SYSCALL_IS_COMPAT(current_task_btf()) ? 4 : 8));
}
#endif

/* Size of the address buffer that the caller passed, at most ADDRESS_BYTES. Deletes the saved size. */
static __always_inline u32 taken_room(void)
{
	u32 room = 0;
#ifdef WANT_ROOMS
	u64 pid_tgid = bpf_get_current_pid_tgid();
	u32 *kept = rooms.lookup(&pid_tgid);
	if (kept)
		room = *kept;
	rooms.delete(&pid_tgid);
#endif
	return room < ADDRESS_BYTES ? room : ADDRESS_BYTES;
}

/* The address of msg_name of a msghdr in the caller's memory; `*bytes` is msg_namelen. */
static __always_inline u64 message_name(u64 message, bool narrow, u32 *bytes)
{
	u64 name = 0;
	u32 width = narrow ? 4 : 8;
	bpf_probe_read_user(&name, width, (void *)message);
	bpf_probe_read_user(bytes, sizeof(*bytes), (void *)(message + width));
	return name;
}

/* The iovecs and control messages of a msghdr, as the two arguments after the address (`arg`). */
static __always_inline void write_message(struct writer *w, u32 arg, u64 message, bool narrow)
{
	u64 vectors = 0, count = 0, control = 0, bytes = 0;
	u32 width = narrow ? 4 : 8;
	bpf_probe_read_user(&vectors, width, (void *)(message + 2 * width));
	bpf_probe_read_user(&count, width, (void *)(message + 3 * width));
	bpf_probe_read_user(&control, width, (void *)(message + 4 * width));
	bpf_probe_read_user(&bytes, width, (void *)(message + 5 * width));
	blob_small(w, arg + 1, vectors, (count < MAX_ITEMS ? count : MAX_ITEMS) * 2 * width, SMALL_BYTES);
	blob_small(w, arg + 2, control, bytes, SMALL_BYTES);
}

#define MMSGHDR_BYTES(narrow) ((narrow) ? 32 : 64)

static __always_inline void write_address(struct writer *w, const struct call *call, u64 task, s64 retval)
{
	u32 kind = call->address, bytes = 0, most = ADDRESS_BYTES, arg = 1;
	u64 first = written_argument(w, 0), second = written_argument(w, 1), address = second;
	if (retval < 0 && kind < ADDRESS_MSG_SENT)
		return;
	if (kind <= ADDRESS_ACCEPTED) {
		u64 sock = file_sock(task_file(task, kind == ADDRESS_ACCEPTED ? retval : first));
		u16 family = sock ? KREAD(u16, sock + KERNEL_sock___sk_common + KERNEL_sock_common_skc_family) : 0;
		if (family == AF_INET || family == AF_INET6 || family == AF_UNIX) {
			blob_socket_address(w, 1, sock, kind != ADDRESS_OWN);
			return;
		}
		bpf_probe_read_user(&bytes, sizeof(bytes), (void *)written_argument(w, 2));
	} else if (kind == ADDRESS_RECEIVED) {
		arg = 4;
		most = taken_room();
		address = written_argument(w, 4);
		bpf_probe_read_user(&bytes, sizeof(bytes), (void *)written_argument(w, 5));
	} else {
		arg = kind == ADDRESS_MMSG_SENT ? 4 : 3;
		address = message_name(second, call->narrow, &bytes);
		if (kind == ADDRESS_MSG_RECEIVED)
			most = taken_room();
		/* further messages may have other destinations: mark the first address as truncated */
		u32 other = 0;
		if (kind == ADDRESS_MMSG_SENT && written_argument(w, 2) > 1 &&
		    message_name(second + MMSGHDR_BYTES(call->narrow), call->narrow, &other)) {
			most = bytes < ADDRESS_BYTES ? bytes : ADDRESS_BYTES;
			bytes++;
		}
	}
	blob_memory(w, arg, address, bytes, most);
	if (kind == ADDRESS_MSG_RECEIVED || kind == ADDRESS_MSG_SENT)
		write_message(w, arg, second, call->narrow);
}
