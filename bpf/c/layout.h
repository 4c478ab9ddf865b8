/*
 * layout.h - what a record looks like. The numpy side is bpf/layout.py; the loader emits a static
 * assert for every offset here, so that the two cannot drift apart.
 *
 * A frame is a run of 32-byte cells. Two kinds of thing stand in it, in the order of writing:
 *
 *   context   7 cells   who: ids, namespaces, container, comm. Written when it differs from the one before.
 *   record    n cells   what: a head (1 cell, holds argument 0), the other arguments (4 a cell),
 *                       then blobs (strings and structs), each 8-aligned, the whole padded to 32
 *
 *   frame:  [private][wire header][ctx][head][head|args|blob...][head]...[ctx][head]...
 *                                  0    7     8                  11      (cell numbers)
 *
 * A bit a cell in `bitmap` says where heads are, so user space gathers them in one step. A frame
 * goes out as one perf sample from `size` on. The sample's payload starts at offset 12 of the perf
 * record, which leaves `size` (written by perf: the raw size) as the aligned first word of the frame.
 */
#define CELL_BYTES 32
#define BITMAP_WORDS 16

enum head_flag {
	HEAD_COMPAT = 1,      /* a 32-bit call: names and pointers are those of the i386 table */
	HEAD_ENTRY = 2,       /* taken where the call was entered: there is no result */
	HEAD_NOT_RUN = 4,     /* seccomp refused it with a signal: there is no result */
	HEAD_NO_OBJECT = 8,   /* what an object would have told stands as 0 */
	HEAD_EXEC_IMAGE = 16, /* arguments were read from the new image's memory */
	HEAD_OWN_ROOT = 32,   /* the process's root is not its namespace's: a path says where it is met */
	HEAD_OWN_TARGET = 64, /* a call on a process, and that is the caller's own */
	HEAD_ANSWERED = 128,  /* another process may have made the result up (seccomp's USER_NOTIF) */
};

enum blob_status {
	BLOB_OK = 0,
	BLOB_CUT = 1,    /* longer than what was read */
	BLOB_FAULT = 2,  /* the memory could not be read */
	BLOB_NULL = 3,   /* the pointer was NULL */
	BLOB_RACED = 4,  /* it changed while it was read */
	BLOB_BYPASS = 5, /* the data did not pass through memory that a program could read */
	BLOB_STATUS = 15,
};

/* Where a blob was taken, in the upper half of its status. */
enum blob_source {
	SOURCE_USER_EXIT = 0 << 4,  /* the caller's memory, when the call ended */
	SOURCE_KERNEL = 1 << 4,     /* the kernel's own objects */
	SOURCE_USER_ENTRY = 2 << 4, /* the caller's memory, when the call began */
};

struct head {
	u64 time_ns; /* CLOCK_BOOTTIME */
	s64 retval;
	u16 event;
	u16 context; /* cell of the context, in this frame */
	u16 cells;   /* of the record, this one included */
	u8 flags;
	u8 blobs;
	u64 arg0;
};

struct blob {
	u16 bytes; /* that follow, the NUL of a string not counted */
	u8 arg;    /* argument that it stands behind; 0x80 | argument: the directory that its path starts from;
		  STACK */
	u8 status; /* blob_status | blob_source */
	u32 whole; /* length of the whole, where it is known */
};

/* The caller's stack is a blob behind no argument. */
#define STACK 0x7f
#define STACK_DEPTH 20
#define STACK_ROOM (sizeof(struct blob) + STACK_DEPTH * 8)

/*
 * A part of a blob that is too long for its record, in a frame of its own that is sent before (pieces.h). It belongs
 * to the first record of a frame that is still to come: of the same CPU, this stream, this number.
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

/* What is to be sent before a record of this CPU, and how it goes on. */
struct pieces {
	u64 thread; /* for whom they have been sent: it need not be done again */
	u32 slot;   /* of the record */
	u32 then;
	u32 count;
	u32 pad;
	struct {
		u64 from;
		u32 whole;
		u32 sent; /* what the record holds, or pieces do by now */
		u32 arg;
		u32 pad;
	} range[2];
};

struct context {
	u64 thread_start_ns; /* CLOCK_BOOTTIME, as all starts */
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
};

/* Names and numbers as workers/enrich/containers.py has them. */
enum runtime {
	RUNTIME_UNKNOWN = 0,
	RUNTIME_DOCKER = 1,
	RUNTIME_CONTAINERD = 2,
	RUNTIME_CRIO = 3,
	RUNTIME_PODMAN = 4,
	RUNTIME_LXC = 5, /* from here on an id is text; of these three no runtime is asked */
	RUNTIME_BUILDKIT = 6,
	RUNTIME_ECS = 7, /* 16 bytes of an id are hexadecimal digits, the others a number in decimal */
};

enum container_state {
	CONTAINER_NONE = 0,
	CONTAINER_CREATED = 1,
	CONTAINER_STARTED = 2,  /* something was run in it, in a mount namespace of its own */
	CONTAINER_EXISTING = 3, /* it was there before headrace */
};

