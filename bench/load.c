/*
 * load.c - a load of exactly known size.
 *
 *	load MODE COUNT [CPU [THREADS [RATE]]]
 *
 * MODE getppid, openat (openat + close of /etc/passwd) or none. Prints its pid, waits for a byte on
 * standard input, makes COUNT calls (pairs) on each of THREADS threads, prints the seconds it took.
 * COUNT 0 goes on until standard input is closed. RATE limits calls a second of each thread.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const char *mode;
static long count, rate;
static int cpu = -1, threads = 1;
static volatile int stop;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void *work(void *made)
{
	cpu_set_t set;
	double begin = now();
	long i;
	int is_open = !strcmp(mode, "openat");
	if (cpu >= 0) {
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		sched_setaffinity(0, sizeof(set), &set);
	}
	for (i = 0; (!count || i < count) && !stop; i++) {
		if (is_open)
			close(open("/etc/passwd", O_RDONLY));
		else
			syscall(SYS_getppid);
		if (rate)
			while (now() - begin < (double)(i + 1) / rate)
				;
	}
	*(long *)made = i;
	return 0;
}

int main(int argc, char **argv)
{
	pthread_t thread[64];
	long made[64], total = 0;
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
	fprintf(stderr, "%d\n", getpid());
	if (read(0, &byte, 1) != 1)
		return 0;
	double begin = now();
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
	double seconds = now() - begin;
	printf("%ld %.6f\n", total, seconds);
	return 0;
}
