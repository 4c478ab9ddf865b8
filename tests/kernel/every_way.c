/*
 * every_way.c - each call that signatures look at, made in every way that reaches it. Built as a program of 64 bits and of
 * 32. Each is made by a process whose comm is `WAY CALL`, of 15 bytes; what came of it is a line `WAY CALL RESULT`.
 *
 *   every_way FOLDER
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/net.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define INTEGER(i) (1 << (i)) /* argument i is an int: the kernel does not look at its upper half */

struct call {
	const char *name;
	int number;
	int number32;
	int integers;
	long a[5];
};

static char *low; /* in the lower 4 GiB, where all ways can point to */
static char *next;

static long text(const char *what)
{
	char *at = next;
	next += strlen(what) + 1;
	strcpy(at, what);
	return (long)at;
}

static long raw(long number, const long *a)
{
	long result;
#ifdef __x86_64__
	register long r10 asm("r10") = a[3], r8 asm("r8") = a[4];
	asm volatile("syscall" : "=a"(result) : "a"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8)
		     : "memory", "rcx", "r11");
#else
	asm volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a[0]), "c"(a[1]), "d"(a[2]), "S"(a[3]), "D"(a[4]) : "memory");
#endif
	return result;
}

static long plain(const struct call *c)
{
#ifdef __x86_64__
	return raw(c->number, c->a);
#else
	return raw(c->number32, c->a);
#endif
}

static void *by_thread(void *c)
{
	return (void *)plain(c);
}

static long in_thread(const struct call *c)
{
	pthread_t thread;
	void *result;
	pthread_create(&thread, 0, by_thread, (void *)c);
	pthread_join(thread, &result);
	return (long)result;
}

static long after_vfork(const struct call *c)
{
	volatile long result = 0;
	pid_t child = vfork();
	if (!child) {
		result = plain(c);
		_exit(0);
	}
	waitpid(child, 0, 0);
	return result;
}

#ifdef __x86_64__
static long number_up(const struct call *c)
{
	return raw(0x5a00000000000000L | c->number, c->a);
}

static long arguments_up(const struct call *c)
{
	long a[5];
	for (int i = 0; i < 5; i++)
		a[i] = c->integers & INTEGER(i) ? (long)((uint32_t)c->a[i] | 0x7700000000000000UL) : c->a[i];
	return raw(c->number, a);
}

static long by_gate(const struct call *c)
{
	long result;
	asm volatile("int $0x80" : "=a"(result) : "a"((long)c->number32), "b"(c->a[0]), "c"(c->a[1]), "d"(c->a[2]), "S"(c->a[3]), "D"(c->a[4])
		     : "memory", "r8", "r9", "r10", "r11");
	return result;
}

static long by_gate_up(const struct call *c)
{
	long result;
	asm volatile("int $0x80" : "=a"(result) : "a"(0x100000000L | c->number32), "b"(c->a[0]), "c"(c->a[1]), "d"(c->a[2]), "S"(c->a[3]), "D"(c->a[4])
		     : "memory", "r8", "r9", "r10", "r11");
	return result;
}

static long by_x32(const struct call *c)
{
	return raw(0x40000000 | c->number, c->a);
}
#endif

static const struct {
	const char *name;
	long (*go)(const struct call *c);
} ways[] = {
	{ "pl", plain },
	{ "th", in_thread },
	{ "vf", after_vfork },
#ifdef __x86_64__
	{ "nr", number_up },
	{ "ar", arguments_up },
	{ "g8", by_gate },
	{ "gu", by_gate_up },
	{ "x3", by_x32 },
#endif
};

static void go(const char *way, long (*by)(const struct call *), const struct call *c)
{
	char comm[16];
	int both[2];
	long result = -ESRCH;
	pipe(both);
	snprintf(comm, sizeof(comm), "%s %s", way, c->name);
	pid_t child = fork();
	if (!child) {
		prctl(PR_SET_NAME, comm);
		result = by(c);
		prctl(PR_SET_NAME, "done");
		write(both[1], &result, sizeof(result));
		_exit(0);
	}
	close(both[1]);
	read(both[0], &result, sizeof(result)); /* nothing if it became another program */
	while (waitpid(-1, 0, __WALL) != child) /* a thread that let itself be traced is waited for, too */
		;
	close(both[0]);
	printf("%s %s %ld\n", way, c->name, result);
}