/* Of a control group that is a container's, or below one. */
struct container {
	u8 id[32];
	u64 root; /* id of the container's own group: its entry has the state */
	u64 ctime_ns;
	u8 runtime;
	u8 state;
	u8 pad[6];
};

/* Where an entry is put together. */
struct container_scratch {
	struct container container;
	u64 name[32];
};

/* Whether the control group last asked about is in the scope's containers; good while the epoch stands still. */
struct container_cache {
	u64 epoch;
	u64 cgroup_id;
	u64 verdict;
};

enum stream {
	STREAM_BULK = 0,
	STREAM_URGENT = 1,
	STREAM_FACTS = 2,
};

struct frame {
	/* private: who the current context is of (frame.h, context_cell); never leaves the kernel */
	u64 key[8];
	u64 at; /* byte of cells where the next blob goes */
	/* wire */
	u32 size;
	u32 cpu;
	u64 sequence; /* per CPU and slot, without gaps unless a submission failed */
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
	u64 piece; /* 1: the cells are a struct piece and its bytes, and no records */
	/* cells */
	char cells[FRAME_CELLS * CELL_BYTES];
};

/* One per CPU and slot, mapped by user space: what is still unsent, and what was lost. */
struct mark {
	u64 busy;     /* a program is writing into this slot's frame */
	u64 first_ns; /* time of the oldest unsent record; 0 if none */
	u64 frames;   /* submitted, successfully or not: the next sequence number */
	u64 lost_frames;
	u64 lost_full;  /* events of frames refused because the perf ring was full */
	u64 lost_other; /* events of frames refused for another reason */
	u64 lost_nested; /* events that found the frame busy */
	u64 lost_room; /* events that found no frame or no room in one */
	u64 lost_first_ns;
	u64 lost_last_ns;
	u64 last_error; /* errno of the last refusal */
	u64 faults;     /* arguments that could not be read */
	u64 cut;        /* arguments cut to their limit */
	u64 raced;      /* paths that changed while they were walked */
	u64 facts;      /* records of the frame of facts, which `produced` does not count */
	u64 pad;
};

/* What is wanted of one system call number. */
struct blob_spec {
	u8 kind;
	u8 arg;     /* which argument is the pointer */
	u8 sized;   /* argument (or 0xff: the result, 0xfe: none) that says how many there are */
	u8 needs;   /* 1: only when the call succeeded */
	u16 bytes;  /* at most */
	u16 unit;   /* bytes of one; 0: words that have a bit for each */
	u8 limit;   /* one more than the argument that the result does not count beyond, 0 none */
	u8 pointed; /* 1: `sized` points to the number, of 32 bits */
	u8 pad[2];
};

/* What is read as well where the argument that a call's `command` is has this value. */
struct command_key {
	u32 slot;
	u32 value;
};
#define COMMAND_BLOBS 3
struct command {
	struct blob_spec blobs[COMMAND_BLOBS];
};

struct call {
	u8 wanted;
	u8 arguments;
	u8 urgent;
	u8 exec;
	u16 event;
	u16 room; /* bytes that blobs may take at worst */
	s64 retval_min;
	s64 retval_max;
	u64 masks[6]; /* the bits of each argument that the kernel uses */
	u8 program;   /* what writes it: PROGRAM_exec_call, _multiplexed, _detailed_call, 0 the program at sys_exit itself */
	u8 command;   /* one more than the argument that says what the others are, 0 none */
	/* for the program that looks at the objects (objects.h): arguments by number, 0xff none, 0xfe the result */
	u8 object;
	u8 variant;
	u8 fd;
	u8 path;
	u8 dir;
	u8 path2;
	u8 dir2;
	u8 flags;
	/* the argument whose file is shown with it (--fd-paths), 0xff none */
	u8 descriptor;
	u8 narrow;  /* its pointers and structs in memory are those of 32 bits */
	u8 address; /* enum address: it is about a socket's address (addresses.h) */
	/* of a 32-bit call, bits by argument: see compat_values() of dispatch.h */
	u8 joined;
	u8 extended;
	u8 ids;
	u8 registers[6]; /* which argument comes by which register: one more than its number, 0 none; all 0: in order */
	u8 pages;        /* bits of arguments that count pages in a 32-bit call, and bytes elsewhere */
	u8 pad[1];
	u32 command_mask;
	struct blob_spec blobs[5];
};

/* Where the address of a call stands. */
enum address {
	ADDRESS_NONE = 0,
	ADDRESS_OWN = 1,          /* the socket's own: getsockname */
	ADDRESS_PEER = 2,         /* its peer's: getpeername */
	ADDRESS_ACCEPTED = 3,     /* the peer of the socket that is the result: accept, accept4 */
	ADDRESS_RECEIVED = 4,     /* written by recvfrom */
	ADDRESS_MSG_RECEIVED = 5, /* written by recvmsg into the name of a msghdr */
	ADDRESS_MSG_SENT = 6,     /* passed to sendmsg in one */
	ADDRESS_MMSG_SENT = 7,    /* in the first of sendmmsg's */
};

