/* sockets.c - socket calls: family, type and both addresses, as the kernel has them. */
#define EAGAIN 11
#define EINTR 4
#define EALREADY 114
#define F_DUPFD 0
#define F_DUPFD_CLOEXEC 1030

static __always_inline bool socket_exit_begin(struct bpf_raw_tracepoint_args *ctx, struct exit_context *o)
{
	return exit_context_of(ctx, o, current_task_btf(), FAMILY_SOCKETCALL);
}

/* The address as passed, for calls after which the kernel keeps none. */
static __always_inline void blob_passed_address(struct writer *w, u32 arg, u64 address, u32 bytes)
{
	blob_memory(w, arg, address, bytes, 128);
}

/* True if the call reached a socket. If not, there is no event. */
static __always_inline bool socket_was_there(s64 retval)
{
	return retval != -EBADF && retval != -ENOTSOCK && retval != -EFAULT;
}

#define SOCKET_ROOM 512

#ifdef EVENT_security_socket_create
int on_socket_create(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	struct writer w;
	if (BY_CHECK_security_socket_create || !socket_exit_begin(ctx, &o) || o.retval < 0)
		return 0;
	if (!record_begin(ctx, &w, &o.s, o.s.tgid % SHARDS, EVENT_security_socket_create, 4, 0))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	s32 pair = 0;
	u64 sock = file_sock(exit_context_file(&o));
	if (o.call->variant == VARIANT_PAIR) {
		bpf_probe_read_user(&pair, sizeof(pair), (void *)o.a[3]);
		sock = file_sock(task_file(o.s.task, pair));
	}
	if (sock) {
		w.head->arg0 = KREAD(u16, sock + KERNEL_sock___sk_common + KERNEL_sock_common_skc_family);
		a[0] = KREAD(u16, sock + KERNEL_sock_sk_type);
		a[1] = KREAD(u16, sock + KERNEL_sock_sk_protocol);
	} else {
		w.head->flags |= HEAD_NO_OBJECT;
	}
	a[2] = 0; /* not created by the kernel itself */
	record_end(ctx, &w);
	return 0;
}
#endif

/* bind and connect: the socket's current address if the call set it, else the address as passed. */
static __always_inline void address_event(void *ctx, const struct exit_context *o, u16 event, bool remote, bool taken)
{
	struct writer w;
	if (!socket_was_there(o->retval))
		return;
	u64 sock = file_sock(exit_context_file(o));
	if (!sock || !record_begin(ctx, &w, &o->s, o->s.tgid % SHARDS, event, 2, SOCKET_ROOM))
		return;
	w.head->arg0 = o->a[0];
	w.head->retval = o->retval;
	u64 common = sock + KERNEL_sock___sk_common;
	u16 family = KREAD(u16, common + KERNEL_sock_common_skc_family);
	if (remote && family != AF_UNIX && !KREAD(u16, common + KERNEL_sock_common_skc_dport))
		taken = false;
	if (remote && family == AF_UNIX && !KREAD(u64, sock + KERNEL_unix_sock_peer))
		taken = false;
	if (taken && (family == AF_INET || family == AF_INET6 || family == AF_UNIX))
		blob_socket_address(&w, 1, sock, remote);
	else
		blob_passed_address(&w, 1, o->a[1], o->a[2]);
	record_end(ctx, &w);
}

#ifdef EVENT_security_socket_bind
int on_socket_bind(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	if (!BY_CHECK_security_socket_bind && socket_exit_begin(ctx, &o))
		address_event(ctx, &o, EVENT_security_socket_bind, false, o.retval == 0);
	return 0;
}
#endif

#ifdef EVENT_security_socket_connect
int on_socket_connect(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	if (BY_CHECK_security_socket_connect || !socket_exit_begin(ctx, &o))
		return 0;
	s64 r = o.retval;
	bool under_way = r == 0 || r == -EINPROGRESS || r == -EALREADY || r == -EINTR || r == -ERESTARTSYS;
	address_event(ctx, &o, EVENT_security_socket_connect, true, under_way);
	return 0;
}
#endif

