/* ways.c - calls made in ways that libc has not: each is what its comment says, whatever the number's upper half. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cases.h"

#define UPPER_HALF 0x100000000L

/* `int $0x80`: the 32-bit table from a 64-bit program. */
static long call_32_of_3(long number, long first, long second, long third)
{
	long result;
	asm volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second), "d"(third) : "memory", "r8", "r9", "r10", "r11");
	return result;
}

static long call_32(long number, long first, long second)
{
	return call_32_of_3(number, first, second, 0);
}

/* Memory that a 32-bit call can point to. */
static uint32_t *low_memory(void)
{
	return mmap((void *)0x10000000, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static void upper_half(void)
{
	syscall(UPPER_HALF | SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY);
}

static void unnamed(void)
{
	syscall(340);
	syscall(510);
	call_32(222, 0, 0);
}

static void newer(void)
{
	syscall(470, 0, 0, 0, 0);
}

static void socketcall(void)
{
	uint32_t *words = low_memory();
	struct sockaddr_in *address = (struct sockaddr_in *)(words + 16);
	words[0] = AF_INET;
	words[1] = SOCK_DGRAM;
	words[2] = 0;
	long fd = call_32(102, 1, (long)words);
	*address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(4321), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	words[0] = fd;
	words[1] = (uint32_t)(uintptr_t)address;
	words[2] = sizeof(*address);
	call_32(102, 3, (long)words);
}

static void ipc(void)
{
	call_32(117, 23, 77);
}

static void checked(void)
{
	char *argv[] = { "true", "only asked", 0 };
	syscall(SYS_execveat, AT_FDCWD, "/bin/true", argv, 0, 0x10000);
}

/* Calls that have their arguments in a struct. */
static void in_a_struct(void)
{
	uint32_t *words = low_memory();
	int file = open("/bin/true", O_RDONLY);
	words[0] = 0;
	words[1] = 4096;
	words[2] = PROT_READ | PROT_WRITE | PROT_EXEC;
	words[3] = MAP_PRIVATE | MAP_ANONYMOUS;
	words[4] = -1;
	words[5] = 0;
	call_32(90, (long)words, 0);
	words[2] = PROT_READ | PROT_EXEC;
	words[3] = MAP_PRIVATE;
	words[4] = file;
	call_32(90, (long)words, 0);
	words[0] = words[1] = words[2] = words[3] = words[4] = 0;
	words[0] = 1;
	words[4] = (uint32_t)(uintptr_t)(words + 8);
	call_32(82, (long)words, 0);
}

/* Calls of which something is known at their entry alone. */
static void at_the_entry(void)
{
	uint32_t *words = low_memory();
	call_32_of_3(125, (long)words + 4096, 4096, PROT_READ | PROT_EXEC);
	call_32(213, 1, 0); /* setuid32 */
	call_32(252, 7, 0); /* exit_group */
}

/* Filters that act on openat(2).  */
static int filter_openat(unsigned action, unsigned flags)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(*code), code };
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static void on_signal(int n)
{
	(void)n;
}

/* The number of openat, which a trapped call "returns", is an open file. */
static void trapped_open(void)
{
	dup2(open("/etc/passwd", O_PATH), SYS_openat);
	signal(SIGSYS, on_signal);
	filter_openat(SECCOMP_RET_TRAP, 0);
	syscall(SYS_openat, AT_FDCWD, "/etc/shadow", O_RDONLY);
}

static volatile int listener;

static void *answer(void *unused)
{
	struct seccomp_notif call = { 0 };
	while (!listener)
		sched_yield();
	ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call);
	struct seccomp_notif_resp made_up = { .id = call.id, .val = 0 };
	ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &made_up);
	return unused;
}

static void answered(void)
{
	pthread_t thread;
	pthread_create(&thread, 0, answer, 0);
	listener = filter_openat(SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
	syscall(SYS_openat, AT_FDCWD, "/etc/shadow", O_RDONLY);
	pthread_join(thread, 0);
}

/* Addresses that the kernel writes into too little room: what stands behind is the caller's. */
static void forged(void)
{
	struct sockaddr_in forged, own = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t room = sizeof(own);
	int listening = socket(AF_INET, SOCK_STREAM, 0), peer = socket(AF_INET, SOCK_STREAM, 0);
	int datagrams = socket(AF_INET, SOCK_DGRAM, 0);
	char byte = 'x';
	bind(listening, (void *)&own, sizeof(own));
	listen(listening, 1);
	getsockname(listening, (void *)&own, &room);
	connect(peer, (void *)&own, sizeof(own));
#define ROOM (memset(&forged, 'J', sizeof(forged)), room = 4, (void *)&forged)
	int accepted = accept4(listening, ROOM, &room, 0);
	getpeername(accepted, ROOM, &room);
	getsockname(accepted, ROOM, &room);
	own.sin_port = 0;
	bind(datagrams, (void *)&own, sizeof(own));
	room = sizeof(own);
	getsockname(datagrams, (void *)&own, &room);
	sendto(datagrams, &byte, 1, 0, (void *)&own, sizeof(own));
	recvfrom(datagrams, &byte, 1, 0, ROOM, &room);
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_name = &own, .msg_namelen = sizeof(own), .msg_iov = &data, .msg_iovlen = 1 };
	sendmsg(datagrams, &message, 0);
	message.msg_name = ROOM;
	message.msg_namelen = 4;
	recvmsg(datagrams, &message, 0);
	message.msg_name = &own;
	message.msg_namelen = sizeof(own);
	struct mmsghdr several[2] = { { message }, { message } };
	syscall(SYS_sendmmsg, datagrams, several, 1, 0);
	syscall(SYS_sendmmsg, datagrams, several, 2, 0);
	message.msg_name = 0;
	sendmsg(peer, &message, 0);
}

int main(void)
{
	run("upper_half", upper_half);
	run("unnamed", unnamed);
	run("newer", newer);
	run("socketcall", socketcall);
	run("ipc", ipc);
	run("in_a_struct", in_a_struct);
	run("at_the_entry", at_the_entry);
	run("checked", checked);
	run("trapped_open", trapped_open);
	run("answered", answered);
	run("forged", forged);
	return 0;
}
