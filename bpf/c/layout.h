/*
 * layout.h - the record layout. The numpy side is bpf/layout.py; the loader emits a static assert
 * for every offset here, so the two cannot diverge.
 *
 * A frame is a run of 32-byte cells. It holds contexts and records in the order of writing:
 *
 *   context   7 cells   who: ids, namespaces, container, comm. Written when it differs from the previous one.
 *                       With policies 8 cells: the last one begins with a mask of policies.
 *   record    n cells   what: a head (1 cell, holds argument 0), the other arguments (4 a cell),
 *                       then blobs (strings and structs), each 8-aligned, the whole padded to 32
 *
 *   frame:  [private][wire header][ctx][head][head|args|blob...][head]...[ctx][head]...
 *                                  0    7     8                  11      (cell numbers)
 *
 * `bitmap` has one bit per cell that marks heads, so user space gathers them in one step. A frame
 * is sent as one perf sample, starting at `size`. The sample's payload starts at offset 12 of the
 * perf record. Therefore `size` (written by perf: the raw size) is the aligned first word of the
 * frame.
 */
#define CELL_BYTES 32
#ifdef POLICIES
#define POLICY_BYTES CELL_BYTES
#else
#define POLICY_BYTES 0
#endif
#define BITMAP_WORDS 16

enum head_flag {
	HEAD_COMPAT = 1,      /* 32-bit call: names and pointers are those of the i386 table */
	HEAD_ENTRY = 2,       /* recorded at the call's entry: no result */
	HEAD_NOT_RUN = 4,     /* seccomp refused it with a signal: no result */
	HEAD_NO_OBJECT = 8,   /* values that come from an object are 0 */
	HEAD_EXEC_IMAGE = 16, /* arguments were read from the new image's memory */
	HEAD_OWN_ROOT = 32,   /* the process's root is not its namespace's: see `whole` in path.h */
	HEAD_OWN_TARGET = 64, /* a call on a process, which is the caller itself */
	HEAD_ANSWERED = 128,  /* another process may have supplied the result (seccomp's USER_NOTIF) */
};

enum blob_status {
	BLOB_OK = 0,
	BLOB_CUT = 1,    /* longer than the bytes read */
	BLOB_FAULT = 2,  /* the memory could not be read */
	BLOB_NULL = 3,   /* the pointer was NULL */
	BLOB_RACED = 4,  /* it changed during the read */
	BLOB_BYPASS = 5, /* the data never was in memory that a program could read */
	BLOB_STATUS = 15,
};

/* Where a blob was read, in the upper half of its status. */
enum blob_source {
	SOURCE_USER_EXIT = 0 << 4,  /* the caller's memory, at the call's exit */
	SOURCE_KERNEL = 1 << 4,     /* the kernel's own objects */
	SOURCE_USER_ENTRY = 2 << 4, /* the caller's memory, at the call's entry */
};

struct head {
	u64 time_ns; /* CLOCK_BOOTTIME */
	s64 retval;
	u16 event;
	u16 context; /* cell of the context in this frame */
	u16 cells;   /* of the record, including this one */
	u8 flags;
	u8 blobs;
	u64 arg0;
};

struct blob {
	u16 bytes; /* bytes that follow, without the NUL of a string */
	u8 arg;    /* argument number; 0x80 | number: the directory in which its path starts; STACK */
	u8 status; /* blob_status | blob_source */
	u32 whole; /* length of the whole, if known */
};

/* The caller's stack is a blob that belongs to no argument. */
#define STACK 0x7f
#define STACK_DEPTH 20
#define STACK_ROOM (sizeof(struct blob) + STACK_DEPTH * 8)

/*
 * A part of a blob that is too long for its record, sent before it in a frame of its own
 * (pieces.h). It belongs to the first record of a later frame: the one of the same CPU with this
 * stream and this sequence number.
 */
struct piece {
	u64 sequence;
	u32 tgid;
	u32 tid;
	u32 offset; /* of these bytes in the blob */
	u32 bytes;
	u32 whole; /* of the blob */
	u8 stream;
	u8 arg;
	u16 pad;
};

/* Pieces to send before a record of this CPU, and the program that continues. */
struct pieces {
	u64 thread; /* thread whose pieces were sent: do not send them again */
	u32 slot;   /* of the record */
	u32 then;
	u32 count;
	u32 pad;
	struct {
		u64 from;
		u32 whole;
		u32 sent; /* bytes that the record holds, or that pieces have carried */
		u32 arg;
		u32 pad;
	} range[2];
};

