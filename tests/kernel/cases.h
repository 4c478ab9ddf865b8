/* cases.h - cases of a test program: each runs in a process of its own, which has its name. */
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

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
