/* narrow.c - calls of many kinds, compiled as a 32-bit program and watched by strace as well. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int main(int count, char **arguments)
{
	chdir(arguments[1]);
	struct stat st;
	stat("/",&st);
	fstat(0,&st);
	struct statfs sf;
	statfs("/",&sf);
	struct utsname u;
	uname(&u);
	struct rlimit r;
	getrlimit(RLIMIT_NOFILE,&r);
	struct rusage ru;
	getrusage(RUSAGE_SELF,&ru);
	struct sysinfo si;
	sysinfo(&si);
	int fd=open("file",O_RDWR|O_CREAT,0600);
	struct flock l={.l_type=F_WRLCK,.l_start=3,.l_len=4};
	fcntl(fd,F_SETLK,&l);
	fcntl(fd,F_SETFD,1);
	pwrite(fd,"abc",3,5);
	char b[9];
	pread(fd,b,3,5);
	ftruncate(fd,100);
	truncate("file",50);
	posix_fallocate(fd,0,10);
	lseek(fd,5,SEEK_SET);
	struct iovec v[2]={{"ab",2},{"c",1}};
	writev(fd,v,2);
	pwritev(fd,v,2,7);
	preadv(fd,v,0,7);
	struct pollfd p={0,POLLIN,0};
	poll(&p,1,0);
	fd_set s;
	FD_ZERO(&s);
	FD_SET(0,&s);
	struct timeval t={0,0};
	select(1,&s,0,0,&t);
	int e=epoll_create1(0);
	struct epoll_event ev={EPOLLIN,{.fd=3}};
	epoll_ctl(e,EPOLL_CTL_ADD,fd,&ev);
	epoll_wait(e,&ev,1,0);
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC,&ts);
	syscall(SYS_clock_gettime,1,&ts);
	ts.tv_sec=0;
	ts.tv_nsec=5;
	nanosleep(&ts,0);
	struct timespec tt[2]={{1,2},{3,UTIME_OMIT}};
	futimens(fd,tt);
	struct sigaction sa={.sa_handler=SIG_IGN,.sa_flags=SA_RESTART};
	sigaction(SIGUSR1,&sa,0);
	sigset_t ss;
	sigemptyset(&ss);
	sigaddset(&ss,SIGINT);
	sigprocmask(SIG_BLOCK,&ss,0);
	int sv[2];
	socketpair(AF_UNIX,SOCK_STREAM,0,sv);
	struct msghdr m={.msg_iov=v,.msg_iovlen=2};
	sendmsg(sv[0],&m,0);
	recv(sv[1],b,2,MSG_PEEK);
	int x=socket(AF_INET,SOCK_STREAM|SOCK_CLOEXEC,0);
	int one=1;
	setsockopt(x,SOL_SOCKET,SO_REUSEADDR,&one,4);
	struct sockaddr_in a={AF_INET,htons(0),{htonl(0x7f000001)}};
	bind(x,(void*)&a,sizeof a);
	listen(x,5);
	socklen_t len=sizeof a;
	getsockname(x,(void*)&a,&len);
	connect(socket(AF_INET,SOCK_STREAM,0),(void*)&a,sizeof a);
	prctl(PR_SET_NAME,"narrow");
	struct itimerval it={{0,0},{100,0}};
	setitimer(ITIMER_REAL,&it,0);
	struct winsize w;
	ioctl(0,TIOCGWINSZ,&w);
	mmap(0,4096,PROT_READ,MAP_PRIVATE|MAP_ANONYMOUS,-1,0);
	mprotect((void*)0x10000,4096,PROT_EXEC);
	madvise(0,0,MADV_DONTNEED);
	posix_fadvise(fd,5,6,POSIX_FADV_DONTNEED);
	readahead(fd,1,2);
	sync_file_range(fd,1,2,SYNC_FILE_RANGE_WRITE);
	chown("file",-1,-1);
	setuid(0);
	unlink("file");
	struct tms tm;
	times(&tm);
	if(!fork()) _exit(3);
	int st2;
	wait(&st2);
	getcwd(b,1);
	return 0;
}
