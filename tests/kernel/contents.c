/* contents.c - files written, and memory made executable, in ways that are easily missed. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cases.h"

#define PAGE 4096
#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS)

static const char *folder;

/* `int $0x80`: the 32-bit table from a 64-bit program. */
static long call_32(long number, long a, long b, long c, long d, long e)
{
	long result;
	asm volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory", "r8", "r9", "r10", "r11");
	return result;
}

static int file(const char *name, int flags)
{
	char path[PAGE];
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return open(path, O_RDWR | O_CREAT | O_TRUNC | flags, 0600);
}

/* Memory that a 32-bit call can point to, with `text` at its beginning. */
static char *low_memory(const char *text)
{
	char *low = mmap((void *)0x10000000, 2 * PAGE, PROT_READ | PROT_WRITE, ANONYMOUS | MAP_FIXED, -1, 0);
	strcpy(low, text);
	return low;
}

/* writev, pwritev and pwrite64 of the 32-bit table: two buffers, and positions in two halves. */
static void narrow(void)
{
	char *text = low_memory("#!/bin/sh");
	uint32_t *buffers = (uint32_t *)(text + PAGE);
	int to = file("narrow", 0);
	buffers[0] = (uint32_t)(uintptr_t)text;
	buffers[1] = 2;
	buffers[2] = buffers[0] + 2;
	buffers[3] = 7;
	call_32(146, to, (long)buffers, 2, 0, 0);
	call_32(334, to, (long)buffers, 2, 0, 1);
	call_32(334, to, (long)buffers, 2, 0, 0);
	call_32(181, to, (long)text, 3, 5, 1);
	call_32(181, to, (long)text, 3, 0, 0);
}

/* A file that is appended to has its beginning written by the first call alone, whatever position that has. */
static void appended(void)
{
	struct iovec buffer = { "#!/bin/sh", 9 };
	int to = file("appended", O_APPEND), other = file("by_flag", 0);
	pwrite(to, "#!/bin/sh", 9, 100);
	pwrite(to, "more", 4, 0);
	syscall(SYS_pwritev2, other, &buffer, 1, 100L, 0L, 0x10 /* RWF_APPEND */);
	syscall(SYS_pwritev2, other, &buffer, 1, 0L, 0L, 0x10);
}

static void empty_buffers(void)
{
	struct iovec buffers[40] = { 0 };
	buffers[39] = (struct iovec){ "#!/bin/sh", 9 };
	writev(file("empty", 0), buffers, 40);
}

/* A call that fails at a hole has changed what is before it. */
static void partly(void)
{
	char *two = mmap(0, 2 * PAGE, PROT_READ | PROT_WRITE, ANONYMOUS, -1, 0);
	munmap(two + PAGE, PAGE);
	mprotect(two, 2 * PAGE, PROT_READ | PROT_EXEC);
	mprotect(two, 2 * PAGE, PROT_READ | PROT_EXEC | 0x40);
}

/* What may be read may be executed. */
static void implied(void)
{
	char *before = mmap(0, PAGE, PROT_READ | PROT_WRITE, ANONYMOUS, -1, 0);
	personality(READ_IMPLIES_EXEC);
	mmap(0, PAGE, PROT_READ | PROT_WRITE, ANONYMOUS, -1, 0);
	mprotect(before, PAGE, PROT_READ);
}

static void attached(void)
{
	int segment = shmget(IPC_PRIVATE, PAGE, IPC_CREAT | 0700);
	uint32_t *address = (uint32_t *)low_memory("");
	shmat(segment, 0, 0);
	shmat(segment, 0, SHM_EXEC);
	call_32(117, 21, segment, SHM_EXEC, (long)address, 0);
	shmctl(segment, IPC_RMID, 0);
}

/* `count` regions: neighbours differ in what they share, or they were one. */
static char *regions(int count, int protection, int last)
{
	char *first = mmap(0, count * PAGE, PROT_NONE, ANONYMOUS, -1, 0);
	for (int i = 0; i < count; i++)
		mmap(first + i * PAGE, PAGE, i == count - 1 ? last : protection,
		     MAP_FIXED | MAP_ANONYMOUS | (i % 2 ? MAP_SHARED : MAP_PRIVATE), -1, 0);
	return first;
}

static void behind_others(void)
{
	char *first = regions(101, PROT_READ | PROT_EXEC, PROT_READ | PROT_WRITE);
	mprotect(first, 101 * PAGE, PROT_READ | PROT_EXEC);
}

static void many(void)
{
	char *first = regions(20, PROT_READ, PROT_READ);
	mprotect(first, 20 * PAGE, PROT_READ | PROT_EXEC);
}

/* A call made by code in memory of no file: once in a mapping, once on the heap, once on the stack, and once by libc. */
static void injected(void)
{
	static const unsigned char code[] = { 0x48, 0x89, 0xf8, 0x0f, 0x05, 0xc3 }; /* mov %rdi,%rax; syscall; ret */
	static const unsigned char narrow_code[] = { 0x53, 0x89, 0xf8, 0x31, 0xdb, 0xcd, 0x80, 0x5b, 0xc3 };
	char *mapped = mmap(0, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, ANONYMOUS, -1, 0);
	char *heap = (char *)(((uintptr_t)sbrk(4 * PAGE) + PAGE) & -PAGE);
	char here[2 * PAGE], *stack = (char *)(((uintptr_t)here + PAGE) & -PAGE);
	mprotect(heap, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
	mprotect(stack - PAGE, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
	memcpy(mapped, code, sizeof(code));
	memcpy(heap, code, sizeof(code));
	memcpy(stack, code, sizeof(code));
	memcpy(mapped + 64, narrow_code, sizeof(narrow_code));
	((long (*)(long))mapped)(SYS_dup2);
	((long (*)(long))heap)(SYS_socket);
	((long (*)(long))stack)(SYS_mprotect);
	((long (*)(long))(mapped + 64))(213); /* setuid32 */
	syscall(SYS_dup2, -1, -1);
}

int main(int count, char **arguments)
{
	folder = arguments[1];
	run("narrow", narrow);
	run("appended", appended);
	run("empty_buffers", empty_buffers);
	run("partly", partly);
	run("implied", implied);
	run("attached", attached);
	run("behind_others", behind_others);
	run("many", many);
	run("injected", injected);
	return 0;
}
