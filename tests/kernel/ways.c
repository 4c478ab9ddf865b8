/* ways.c - calls made in ways that libc has not: each is what its comment says, whatever the number's upper half. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define UPPER_HALF 0x100000000L

/* `int $0x80`: the 32-bit table from a 64-bit program. */
static long call_32(long number, long first, long second)
{
	long result;
	asm volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second) : "memory", "r8", "r9", "r10", "r11");
	return result;
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
	char *low = mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	uint32_t *words = (uint32_t *)low;
	struct sockaddr_in *address = (struct sockaddr_in *)(low + 64);
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

static void run(const char *name, void (*way)(void))
{
	pid_t child = fork();
	if (!child) {
		prctl(PR_SET_NAME, name);
		way();
		_exit(0);
	}
	waitpid(child, 0, 0);
}

int main(void)
{
	run("upper_half", upper_half);
	run("unnamed", unnamed);
	run("newer", newer);
	run("socketcall", socketcall);
	run("ipc", ipc);
	run("checked", checked);
	return 0;
}
