/*
 * arguments.c - calls, and what must be shown of them, in the words of the kernel's headers: a line of JSON a call,
 * {"call": NAME, "args": {ARGUMENT: VALUE, ...}}, in the order of the calls. Arguments that are not in a line are not looked
 * at. Words come from the headers by the preprocessor, values from the program.
 */
#define _GNU_SOURCE
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/kcmp.h>
#include <linux/keyctl.h>
#include <linux/landlock.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <linux/prctl.h>
#include <linux/ptrace.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Make a call, and say what must be shown. CALL(prctl, S(option, PR_SET_NAME), ...) */
#define Q(x) "\"" #x "\""
#define W(argument, word) "\"" #argument "\": \"" #word "\"" /* the word itself, not what it stands for */
#define WORDS(argument, text) Q(argument) ": \"" text "\""
#define N(argument, number) Q(argument) ": " #number
#define J(argument, json) Q(argument) ": " json
#define SAY(name, ...) printf("{\"call\": " Q(name) ", \"args\": {%s}}\n", joined((const char *[]){__VA_ARGS__, 0}))

static const char *joined(const char **parts)
{
	static char text[8192];
	text[0] = 0;
	for (; *parts; parts++) {
		strcat(text, *parts);
		if (parts[1])
			strcat(text, ", ");
	}
	return text;
}

#define HIGH 0xdefaced000000000ULL

