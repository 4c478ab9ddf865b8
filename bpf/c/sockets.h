/* sockets.h - socket addresses, as the kernel has them. */
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define SOCKADDR_UNIX_BYTES 110

/* The struct sock behind a file, 0 if the file is not a socket. */
static __always_inline u64 file_sock(u64 file)
{
	if (!file || (KREAD(u16, file_inode(file) + KERNEL_inode_i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	u64 socket = KREAD(u64, file + KERNEL_file_private_data);
	return socket ? KREAD(u64, socket + KERNEL_socket_sk) : 0;
}

struct inet_address {
	u16 family;
	u16 port;
	union {
		struct {
			u32 address;
			u32 zero[2];
		} v4;
		struct {
			u32 flow;
			u32 address[4];
			u32 scope;
		} v6;
	};
};

static __always_inline void blob_inet(struct writer *w, u32 arg, u64 sock, u16 family, bool remote)
{
	struct blob *b = blob_begin(w, arg, sizeof(struct blob) + sizeof(struct inet_address));
	if (!b)
		return;
	struct inet_address a = {.family = family};
	u64 common = sock + KERNEL_sock___sk_common;
	if (remote)
		a.port = KREAD(u16, common + KERNEL_sock_common_skc_dport);
	else
		a.port = __builtin_bswap16(KREAD(u16, common + KERNEL_sock_common_skc_num));
	u32 bytes = 16;
	if (family == AF_INET) {
		a.v4.address = KREAD(u32, common + (remote ? KERNEL_sock_common_skc_daddr : KERNEL_sock_common_skc_rcv_saddr));
	} else {
		u64 at = common + (remote ? KERNEL_sock_common_skc_v6_daddr : KERNEL_sock_common_skc_v6_rcv_saddr);
		bpf_probe_read_kernel(&a.v6.address, 16, (void *)at);
		a.v6.scope = KREAD(u32, common + KERNEL_sock_common_skc_bound_dev_if);
		bytes = sizeof(a);
	}
	__builtin_memcpy(b + 1, &a, sizeof(a));
	blob_end(w, b, bytes, BLOB_OK | SOURCE_KERNEL);
}

/* An unnamed unix socket has only its family. */
static __always_inline void blob_unix(struct writer *w, u32 arg, u64 sock)
{
	struct blob *b = blob_begin(w, arg, sizeof(struct blob) + 2 * SOCKADDR_UNIX_BYTES);
	if (!b)
		return;
	u64 address = sock ? KREAD(u64, sock + KERNEL_unix_sock_addr) : 0;
	u64 bytes = address ? KREAD(u32, address + KERNEL_unix_address_len) : 2;
	u32 status = BLOB_OK;
	OPAQUE(bytes);
	if (bytes > SOCKADDR_UNIX_BYTES)
		bytes = SOCKADDR_UNIX_BYTES;
	*(u16 *)(b + 1) = AF_UNIX;
	if (address && bpf_probe_read_kernel(b + 1, bytes, (void *)(address + KERNEL_unix_address_name))) {
		status = BLOB_FAULT;
		bytes = 0;
	}
	blob_end(w, b, bytes, status | SOURCE_KERNEL);
}

/* A family whose addresses are not decoded here: only its number. */
static __always_inline void blob_family(struct writer *w, u32 arg, u16 family)
{
	struct blob *b = blob_begin(w, arg, sizeof(struct blob) + 8);
	if (!b)
		return;
	*(u16 *)(b + 1) = family;
	blob_end(w, b, 2, BLOB_OK | SOURCE_KERNEL);
}

static __always_inline void blob_socket_address(struct writer *w, u32 arg, u64 sock, bool remote)
{
	u16 family = KREAD(u16, sock + KERNEL_sock___sk_common + KERNEL_sock_common_skc_family);
	if (family == AF_INET || family == AF_INET6)
		blob_inet(w, arg, sock, family, remote);
	else if (family == AF_UNIX)
		blob_unix(w, arg, remote ? KREAD(u64, sock + KERNEL_unix_sock_peer) : sock);
	else
		blob_family(w, arg, family);
}
