/*
 * load.c - a load of exactly known size.
 *
 *	load MODE COUNT [CPU [THREADS [RATE [PROCESSES [PATH]]]]]
 *
 * MODE getppid; openat (openat + close of PATH, or of /etc/passwd); absent (openat of a path that is not there);
 * mixed (getppid + openat + close); lone (getppid, and between two of them the thread sleeps);
 * spawn (fork, exec of /bin/true and its end, one after the other).
 * Prints its pid, waits for a byte on standard input, makes COUNT calls (pairs, triples) on each of
 * THREADS threads, prints calls and the seconds they took. COUNT 0 goes on until standard input is closed.
 * RATE limits calls a second of each thread. CPU -1 leaves the choice to the scheduler. With PROCESSES,
 * that many children make the calls, THREADS each, and the process that printed its pid makes none.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *mode, *path = "/etc/passwd";
static long count, rate;
static int cpu = -1, threads = 1, processes;
static volatile int stop;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void pause_until(double time)
{
	struct timespec t = { .tv_sec = (time_t)time, .tv_nsec = (long)((time - (time_t)time) * 1e9) };
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0);
}

static void spawn(void)
{
	char *argv[] = { "true", "an argument", 0 }, *envp[] = { "A=b", 0 };
	pid_t child;
	if (posix_spawn(&child, "/bin/true", 0, 0, argv, envp))
		_exit(3);
	waitpid(child, 0, 0);
}

static void *work(void *made)
{
	cpu_set_t set;
	double begin = now();
	long i;
	int mixed = !strcmp(mode, "mixed"), lone = !strcmp(mode, "lone");
	int is_open = mixed || !strcmp(mode, "openat"), absent = !strcmp(mode, "absent");
	int is_spawn = !strcmp(mode, "spawn"), is_number = mixed || !(is_open || absent || is_spawn);
	if (cpu >= 0) {
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		sched_setaffinity(0, sizeof(set), &set);
	}
	for (i = 0; (!count || i < count) && !stop; i++) {
		if (is_number)
			syscall(SYS_getppid);
		if (is_open)
			close(open(path, O_RDONLY));
		if (is_spawn)
			spawn();
		if (absent)
			open("/etc/headrace-absent", O_RDONLY);
		if (lone)
			pause_until(begin + (double)(i + 1) / rate);
		else if (rate)
			while (now() - begin < (double)(i + 1) / rate)
				;
	}
	*(long *)made = i;
	return 0;
}

/* All threads of one process; what they made together. */
static long run(void)
{
	pthread_t thread[64];
	long made[64], total = 0;
	for (int i = 0; i < threads; i++)
		pthread_create(&thread[i], 0, work, &made[i]);
	if (!count) {
		struct pollfd in = { .fd = 0, .events = POLLIN };
		poll(&in, 1, -1);
		stop = 1;
	}
	for (int i = 0; i < threads; i++) {
		pthread_join(thread[i], 0);
		total += made[i];
	}
	return total;
}

static long run_children(void)
{
	long total = 0, *made = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < processes; i++)
		if (!fork()) {
			made[i] = run();
			_exit(0);
		}
	while (wait(0) > 0)
		;
	for (int i = 0; i < processes; i++)
		total += made[i];
	return total;
}

int main(int argc, char **argv)
{
	char byte;
	if (argc < 3)
		return 2;
	mode = argv[1];
	count = atol(argv[2]);
	if (argc > 3)
		cpu = atoi(argv[3]);
	if (argc > 4)
		threads = atoi(argv[4]);
	if (argc > 5)
		rate = atol(argv[5]);
	if (argc > 6)
		processes = atoi(argv[6]);
	if (argc > 7)
		path = argv[7];
	if (threads > 64 || processes > 64 || (!rate && !strcmp(mode, "lone")))
		return 2;
	fprintf(stderr, "%d\n", getpid());
	if (read(0, &byte, 1) != 1)
		return 0;
	double begin = now();
	long total = processes ? run_children() : run();
	double seconds = now() - begin;
	printf("%ld %.6f\n", total, seconds);
	return 0;
}