struct context {
	u64 thread_start_ns; /* CLOCK_BOOTTIME, like all start times */
	u64 process_start_ns;
	u64 parent_start_ns;
	u64 cgroup_id;
	u64 exe_inode;
	u64 cap_effective;
	u8 container[32]; /* id; zero on the host */
	u32 tgid;
	u32 tid;
	u32 ppid;
	u32 ns_tgid;
	u32 ns_tid;
	u32 ns_ppid;
	u32 uid;
	u32 gid;
	u32 euid;
	u32 mntns;
	u32 pidns;
	u32 utsns;
	u32 exe_dev; /* as the kernel counts: major << 20 | minor */
	u32 loginuid;
	u32 sessionid;
	u8 runtime;         /* enum runtime */
	u8 container_state; /* enum container_state */
	u16 pad;
	char comm[16];
	char nodename[64];
#ifdef POLICIES
	u64 policies; /* mask of the policies whose scope the task is in (bpf/layout.py, POLICY_CELL) */
	u64 pad2[3];
#endif
};

/* Names and numbers match workers/enrich/containers.py. */
enum runtime {
	RUNTIME_UNKNOWN = 0,
	RUNTIME_DOCKER = 1,
	RUNTIME_CONTAINERD = 2,
	RUNTIME_CRIO = 3,
	RUNTIME_PODMAN = 4,
	RUNTIME_LXC = 5, /* ids of this one and the next are text; no runtime is asked about 5 to 7 */
	RUNTIME_BUILDKIT = 6,
	RUNTIME_ECS = 7, /* the first 16 bytes are shown as hexadecimal digits, the rest is a decimal number */
};

enum container_state {
	CONTAINER_NONE = 0,
	CONTAINER_CREATED = 1,
	CONTAINER_STARTED = 2,  /* an exec in a mount namespace of its own was seen */
	CONTAINER_EXISTING = 3, /* existed before headrace */
};

/* Entry of a cgroup that is a container's or below one. */
struct container {
	u8 id[32];
	u64 root; /* id of the container's own cgroup, whose entry has the state */
	u64 ctime_ns;
	u8 runtime;
	u8 state;
	u8 pad[6];
};

/* Scratch space to build an entry. */
struct container_scratch {
	struct container container;
	u64 name[32];
};

/* Whether the cgroup checked last is in the scope's containers. Valid while the epoch is unchanged. */
struct container_cache {
	u64 epoch;
	u64 cgroup_id;
	u64 verdict;
	u64 policies; /* mask of those whose conditions on containers hold */
};

enum stream {
	STREAM_BULK = 0,
	STREAM_URGENT = 1,
	STREAM_FACTS = 2,
};

struct frame {
	/* private: identifies the current context (frame.h, context_cell); never leaves the kernel */
	u64 key[8];
	u64 at; /* offset in cells of the next blob */
	/* wire */
	u32 size;
	u32 cpu;
	u64 sequence; /* per CPU and slot, without gaps unless a submission fails */
	u64 first_ns;
	u64 last_ns;
	u16 shard;
	u8 stream; /* enum stream */
	u8 version;
	u16 heads;
	u16 context; /* cell of the current context */
	u32 used;    /* bytes of cells */
	u32 shards;
	u64 bitmap[BITMAP_WORDS];
	u64 piece; /* 1: the cells hold a struct piece and its bytes, no records */
	/* cells */
	char cells[FRAME_CELLS * CELL_BYTES];
};

/* One per CPU and slot, mapped by user space: unsent records and losses. */
struct mark {
	u64 busy;     /* a program is writing into this slot's frame */
	u64 first_ns; /* time of the oldest unsent record; 0 if none */
	u64 frames;   /* submitted, successfully or not: the next sequence number */
	u64 lost_frames;
	u64 lost_full;  /* events of frames refused because the perf ring was full */
	u64 lost_other; /* events of frames refused for another reason */
	u64 lost_nested; /* events that found the frame busy */
	u64 lost_room; /* events without a frame, or without room in one */
	u64 lost_first_ns;
	u64 lost_last_ns;
	u64 last_error; /* errno of the last refusal */
	u64 faults;     /* arguments that could not be read */
	u64 cut;        /* arguments truncated to their limit */
	u64 raced;      /* paths that changed during the walk */
	u64 facts;      /* records in frames of facts, which `produced` does not count */
	u64 pad;
};

