/* exits.c - processes whose four threads end at the same time: as many as the argument says. */
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 4

static pthread_barrier_t together;

static void *end(void *unused)
{
	pthread_barrier_wait(&together);
	return unused;
}

int main(int count, char **arguments)
{
	for (int i = 0; i < atoi(arguments[1]); i++) {
		pid_t child = fork();
		if (!child) {
			pthread_t thread;
			pthread_barrier_init(&together, 0, THREADS);
			for (int j = 1; j < THREADS; j++)
				pthread_create(&thread, 0, end, 0);
			pthread_barrier_wait(&together);
			pthread_exit(0);
		}
		waitpid(child, 0, 0);
	}
	return 0;
}