static void programs(void)
{
	union bpf_attr attr = {};
	attr.prog_type = BPF_PROG_TYPE_KPROBE;
	attr.insn_cnt = 7;
	attr.prog_flags = BPF_F_SLEEPABLE | BPF_F_ANY_ALIGNMENT;
	strcpy(attr.prog_name, "probe");
	syscall(__NR_bpf, HIGH | BPF_PROG_LOAD, &attr, 80);
	SAY(bpf, W(cmd, BPF_PROG_LOAD),
	    J(attr, "{" W(prog_type, BPF_PROG_TYPE_KPROBE) ", " N(insn_cnt, 7) ", "
		    WORDS(prog_flags, "BPF_F_ANY_ALIGNMENT|BPF_F_SLEEPABLE") ", " W(prog_name, probe) "}"));
	memset(&attr, 0, sizeof(attr));
	attr.map_type = BPF_MAP_TYPE_LRU_HASH;
	attr.key_size = 4;
	attr.map_flags = BPF_F_NUMA_NODE;
	syscall(__NR_bpf, BPF_MAP_CREATE, &attr, 48);
	SAY(bpf, W(cmd, BPF_MAP_CREATE),
	    J(attr, "{" W(map_type, BPF_MAP_TYPE_LRU_HASH) ", " N(key_size, 4) ", " W(map_flags, BPF_F_NUMA_NODE) "}"));
	struct perf_event_attr perf = {.type = PERF_TYPE_SOFTWARE, .size = sizeof(perf), .sample_period = 1000};
	perf.sample_type = PERF_SAMPLE_IP | PERF_SAMPLE_TID;
	perf.disabled = perf.exclude_kernel = 1;
	int fd = syscall(__NR_perf_event_open, &perf, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	SAY(perf_event_open, WORDS(flags, "PERF_FLAG_FD_CLOEXEC"), N(cpu, -1), N(group_fd, -1),
	    J(attr_uptr, "{" W(type, PERF_TYPE_SOFTWARE) ", " N(sample_period, 1000) ", "
			 WORDS(sample_type, "PERF_SAMPLE_IP|PERF_SAMPLE_TID") ", " WORDS(flags, "disabled|exclude_kernel") "}"));
	close(fd);
}

static void processes(void)
{
	syscall(__NR_prctl, HIGH | PR_SET_NAME, "arguments", 0, 0, 0);
	SAY(prctl, W(option, PR_SET_NAME), W(arg2, arguments));
	syscall(__NR_prctl, PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
	SAY(prctl, W(option, PR_SET_PDEATHSIG), W(arg2, SIGTERM));
	syscall(__NR_prctl, PR_CAPBSET_READ, CAP_SYS_PTRACE, 0, 0, 0);
	SAY(prctl, W(option, PR_CAPBSET_READ), W(arg2, CAP_SYS_PTRACE));
	syscall(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_NET_RAW, 0, 0);
	SAY(prctl, W(option, PR_CAP_AMBIENT), W(arg2, PR_CAP_AMBIENT_IS_SET), W(arg3, CAP_NET_RAW));
	syscall(__NR_prctl, PR_SET_MM, PR_SET_MM_BRK, 0x1000, 0, 0);
	SAY(prctl, W(option, PR_SET_MM), W(arg2, PR_SET_MM_BRK), W(arg3, 0x1000));
	syscall(__NR_ptrace, PTRACE_SETOPTIONS, 1, 0, PTRACE_O_TRACEFORK | PTRACE_O_EXITKILL);
	SAY(ptrace, W(request, PTRACE_SETOPTIONS), N(pid, 1), WORDS(data, "PTRACE_O_TRACEFORK|PTRACE_O_EXITKILL"));
	syscall(__NR_ptrace, HIGH | PTRACE_ATTACH, 1, 0, 0);
	SAY(ptrace, WORDS(request, "0xdefaced000000010"));
	syscall(__NR_ptrace, PTRACE_CONT, HIGH | 1, 0, SIGUSR1);
	SAY(ptrace, W(request, PTRACE_CONT), N(pid, 1), W(data, SIGUSR1));
	syscall(__NR_setns, -1, HIGH | CLONE_NEWNET);
	SAY(setns, N(fd, -1), W(flags, CLONE_NEWNET));
	syscall(__NR_unshare, 0x100000000ULL | CLONE_FS);
	SAY(unshare, WORDS(flags, "CLONE_FS|CLONE_CLEAR_SIGHAND"));
	struct sock_fprog {
		unsigned short len;
		void *filter;
	} filter = {3, (void *)0x10};
	syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_TSYNC, &filter);
	SAY(seccomp, W(op, SECCOMP_SET_MODE_FILTER), WORDS(flags, "SECCOMP_FILTER_FLAG_TSYNC|SECCOMP_FILTER_FLAG_LOG"),
	    J(uargs, "{" N(len, 3) ", " W(filter, 0x10) "}"));
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2] = {};
	syscall(__NR_capget, &header, data);
	SAY(capget, J(header, "{" W(version, _LINUX_CAPABILITY_VERSION_3) ", " N(pid, 0) "}"));
	data[0].effective = 0;
	data[0].permitted = 1 << CAP_KILL | 1 << CAP_NET_RAW;
	data[1].permitted = 1 << (CAP_SYSLOG - 32);
	header.version = 0;
	syscall(__NR_capset, &header, data);
	SAY(capset, J(data, "{" WORDS(effective, "0") ", " WORDS(permitted, "CAP_KILL|CAP_NET_RAW") ", " W(permitted_high, CAP_SYSLOG) "}"));
	struct {
		void *handler;
		unsigned long flags;
		void *restorer;
		unsigned long mask;
	} act = {(void *)1, SA_RESTART | SA_NODEFER, 0, 1 << (SIGINT - 1) | 1 << (SIGTERM - 1)};
	syscall(__NR_rt_sigaction, SIGUSR2, &act, 0, 8);
	SAY(rt_sigaction, W(signum, SIGUSR2),
	    J(act, "{" W(sa_handler, SIG_IGN) ", " WORDS(sa_flags, "SA_RESTART|SA_NODEFER") ", " WORDS(sa_mask, "SIGINT|SIGTERM") "}"));
}

