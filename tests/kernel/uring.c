/*
 * uring.c - io_uring without a library: each operation is submitted, and its result is printed as
 * "user_data result" when it has completed. argv[1] is a directory of the test's own; with argv[2] the
 * kernel's thread takes the submissions (SQPOLL).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define OP_BIND 56 /* IORING_OP_BIND, since 6.11: older headers have it not */

static int ring;
static unsigned *sq_tail, *sq_mask, *sq_array, *sq_flags, *cq_head, *cq_tail, *cq_mask;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;
static int polling;

static int submit(struct io_uring_sqe sqe)
{
	unsigned tail = *sq_tail, flags = IORING_ENTER_GETEVENTS;
	sqe.user_data = 1000 + tail;
	sqes[tail & *sq_mask] = sqe;
	sq_array[tail & *sq_mask] = tail & *sq_mask;
	__atomic_store_n(sq_tail, tail + 1, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (polling && (__atomic_load_n(sq_flags, __ATOMIC_ACQUIRE) & IORING_SQ_NEED_WAKEUP))
		flags |= IORING_ENTER_SQ_WAKEUP;
	if (syscall(SYS_io_uring_enter, ring, polling ? 0 : 1, 1, flags, NULL, 0) < 0)
		exit(3);
	unsigned head = *cq_head;
	while (head == __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE))
		;
	struct io_uring_cqe *cqe = &cqes[head & *cq_mask];
	int result = cqe->res;
	printf("%llu %d\n", (unsigned long long)cqe->user_data, result);
	__atomic_store_n(cq_head, head + 1, __ATOMIC_RELEASE);
	return result;
}

int main(int argc, char **argv)
{
	struct io_uring_params p = { .flags = argc > 2 ? IORING_SETUP_SQPOLL : 0 };
	polling = argc > 2;
	int folder = open(argv[1], O_PATH);
	ring = syscall(SYS_io_uring_setup, 4, &p);
	if (ring < 0)
		return 2;
	printf("ring %d\n", ring);
	char *sq = mmap(0, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	char *cq = mmap(0, p.cq_off.cqes + p.cq_entries * sizeof(*cqes), PROT_READ | PROT_WRITE, MAP_SHARED, ring,
			IORING_OFF_CQ_RING);
	sqes = mmap(0, p.sq_entries * sizeof(*sqes), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	sq_tail = (void *)(sq + p.sq_off.tail), sq_mask = (void *)(sq + p.sq_off.ring_mask);
	sq_array = (void *)(sq + p.sq_off.array), sq_flags = (void *)(sq + p.sq_off.flags);
	cq_head = (void *)(cq + p.cq_off.head), cq_tail = (void *)(cq + p.cq_off.tail);
	cq_mask = (void *)(cq + p.cq_off.ring_mask), cqes = (void *)(cq + p.cq_off.cqes);

	submit((struct io_uring_sqe){ .opcode = IORING_OP_NOP, .fd = -1 });
	int fd = submit((struct io_uring_sqe){ .opcode = IORING_OP_OPENAT, .fd = folder, .addr = (unsigned long)"made",
					       .open_flags = O_CREAT | O_RDWR, .len = 0600 });
	submit((struct io_uring_sqe){ .opcode = IORING_OP_WRITE, .fd = fd, .addr = (unsigned long)"text", .len = 4 });
	submit((struct io_uring_sqe){ .opcode = IORING_OP_RENAMEAT, .fd = folder, .addr = (unsigned long)"made",
				      .len = folder, .addr2 = (unsigned long)"renamed" });
	if (chdir(argv[1]))
		return 4;
	submit((struct io_uring_sqe){ .opcode = IORING_OP_UNLINKAT, .fd = AT_FDCWD, .addr = (unsigned long)"renamed" });
	submit((struct io_uring_sqe){ .opcode = IORING_OP_CLOSE, .fd = fd });

	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(0), .sin_addr.s_addr = htonl(0x7f010203) };
	struct sockaddr_in there = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(0x7f040506) };
	struct iovec text = { "text", 4 };
	struct msghdr message = { .msg_name = &there, .msg_namelen = sizeof(there), .msg_iov = &text, .msg_iovlen = 1 };
	int udp = socket(AF_INET, SOCK_DGRAM, 0);
	submit((struct io_uring_sqe){ .opcode = OP_BIND, .fd = udp, .addr = (unsigned long)&here, .addr2 = sizeof(here) });
	submit((struct io_uring_sqe){ .opcode = IORING_OP_SENDMSG, .fd = udp, .addr = (unsigned long)&message, .len = 1 });
	submit((struct io_uring_sqe){ .opcode = IORING_OP_CONNECT, .fd = udp, .addr = (unsigned long)&there,
				      .off = sizeof(there) });
	return 0;
}