int main(int argc, char **argv)
{
	if (argc < 2 || chdir(argv[1]))
		return 2;
	setvbuf(stdout, 0, _IONBF, 0);
	next = low = mmap((void *)0x20000000, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	struct sockaddr_in *address = (struct sockaddr_in *)next;
	next += 64;
	*address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(4321), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int udp = socket(AF_INET, SOCK_DGRAM, 0);
	int here = AT_FDCWD;
	const struct call calls[] = {
		{ "open", 2, 5, INTEGER(1) | INTEGER(2), { text("made"), O_CREAT | O_WRONLY, 0600 } },
		{ "openat", 257, 295, INTEGER(0) | INTEGER(2) | INTEGER(3), { here, text("made"), O_CREAT | O_WRONLY, 0600 } },
		{ "creat", 85, 8, INTEGER(1), { text("made"), 0600 } },
		{ "rename", 82, 38, 0, { text("a"), text("b") } },
		{ "renameat", 264, 302, INTEGER(0) | INTEGER(2), { here, text("a"), here, text("b") } },
		{ "renameat2", 316, 353, INTEGER(0) | INTEGER(2) | INTEGER(4), { here, text("a"), here, text("b"), 0 } },
		{ "link", 86, 9, 0, { text("kept"), text("made") } },
		{ "linkat", 265, 303, INTEGER(0) | INTEGER(2) | INTEGER(4), { here, text("kept"), here, text("made"), 0 } },
		{ "symlink", 88, 83, 0, { text("kept"), text("made") } },
		{ "symlinkat", 266, 304, INTEGER(1), { text("kept"), here, text("made") } },
		{ "unlink", 87, 10, 0, { text("a") } },
		{ "unlinkat", 263, 301, INTEGER(0) | INTEGER(2), { here, text("a"), 0 } },
		{ "mknod", 133, 14, INTEGER(1) | INTEGER(2), { text("made"), S_IFIFO | 0600, 0 } },
		{ "mknodat", 259, 297, INTEGER(0) | INTEGER(2) | INTEGER(3), { here, text("made"), S_IFIFO | 0600, 0 } },
		{ "truncate", 76, 92, 0, { text("kept"), 0 } },
		{ "chmod", 90, 15, INTEGER(1), { text("kept"), 0600 } },
		{ "fchmodat", 268, 306, INTEGER(0) | INTEGER(2), { here, text("kept"), 0600 } },
		{ "socket", 41, 359, INTEGER(0) | INTEGER(1) | INTEGER(2), { AF_INET, SOCK_DGRAM, 0 } },
		{ "connect", 42, 362, INTEGER(0) | INTEGER(2), { udp, (long)address, sizeof(*address) } },
		{ "dup2", 33, 63, INTEGER(0) | INTEGER(1), { udp, 99 } },
		{ "ptrace", 101, 26, 0, { PTRACE_TRACEME, 0, 0, 0 } },
		{ "memfd_create", 319, 356, INTEGER(1), { text("made"), 0 } },
		{ "execve", 59, 11, 0, { text("./program"), 0, 0 } },
		{ "execveat", 322, 358, INTEGER(0) | INTEGER(4), { here, text("./program"), 0, 0, 0 } },
	};
	for (unsigned i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		for (unsigned j = 0; j < sizeof(ways) / sizeof(*ways); j++) {
			close(open("a", O_CREAT | O_WRONLY, 0600));
			close(open("kept", O_CREAT | O_WRONLY, 0600));
			unlink("made");
			unlink("b");
			go(ways[j].name, ways[j].go, &calls[i]);
		}
	return 0;
}