static void files(const char *folder)
{
	char path[4096];
	snprintf(path, sizeof(path), "%s/file", folder);
	int fd = open(path, O_RDWR | O_CREAT, 0600);
	syscall(__NR_fcntl, fd, F_SETFL, O_APPEND | O_NONBLOCK);
	SAY(fcntl, W(cmd, F_SETFL), WORDS(arg, "O_APPEND|O_NONBLOCK"));
	syscall(__NR_fcntl, fd, F_SETFD, FD_CLOEXEC);
	SAY(fcntl, W(cmd, F_SETFD), W(arg, FD_CLOEXEC));
	syscall(__NR_fcntl, fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_WRITE);
	SAY(fcntl, W(cmd, F_ADD_SEALS), WORDS(arg, "F_SEAL_SHRINK|F_SEAL_WRITE"));
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 10};
	syscall(__NR_fcntl, fd, F_SETLK, &lock);
	SAY(fcntl, W(cmd, F_SETLK), J(arg, "{" W(l_type, F_WRLCK) ", " W(l_whence, SEEK_SET) ", " N(l_start, 5) ", " N(l_len, 10) "}"));
	syscall(__NR_fcntl, fd, F_NOTIFY, DN_CREATE);
	SAY(fcntl, W(cmd, F_NOTIFY), W(arg, DN_CREATE));
	syscall(__NR_ioctl, fd, HIGH | TIOCSTI, "k");
	SAY(ioctl, W(request, TIOCSTI), W(arg, k));
	syscall(__NR_ioctl, fd, FS_IOC_GETFLAGS, 0);
	SAY(ioctl, W(request, FS_IOC_GETFLAGS));
	struct winsize size = {24, 80, 0, 0};
	syscall(__NR_ioctl, fd, TIOCSWINSZ, &size);
	SAY(ioctl, W(request, TIOCSWINSZ), J(arg, "{" N(ws_row, 24) ", " N(ws_col, 80) "}"));
	struct timespec times[2] = {{0, UTIME_OMIT}, {1234, UTIME_NOW}};
	syscall(__NR_utimensat, fd, 0, times, 0);
	SAY(utimensat, J(utimes, "[{" N(tv_sec, 0) ", " W(tv_nsec, UTIME_OMIT) "}, {" N(tv_sec, 1234) ", " W(tv_nsec, UTIME_NOW) "}]"));
	syscall(__NR_mount, "none", folder, "tmpfs", MS_NOSUID | MS_NOEXEC, "size=badsize");
	SAY(mount, W(source, none), W(filesystemtype, tmpfs), WORDS(mountflags, "MS_NOSUID|MS_NOEXEC"), WORDS(data, "size=badsize"));
	struct epoll_event event = {EPOLLIN | EPOLLET, {.u64 = 77}};
	syscall(__NR_epoll_ctl, -1, EPOLL_CTL_ADD, fd, &event);
	SAY(epoll_ctl, W(op, EPOLL_CTL_ADD), J(event, "{" WORDS(events, "EPOLLIN|EPOLLET") ", " W(data, 0x4d) "}"));
	struct iovec vector[2] = {{(void *)0x10, 0}, {(void *)0x20, 0}};
	syscall(__NR_writev, fd, vector, 2);
	SAY(writev, J(vec, "[{" W(iov_base, 0x10) ", " N(iov_len, 0) "}, {" W(iov_base, 0x20) ", " N(iov_len, 0) "}]"));
	syscall(__NR_setxattr, path, "user.x", "a\0b", 3, XATTR_CREATE);
	SAY(setxattr, J(value, "\"a\\u0000b\""), W(flags, XATTR_CREATE));
	syscall(__NR_mq_timedsend, -1, "a\0bcdefgh", 7, 3, 0);
	SAY(mq_timedsend, J(u_msg_ptr, "\"a\\u0000bcdef\""), N(msg_prio, 3));
	close(fd);
}

static void keys(void)
{
	long key = syscall(__NR_add_key, "user", "name", "pay\0load", 8, KEY_SPEC_PROCESS_KEYRING);
	SAY(add_key, W(type, user), W(keyring, KEY_SPEC_PROCESS_KEYRING));
	syscall(__NR_keyctl, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING, 0, 0, 0);
	SAY(keyctl, W(option, KEYCTL_DESCRIBE), W(arg2, KEY_SPEC_SESSION_KEYRING));
	syscall(__NR_keyctl, KEYCTL_SEARCH, KEY_SPEC_THREAD_KEYRING, "user", "wanted", 0);
	SAY(keyctl, W(option, KEYCTL_SEARCH), W(arg2, KEY_SPEC_THREAD_KEYRING), W(arg3, user), W(arg4, wanted));
	syscall(__NR_keyctl, KEYCTL_REVOKE, key > 0 ? key : 0, 0, 0, 0);
	SAY(keyctl, W(option, KEYCTL_REVOKE));
	struct {
		uint64_t access;
	} rules = {LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_DIR};
	syscall(__NR_landlock_create_ruleset, &rules, 8, 0);
	SAY(landlock_create_ruleset,
	    J(attr, "{" WORDS(handled_access_fs, "LANDLOCK_ACCESS_FS_EXECUTE|LANDLOCK_ACCESS_FS_MAKE_DIR") "}"));
	struct landlock_path_beneath_attr beneath = {.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE, .parent_fd = 9};
	syscall(__NR_landlock_add_rule, -1, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0);
	SAY(landlock_add_rule, W(rule_type, LANDLOCK_RULE_PATH_BENEATH),
	    J(rule_attr, "{" W(allowed_access, LANDLOCK_ACCESS_FS_READ_FILE) ", " N(parent_fd, 9) "}"));
}