#ifdef EVENT_security_socket_listen
int on_socket_listen(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	struct writer w;
	if (BY_CHECK_security_socket_listen || !socket_exit_begin(ctx, &o) || !socket_was_there(o.retval))
		return 0;
	u64 sock = file_sock(exit_context_file(&o));
	if (!sock || !record_begin(ctx, &w, &o.s, o.s.tgid % SHARDS, EVENT_security_socket_listen, 3, SOCKET_ROOM))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	w.head->arg0 = o.a[0];
	w.head->retval = o.retval;
	a[1] = o.a[1];
	blob_socket_address(&w, 1, sock, false);
	record_end(ctx, &w);
	return 0;
}
#endif

#if defined(EVENT_security_socket_accept) || defined(EVENT_socket_accept)
int on_socket_accept(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	struct writer w;
	if (!socket_exit_begin(ctx, &o) || !socket_was_there(o.retval))
		return 0;
	u64 sock = file_sock(exit_context_file(&o));
	if (!sock)
		return 0;
#ifdef EVENT_security_socket_accept
	if (!BY_CHECK_security_socket_accept &&
	    record_begin(ctx, &w, &o.s, o.s.tgid % SHARDS, EVENT_security_socket_accept, 2, SOCKET_ROOM)) {
		w.head->arg0 = o.a[0];
		w.head->retval = o.retval;
		blob_socket_address(&w, 1, sock, false);
		record_end(ctx, &w);
	}
#endif
#ifdef EVENT_socket_accept
	u64 accepted = o.retval < 0 ? 0 : file_sock(task_file(o.s.task, o.retval));
	if (accepted && record_begin(ctx, &w, &o.s, o.s.tgid % SHARDS, EVENT_socket_accept, 3, SOCKET_ROOM)) {
		w.head->arg0 = o.a[0];
		w.head->retval = o.retval;
		blob_socket_address(&w, 1, accepted, false);
		blob_socket_address(&w, 2, accepted, true);
		record_end(ctx, &w);
	}
#endif
	return 0;
}
#endif

#ifdef EVENT_security_socket_setsockopt
int on_socket_setsockopt(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	struct writer w;
	if (BY_CHECK_security_socket_setsockopt || !socket_exit_begin(ctx, &o) || !socket_was_there(o.retval))
		return 0;
	u64 sock = file_sock(exit_context_file(&o));
	if (!sock || !record_begin(ctx, &w, &o.s, o.s.tgid % SHARDS, EVENT_security_socket_setsockopt, 4, SOCKET_ROOM))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	w.head->arg0 = o.a[0];
	w.head->retval = o.retval;
	a[0] = o.a[1];
	a[1] = o.a[2];
	blob_socket_address(&w, 3, sock, false);
	record_end(ctx, &w);
	return 0;
}
#endif

#ifdef EVENT_socket_dup
/* dup, dup2, dup3, fcntl(F_DUPFD), pidfd_getfd: the new descriptor is the result. */
int on_socket_dup(struct bpf_raw_tracepoint_args *ctx)
{
	struct exit_context o = {};
	struct writer w;
	if (!socket_exit_begin(ctx, &o) || o.retval < 0)
		return 0;
	u32 command = o.a[1];
	if (o.call->variant == VARIANT_FCNTL && command != F_DUPFD && command != F_DUPFD_CLOEXEC)
		return 0;
	u64 sock = file_sock(task_file(o.s.task, o.retval));
	if (!sock || !record_begin(ctx, &w, &o.s, o.s.tgid % SHARDS, EVENT_socket_dup, 3, SOCKET_ROOM))
		return 0;
	u64 *a = (u64 *)(w.head + 1);
	/* for pidfd_getfd, the old descriptor belongs to another process */
	w.head->arg0 = exit_context_argument(&o, o.call->fd);
	w.head->retval = o.retval;
	a[0] = o.retval;
	blob_socket_address(&w, 2, sock, true);
	record_end(ctx, &w);
	return 0;
}
#endif
