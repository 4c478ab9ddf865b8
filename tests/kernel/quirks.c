/*
 * quirks.c - what sys_exit does not tell, done on purpose. Each case runs in a child of its own, whose
 * comm is the name of the case; the tests look for that.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *other_abi;  /* a program of the other word size */
static const char *from_other; /* one of that size that executes its argument */

static void on_signal(int n)
{
	(void)n;
}

static void handle(int n, int flags)
{
	struct sigaction act = { .sa_handler = on_signal, .sa_flags = flags };
	sigaction(n, &act, 0);
}

static void handled(void)
{
	handle(SIGUSR1, 0);
	kill(getpid(), SIGUSR1);
}

static void minusone(void)
{
	syscall(-1, 1, 2, 3);
}

/* Wait until the process is in this state, as /proc shows it. Under another name: the reads here are no part of the case. */
static void until(pid_t pid, char state)
{
	char path[64], line[256], now = 0;
	prctl(PR_SET_NAME, "watcher", 0, 0, 0);
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	while (now != state) {
		int fd = open(path, O_RDONLY);
		ssize_t n = read(fd, line, sizeof(line) - 1);
		close(fd);
		if (n <= 0)
			exit(1);
		line[n] = 0;
		now = strrchr(line, ')')[2];
		sched_yield();
	}
}

static volatile int *signals; /* shared with the child */

static void count_signal(int n)
{
	(void)n;
	++*signals;
}

static void restart(void)
{
	int p[2];
	char c;
	struct sigaction act = { .sa_handler = count_signal, .sa_flags = SA_RESTART };
	signals = mmap(0, sizeof(*signals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (pipe(p) || signals == MAP_FAILED)
		exit(1);
	sigaction(SIGALRM, &act, 0);
	pid_t parent = getpid(), child = fork();
	if (!child) {
		until(parent, 'S');
		kill(parent, SIGALRM);
		while (!*signals)
			sched_yield();
		until(parent, 'S');
		if (write(p[1], "x", 1) != 1)
			exit(1);
		exit(0);
	}
	if (read(p[0], &c, 1) != 1)
		exit(1);
	waitpid(child, 0, 0);
}

static void sleeping(void)
{
	struct timespec t = { 1, 0 }; /* long enough to be stopped in it */
	handle(SIGCONT, 0);
	pid_t parent = getpid(), child = fork();
	if (!child) {
		until(parent, 'S');
		kill(parent, SIGSTOP);
		until(parent, 'T');
		kill(parent, SIGCONT);
		_exit(0);
	}
	syscall(SYS_nanosleep, &t, 0);
	waitpid(child, 0, 0);
}

static void refuse_getppid(unsigned action)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = 4, .filter = code };
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
	syscall(SYS_getppid);
}

static void seccomp(void)
{
	refuse_getppid(SECCOMP_RET_KILL_PROCESS);
}

static void trapped(void)
{
	handle(SIGSYS, 0);
	refuse_getppid(SECCOMP_RET_TRAP);
}

static void refused(void)
{
	refuse_getppid(SECCOMP_RET_ERRNO | EACCES);
}

static void aliasing(void)
{
	char *p = calloc(1, 4096);
	strcpy(p, "/proc/self/exe");
	readlink(p, p, 4096);
}

static void children(void)
{
	pid_t child = vfork();
	if (!child)
		_exit(0);
	waitpid(child, 0, 0);
	child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (!child)
		_exit(0);
	waitpid(child, 0, 0);
}

static void execat(void)
{
	char *argv[] = { "true", "an argument", 0 }, *envp[] = { 0 };
	int fd = open("/bin/true", O_PATH);
	syscall(SYS_execveat, fd, "", argv, envp, AT_EMPTY_PATH);
}

static void int80(void)
{
	char *path = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	long result;
	strcpy(path, "/int80/path");
	/* 5 is open on i386 and fstat on x86-64 */
	asm volatile("int $0x80" : "=a"(result) : "a"(5L), "b"(path), "c"(0L), "d"(0L) : "memory", "r8", "r9", "r10", "r11");
	if (result != -ENOENT)
		exit(1);
}

static void fault(void)
{
	open((char *)1, O_RDONLY);
	open(0, O_RDONLY);
}

static void longpath(void)
{
	char *path = malloc(6000);
	memset(path, 'a', 5999);
	path[5999] = 0;
	open(path, O_RDONLY);
	path[4095] = 0;
	open(path, O_RDONLY);
}

static void bytes(void)
{
	open("/\xff\x01\"\\\n\xe2\x82\xac", O_RDONLY);
}