/* How to read one blob of a call. */
struct blob_spec {
	u8 kind;
	u8 arg;     /* which argument is the pointer */
	u8 sized;   /* argument with the number of items; 0xff the result, 0xfe none */
	u8 needs;   /* 1: only if the call succeeded */
	u16 bytes;  /* at most */
	u16 unit;   /* bytes of an item; 0: items are bits in 64-bit words */
	u8 limit;   /* 1 + the argument that bounds the number of items, 0 none */
	u8 pointed; /* 1: `sized` is a pointer to the number, 32 bits wide */
	u8 pad[2];
};

/* Key of `commands`: more blobs to read if the call's `command` argument has this value. */
struct command_key {
	u32 slot;
	u32 value;
};
#define COMMAND_BLOBS 3
struct command {
	struct blob_spec blobs[COMMAND_BLOBS];
};

/* Row of `calls`: what to record for one system call number. */
struct call {
	u8 wanted;
	u8 arguments;
	u8 urgent;
	u8 exec;
	u16 event;
	u16 room; /* bytes that blobs need in the worst case */
	s64 retval_min;
	s64 retval_max;
	u64 masks[6]; /* bits of each argument that the kernel uses */
	u8 program;   /* its writer: PROGRAM_exec_call, _multiplexed or _detailed_call, 0 the program at sys_exit */
	u8 command;   /* 1 + the argument that selects the meaning of the others, 0 none */
	/* for the program of its objects (objects.h): argument numbers, 0xff none, 0xfe the result */
	u8 object;
	u8 variant;
	u8 fd;
	u8 path;
	u8 dir;
	u8 path2;
	u8 dir2;
	u8 flags;
	/* argument whose file's path is recorded (--fd-paths), 0xff none */
	u8 descriptor;
	u8 narrow;  /* pointers and structs in memory are 32-bit */
	u8 address; /* enum address: where the call's socket address is (addresses.h) */
	/* 32-bit calls, one bit per argument: see rearrange() and compat_values() in dispatch.h */
	u8 joined;
	u8 extended;
	u8 ids;
	u8 registers[6]; /* 1 + the register that holds each argument, 0 none; all 0: in order */
	u8 pages;        /* bits of arguments that count pages: they are recorded in bytes */
	u8 pad[1];
	u32 command_mask;
	struct blob_spec blobs[5];
};

/* Where a call's socket address is. */
enum address {
	ADDRESS_NONE = 0,
	ADDRESS_OWN = 1,          /* the socket's own: getsockname */
	ADDRESS_PEER = 2,         /* its peer's: getpeername */
	ADDRESS_ACCEPTED = 3,     /* the peer of the socket that is the result: accept, accept4 */
	ADDRESS_RECEIVED = 4,     /* written by recvfrom */
	ADDRESS_MSG_RECEIVED = 5, /* written by recvmsg to msg_name of a msghdr */
	ADDRESS_MSG_SENT = 6,     /* passed to sendmsg in msg_name */
	ADDRESS_MMSG_SENT = 7,    /* passed to sendmmsg in its first message */
};

/* Calls that share a program. */
enum variant {
	VARIANT_PLAIN = 0,
	VARIANT_CREAT = 1,
	VARIANT_OPENAT2 = 2,
	VARIANT_PAIR = 3,
	VARIANT_FCNTL = 4,
	VARIANT_VECTOR = 5,
	VARIANT_MOVE_MOUNT = 6,
	VARIANT_PAGES = 7,
};

enum blob_kind {
	BLOB_NONE = 0,
	BLOB_STRING = 1,
	BLOB_FIXED = 2,      /* `bytes` bytes */
	BLOB_SIZED = 3,      /* as many as argument `sized` or the result says */
	BLOB_SMALL = 4,      /* the same, at most SMALL_BYTES */
	BLOB_VECTOR = 5,     /* NULL-terminated array of strings */
	BLOB_IMAGE_PATH = 6, /* after a successful execve, from the new image: its path */
	BLOB_IMAGE_ARGV = 7,
	BLOB_IMAGE_ENVP = 8,
};

/* State that an exec replaces, saved before it. */
struct before_exec {
	char comm[16];
	u32 execveat; /* 1: the call was execveat; the arguments below are not in the image */
	u32 dirfd;
	u64 flags;
	u64 binprm; /* 0 if the tracepoint of exec passes it */
};

struct counts {
	u64 events[EVENTS];
};