static void sockets(void)
{
	int pair[2];
	syscall(__NR_socket, AF_NETLINK, SOCK_RAW, NETLINK_AUDIT);
	SAY(socket, W(domain, AF_NETLINK), W(type, SOCK_RAW), W(protocol, NETLINK_AUDIT));
	int tcp = syscall(__NR_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	SAY(socket, W(domain, AF_INET), WORDS(type, "SOCK_STREAM|SOCK_CLOEXEC"), W(protocol, IPPROTO_TCP));
	struct linger linger = {1, 30};
	syscall(__NR_setsockopt, tcp, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	SAY(setsockopt, W(level, SOL_SOCKET), W(optname, SO_LINGER), J(optval, "{" N(l_onoff, 1) ", " N(l_linger, 30) "}"));
	int one = 1;
	syscall(__NR_setsockopt, tcp, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	SAY(setsockopt, W(level, SOL_TCP), W(optname, TCP_NODELAY), N(optval, 1));
	syscall(__NR_setsockopt, tcp, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	SAY(setsockopt, W(level, SOL_IPV6), W(optname, IPV6_V6ONLY), N(optval, 1));
	syscall(__NR_setsockopt, tcp, SOL_SOCKET, SO_BINDTODEVICE, "nothing", 8);
	SAY(setsockopt, W(optname, SO_BINDTODEVICE), W(optval, nothing));
	socklen_t length = sizeof(one);
	syscall(__NR_getsockopt, tcp, SOL_SOCKET, SO_TYPE, &one, &length);
	SAY(getsockopt, W(optname, SO_TYPE), W(optval, SOCK_STREAM), N(optlen, 4));
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		return;
	char control[CMSG_SPACE(2 * sizeof(int))] = {};
	struct iovec vector = {"x", 1};
	struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(2 * sizeof(int));
	((int *)CMSG_DATA(head))[0] = 0;
	((int *)CMSG_DATA(head))[1] = 1;
	syscall(__NR_sendmsg, pair[0], &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	SAY(sendmsg, WORDS(flags, "MSG_DONTWAIT|MSG_NOSIGNAL"),
	    J(control, "[{" W(cmsg_level, SOL_SOCKET) ", " W(cmsg_type, SCM_RIGHTS) ", " J(fds, "[0, 1]") "}]"));
	char buffer[10];
	syscall(__NR_recvfrom, pair[1], buffer, 3, MSG_PEEK | MSG_TRUNC, 0, 0);
	SAY(recvfrom, WORDS(flags, "MSG_PEEK|MSG_TRUNC"), N(len, 3));
}

/* What the command cuts or names: widths, sizes in requests, operations of two futexes. */
static void commands(void)
{
	syscall(__NR_prctl, PR_SCHED_CORE, HIGH, HIGH, HIGH | 1, 0);
	SAY(prctl, W(option, PR_SCHED_CORE), W(arg2, PR_SCHED_CORE_GET), N(arg3, 0), W(arg4, PIDTYPE_TGID));
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	SAY(prctl, W(option, PR_SET_DUMPABLE), W(arg2, SUID_DUMP_USER));
	ioctl(-1, _IOC(_IOC_READ, 'H', 0x06, 21), 0);
	SAY(ioctl, N(fd, -1), WORDS(request, "HIDIOCGNAME(21)"));
	ioctl(-1, _IOWR(0x7e, 0x99, short), 0);
	SAY(ioctl, WORDS(request, "_IOWR(0x7e, 0x99, 2)"));
	int word = 0;
	syscall(__NR_futex, &word, FUTEX_WAKE_OP, 1, HIGH | 3, &word, FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_GT, 2));
	SAY(futex, W(op, FUTEX_WAKE_OP), WORDS(utime, "3"), WORDS(val3, "FUTEX_OP_ADD(1) if FUTEX_OP_CMP_GT(2)"));
	syscall(__NR_kcmp, getpid(), getpid(), KCMP_FILE, HIGH, HIGH | 1);
	SAY(kcmp, W(type, KCMP_FILE), N(idx1, 0), N(idx2, 1));
	sigset_t none;
	sigemptyset(&none);
	syscall(__NR_rt_sigprocmask, SIG_BLOCK, &none, 0, 8);
	SAY(rt_sigprocmask, W(how, SIG_BLOCK), WORDS(nset, "[]"));
	struct {
		uint32_t offset, resv;
		uint64_t fds;
	} files = {7, 0, 0x1000};
	syscall(__NR_io_uring_register, -1, 6 /* IORING_REGISTER_FILES_UPDATE */, &files, 3);
	SAY(io_uring_register, N(fd, -1), W(opcode, IORING_REGISTER_FILES_UPDATE),
	    J(arg, "{" N(offset, 7) ", " WORDS(fds, "0x1000") "}"));
	syscall(__NR_keyctl, KEYCTL_CHOWN, KEY_SPEC_USER_KEYRING, HIGH | 0xfffffffe, -1, 0);
	SAY(keyctl, W(option, KEYCTL_CHOWN), W(arg2, KEY_SPEC_USER_KEYRING), WORDS(arg3, "4294967294"), WORDS(arg4, "-1"));
	syscall(__NR_mkdir, "/dev/null/x", HIGH | 0xfffe0000 | 0750);
	SAY(mkdir, WORDS(mode, "S_IRWXU|S_IRGRP|S_IXGRP"));
	prctl(PR_SET_TSC, HIGH | 7, 0, 0, 0);
	SAY(prctl, W(option, PR_SET_TSC), WORDS(arg2, "7"));
	fchdir(-1);
	SAY(fchdir, N(fd, -1));
	syscall(__NR_modify_ldt, 7, 0, 0);
	SAY(modify_ldt, N(func, 7));
}

/* `int $0x80`: arguments in two registers, in another order, and of 16 bits. */
static long call_32(long number, long a, long b, long c, long d, long e, long f)
{
	long result;
	asm volatile("push %%rbp; mov %[f], %%rbp; int $0x80; pop %%rbp"
		     : "=a"(result)
		     : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e), [f] "r"(f)
		     : "memory", "r8", "r9", "r10", "r11");
	return result;
}

static void narrow(void)
{
	char *low = mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	call_32(180, -1, (long)low, 5, 7, 1, 0);
	SAY(pread64, N(fd, -1), N(count, 5), N(offset, 4294967303));
	call_32(324, -1, FALLOC_FL_KEEP_SIZE, 1, 2, 3, 4);
	SAY(fallocate, W(mode, FALLOC_FL_KEEP_SIZE), N(offset, 8589934593), N(len, 17179869187));
	call_32(314, -1, 1, 0, 2, 0, SYNC_FILE_RANGE_WRITE);
	SAY(sync_file_range, N(offset, 1), N(nbytes, 2), W(flags, SYNC_FILE_RANGE_WRITE));
	call_32(225, -1, 9, 1, 33, 0, 0);
	SAY(readahead, N(offset, 4294967305), N(count, 33));
	call_32(19, -1, -1, SEEK_END, 0, 0, 0);
	SAY(lseek, N(fd, -1), N(offset, -1), W(whence, SEEK_END));
	struct {
		int32_t seconds, nanoseconds;
	} *time = (void *)low;
	time->seconds = 0;
	time->nanoseconds = 5;
	call_32(162, (long)low, 0, 0, 0, 0, 0);
	SAY(nanosleep, J(req, "{" N(tv_sec, 0) ", " N(tv_nsec, 5) "}"));
}

int main(int count, char **arguments)
{
	setvbuf(stdout, 0, _IOFBF, 1 << 16);
	(void)count;
	programs();
	processes();
	files(arguments[1]);
	keys();
	sockets();
	commands();
	narrow();
	return 0;
}