/* Calls that one program tells apart. */
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
	BLOB_SIZED = 3,      /* as many as argument `sized` says, or the result */
	BLOB_SMALL = 4,      /* the same, of at most SMALL_BYTES */
	BLOB_VECTOR = 5,     /* NULL-terminated array of strings */
	BLOB_IMAGE_PATH = 6, /* after a successful execve, from the new image: its path */
	BLOB_IMAGE_ARGV = 7,
	BLOB_IMAGE_ENVP = 8,
};

/* What an exec replaces, kept from just before. */
struct before_exec {
	char comm[16];
	u32 execveat; /* whether the call was that; its arguments that are not in the image */
	u32 dirfd;
	u64 flags;
	u64 binprm; /* 0 where the tracepoint of exec passes it */
};

struct counts {
	u64 events[EVENTS];
};

struct status {
	u64 tree_live;       /* thread groups that are in scope by --scope tree= or as the command */
	u64 groups_overflow; /* thread groups that found no place in `groups` */
	u64 epoch;      /* moves with every change of `groups` by a program */
	u64 user_epoch; /* moves with every change by user space, which alone writes it */
	u64 containers_epoch; /* moves with every change of `containers` */
	u64 containers_overflow; /* control groups that found no place in `containers` */
	u64 told_epoch; /* user space moves it when a worker must be told again */
	s64 boot_epoch_ns; /* CLOCK_REALTIME minus CLOCK_BOOTTIME, from user space */
	u64 let_pass; /* user space sets it while signatures are others than those that tests were made of */
	u64 names_table; /* of the kernel, by bpf/host/dcache.py; 0 if it was not found */
	u64 names_shift;
	u64 modules_loaded; /* since the start, where tables of the kernel are looked at */
};

/* Memory of the kernel that user space asked for. */
#define PEEK_WORDS 512
struct peeked {
	u64 failed;
	u64 words[PEEK_WORDS];
};

/* A thread group that has left the scope's groups, and the start of its leader. */
struct ended {
	u64 started_ns;
	u32 flags;
	u32 pad;
};

/* A name in use. */
struct name_sample {
	u64 bucket; /* what points to its place in the table of names: the table, if it is the first there */
	u64 folder;
	u32 hash;
	u32 length;
	char name[32];
	u64 pad;
};

/* A node of the maple tree that holds a process's regions. */
struct tree_node {
	u64 words[32];
};

#define REGIONS 8
#ifdef HAVE_LOOP
#define REGIONS_PASSED 1024
#else
#define REGIONS_PASSED 8
#endif
/* What a call to mprotect is about to change. */
struct regions {
	u32 count;
	u32 done;
	u32 rest; /* the number, from 1, of the one that stands for all others; 0: there is none */
	u32 pad;
	struct {
		u64 start;
		u64 end;
		u64 flags;
	} was[REGIONS];
};

#define WALKS 3
/* Paths that a record still lacks (path.h). */
struct walks {
	u32 slot;
	u32 start;
	u32 then;
	u32 count;
	u32 texts; /* of them, how many follow a string */
	u32 done;  /* of them, how many on_resolve has looked at */
	struct {
		u64 dentry;
		u64 mount;
		u64 arg;
		u32 text;   /* byte of the cells where the blob is of a string to be gone from there; 0 none */
		u32 follow; /* its last link, too */
	} walk[WALKS];
};

struct place {
	u64 dentry;
	u64 mount; /* struct mount, not the vfsmount in it */
};

/* A path that is gone along, component by component (resolve.h). */
struct resolving {
	struct place at;
	struct place root; /* of the process */
	u64 head;          /* of the list that is looked through */
	u64 node;
	u64 found;
	u64 mix[2]; /* the hash of a name, as it comes about */
	u32 mixed;
	u32 link; /* where a list's members have the next one */
	u32 tgid; /* in the process's own namespace */
	u32 tid;
	u32 pos; /* of what is still to be gone, in `text` */
	u32 name_at; /* of the component that waits; 0 none */
	u32 length;  /* of its name */
	u32 links;   /* followed so far */
	u32 follow;
	u32 mounted; /* something may be mounted where the walk stands */
	u32 looks; /* at names and mounts so far */
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

/* Who a thread is, kept from the entry of a call that may change it to its exit. */
struct identity {
	struct credentials credentials;
	struct namespaces namespaces;
};

/* What was last looked up in `groups` on this CPU; good while both epochs stand still. */
struct group_cache {
	u64 epochs;
	u32 tgid;
	u32 flags;
	u64 told_mm; /* of the image that workers know of; 0 if that has not been looked up */
};

/* The image of a thread group that a record has told of: another exec has another mm. */
struct told {
	u64 mm;
	u64 start_ns;
	u64 epoch;
};