struct status {
	u64 tree_live;       /* thread groups that are in scope by --scope tree= or as the command */
	u64 groups_overflow; /* thread groups for which `groups` had no room */
	u64 epoch;      /* increases when a program changes `groups` */
	u64 user_epoch; /* increases when user space changes `groups`; only user space writes it */
	u64 containers_epoch; /* increases when `containers` changes */
	u64 containers_overflow; /* cgroups for which `containers` had no room */
	u64 told_epoch; /* user space increases it to have all images reported again */
	s64 boot_epoch_ns; /* CLOCK_REALTIME minus CLOCK_BOOTTIME, set by user space */
	u64 let_pass; /* set by user space while the signatures are not those that tests were generated from */
	u64 names_table; /* address of the dentry hash table (bpf/host/dcache.py), 0 if not found */
	u64 names_shift;
	u64 modules_loaded; /* since the start, if kernel tables are checked */
};

/* Kernel memory that user space asked for. */
#define PEEK_WORDS 512
struct peeked {
	u64 failed;
	u64 words[PEEK_WORDS];
};

/* What the trees and `follow` of policies say about a thread group, as masks of policies. */
struct policy_group {
	u64 trees;
	u64 excluded;
	u64 followed;
};

/* A thread group removed from `groups`, with the start of its leader. */
struct ended {
	u64 started_ns;
	u32 flags;
	u32 pad;
#ifdef POLICY_GROUPS
	struct policy_group policies;
#endif
};

/* A dentry in the dentry hash table. */
struct name_sample {
	u64 bucket; /* address of the pointer to it: in the table itself if it is first in its chain */
	u64 folder;
	u32 hash;
	u32 length;
	char name[32];
	u64 pad;
};

/* A node of the maple tree of a process's regions. */
struct tree_node {
	u64 words[32];
};

#define REGIONS 8
#ifdef HAVE_LOOP
#define REGIONS_PASSED 1024
#else
#define REGIONS_PASSED 8
#endif
/* The regions that a call to mprotect is about to change. */
struct regions {
	u32 count;
	u32 done;
	u32 rest; /* 1 + the index of the entry for all remaining regions, 0 none */
	u32 pad;
	struct {
		u64 start;
		u64 end;
		u64 flags;
	} was[REGIONS];
};

#define WALKS 3
/* Paths still to be added to a record (walk.h). */
struct walks {
	u32 slot;
	u32 start;
	u32 then;
	u32 count;
	u32 texts; /* number of them that depend on a string */
	u32 done;  /* number of them that on_resolve has processed */
	struct {
		u64 dentry;
		u64 mount;
		u64 arg;
		u32 text;   /* offset in the cells of the string to resolve from there, 0 none */
		u32 follow; /* follow the last link, too */
	} walk[WALKS];
};

struct place {
	u64 dentry;
	u64 mount; /* struct mount, not its embedded vfsmount */
};

/* A path being resolved, component by component (resolve.h). */
struct resolving {
	struct place at;
	struct place root; /* of the process */
	u64 head;          /* head of the list being searched */
	u64 node;
	u64 found;
	u64 mix[2]; /* state of the hash of a name */
	u32 mixed;
	u32 link; /* offset of the link in a list's members */
	u32 tgid; /* in the process's own namespace */
	u32 tid;
	u32 pos; /* start of the remaining path in `text` */
	u32 name_at; /* start of the component held back, 0 none */
	u32 length;  /* of the component */
	u32 links;   /* links followed so far */
	u32 follow;
	u32 mounted; /* a mount may cover the current position */
	u32 looks; /* names and mounts examined so far */
	u32 done;
	char name[256];
	char other[256];
	char target[4096]; /* of a link */
	char text[8192 + 4096];
};

struct credentials {
	u32 uid;
	u32 gid;
	u32 suid;
	u32 sgid;
	u32 euid;
	u32 egid;
	u32 fsuid;
	u32 fsgid;
	u32 user_namespace;
	u32 secure_bits;
	u64 cap_inheritable;
	u64 cap_permitted;
	u64 cap_effective;
	u64 cap_bounding;
	u64 cap_ambient;
};

struct namespaces {
	u32 mnt;
	u32 pid;
	u32 uts;
	u32 ipc;
	u32 net;
	u32 cgroup;
};

/* Identity of a thread, kept from the entry of a call that may change it until the exit. */
struct identity {
	struct credentials credentials;
	struct namespaces namespaces;
};

/* The last lookup in `groups` on this CPU. Valid while both epochs are unchanged. */
struct group_cache {
	u64 epochs;
	u32 tgid;
	u32 flags;
	u64 told_mm; /* mm of the image that workers know; 0 if not looked up */
#ifdef POLICIES
	u64 found; /* policies_found() */
#endif
#ifdef POLICY_GROUPS
	struct policy_group policies;
#endif
};

/* The image of a thread group that a record has reported. Every exec creates another mm. */
struct told {
	u64 mm;
	u64 start_ns;
	u64 epoch;
};