static void sockets(void)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX, .sun_path = "/nonexistent/socket" };
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(9) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(9), .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_nl nl = { .nl_family = AF_NETLINK };
	struct sockaddr_ll ll = { .sll_family = AF_PACKET, .sll_ifindex = 1, .sll_protocol = htons(3) };
	struct sockaddr_storage got;
	socklen_t size = sizeof(got);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	connect(fd, (void *)&un, sizeof(un));
	fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	memcpy(un.sun_path, "\0abstract", 9);
	bind(fd, (void *)&un, offsetof(struct sockaddr_un, sun_path) + 9);
	inet_aton("127.0.0.1", &in.sin_addr);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	connect(fd, (void *)&in, sizeof(in));
	fd = socket(AF_INET6, SOCK_STREAM, 0);
	connect(fd, (void *)&in6, sizeof(in6));
	fd = socket(AF_NETLINK, SOCK_RAW, 0);
	bind(fd, (void *)&nl, sizeof(nl));
	getsockname(fd, (void *)&got, &size);
	fd = socket(AF_PACKET, SOCK_RAW, 0);
	bind(fd, (void *)&ll, sizeof(ll));
}

static void structs(void)
{
	int p[2];
	struct timespec t = { 0, 1000 };
	struct open_how how = { .flags = O_RDONLY | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS };
	struct clone_args args = { .flags = CLONE_PARENT_SETTID, .exit_signal = SIGCHLD };
	pid_t tid;
	args.parent_tid = (unsigned long)&tid;
	if (pipe(p) || socketpair(AF_UNIX, SOCK_STREAM, 0, p))
		exit(1);
	syscall(SYS_nanosleep, &t, 0);
	syscall(SYS_openat2, AT_FDCWD, "/etc/hostname", &how, sizeof(how));
	pid_t child = syscall(SYS_clone3, &args, sizeof(args));
	if (!child)
		_exit(0);
	waitpid(child, 0, 0);
	readlink("/proc/self/exe", malloc(4096), 4096);
}

static void words(void)
{
	mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	prctl(PR_SET_NAME, "words", 0, 0, 0);
	access("/etc", R_OK | X_OK);
	mkdir("/nonexistent/dir", 0750);
	kill(getpid(), 0);
	syscall(SYS_open, "/etc/hostname", 0x40000000 | O_WRONLY | O_EXCL);
}

static void badexec(void)
{
	char *argv[] = { "nothing", "one", "", "three", 0 }, *envp[] = { "A=b", 0 };
	execve("/nonexistent/program", argv, envp);
}

/* Arguments at the bounds of what is read of a failed exec: 1,023 bytes a string, 64 strings. */
static void longexec(void)
{
	static char fits[1024], exceeds[1025];
	char *strings[] = { "long", fits, exceeds, "last", 0 }, *many[66] = { 0 };
	memset(fits, 'f', sizeof(fits) - 1);
	memset(exceeds, 'e', sizeof(exceeds) - 1);
	execve("/nonexistent/program", strings, 0);
	strings[2] = "";
	execve("/nonexistent/program", strings, 0);
	for (int i = 0; i < 65; i++)
		many[i] = "x";
	execve("/nonexistent/program", many, 0);
	many[64] = 0;
	execve("/nonexistent/program", many, 0);
}

static void otherabi(void)
{
	char *argv[] = { (char *)other_abi, "an argument", 0 }, *envp[] = { "SECRET=1", 0 };
	execve(other_abi, argv, envp);
}

static void *exec_in_thread(void *unused)
{
	char *argv[] = { "true", "in a thread", 0 }, *envp[] = { 0 };
	(void)unused;
	syscall(SYS_execveat, AT_FDCWD, "/bin/true", argv, envp, 0);
	return 0;
}

static void threadexec(void)
{
	pthread_t t;
	pthread_create(&t, 0, exec_in_thread, 0);
	pthread_join(t, 0);
}

static void bothabis(void)
{
	char *argv[] = { (char *)from_other, "/bin/true", 0 }, *envp[] = { 0 };
	execve(from_other, argv, envp);
}

static void *second(void *unused)
{
	(void)unused;
	getppid();
	return 0;
}

static void threads(void)
{
	pthread_t t;
	pthread_create(&t, 0, second, 0);
	pthread_join(t, 0);
	exit(3);
}

static void killed(void)
{
	kill(getpid(), SIGKILL);
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	{ "handled", handled }, { "minusone", minusone }, { "restart", restart },	{ "sleeping", sleeping },
	{ "seccomp", seccomp },	    { "int80", int80 },	      { "fault", fault },	{ "longpath", longpath },
	{ "bytes", bytes },	    { "sockets", sockets },   { "structs", structs },	{ "words", words },
	{ "badexec", badexec }, { "longexec", longexec },	    { "otherabi", otherabi }, { "threads", threads },	{ "killed", killed },
	{ "trapped", trapped },	    { "refused", refused },   { "aliasing", aliasing }, { "children", children },
	{ "execat", execat },	    { "threadexec", threadexec },
		    { "bothabis", bothabis },
};

int main(int argc, char **argv)
{
	other_abi = argc > 1 ? argv[1] : "/nonexistent";
	from_other = argc > 2 ? argv[2] : "/nonexistent";
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		pid_t child = fork();
		if (!child) {
			prctl(PR_SET_NAME, cases[i].name, 0, 0, 0);
			cases[i].run();
			_exit(0);
		}
		waitpid(child, 0, 0);
	}
	return 0;
}
