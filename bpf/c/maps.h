/*
 * maps.h - the maps. `frames` is written by programs alone. `marks`, `produced` and `status` are
 * mapped by user space, which only reads them. `calls` and `groups` are filled by the loader;
 * programs add and remove thread groups.
 */
#define SLOTS (SHARDS + 2) /* a bulk frame a shard, the urgent one, and that of facts */
#define URGENT SHARDS
/*
 * Facts are lifecycle records that nobody asked to see: workers need them to know of what image a process
 * is, and who created it. They are sent like urgent ones, and stand outside of the ledger's sum.
 */
#define FACTS (SHARDS + 1)
#define BPF_F_MMAPABLE (1 << 10)

BPF_PERF_OUTPUT(bulk);
BPF_PERF_OUTPUT(urgent);
BPF_PERCPU_ARRAY(frames, struct frame, SLOTS);
BPF_F_TABLE("array", u32, struct mark, marks, CPUS *SLOTS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct counts, produced, CPUS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct status, status, 1, BPF_F_MMAPABLE);
BPF_ARRAY(calls, struct call, ALL_SLOTS);
BPF_HASH(commands, struct command_key, struct command, COMMANDS);
BPF_HASH(groups, u32, u32, GROUPS);
BPF_PERCPU_ARRAY(group_caches, struct group_cache, 1);
BPF_TABLE("lru_hash", u32, struct ended, ended, 1024); /* by thread group: taken out of `groups` before its last thread's exit */
BPF_HASH(containers, u64, struct container, CONTAINERS); /* by control group; programs alone write it */
BPF_PERCPU_ARRAY(container_scratches, struct container_scratch, 1);
BPF_PERCPU_ARRAY(container_caches, struct container_cache, 1);
BPF_TABLE("lru_hash", u32, struct before_exec, before_execs, 8192); /* by thread group: a thread that execs takes its leader's id */
BPF_TABLE("lru_hash", u32, struct told, told, 16384); /* by thread group: the image that workers know of */
BPF_PROG_ARRAY(objects, PROGRAMS); /* by PROGRAM_* and the number in a call's row; 0 there is none */
BPF_PERCPU_ARRAY(pieces, struct pieces, 1);
BPF_PERCPU_ARRAY(walks, struct walks, 1);
#if defined(HAVE_LOOP) && defined(WANT_NAMES)
BPF_PERCPU_ARRAY(resolving, struct resolving, 1);
BPF_ARRAY(name_samples, struct name_sample, 64);
#endif
#ifdef KERNEL_mm_struct_mm_mt
BPF_PERCPU_ARRAY(tree_nodes, struct tree_node, 1);
#endif
#ifdef WANT_REGIONS
BPF_PERCPU_ARRAY(regions_scratch, struct regions, 1);
BPF_TABLE("lru_hash", u64, struct regions, regions, 4096); /* by thread, between entry and exit of a call */
#endif
#ifdef WANT_BEFORE
BPF_PERCPU_ARRAY(identity_scratch, struct identity, 1);
BPF_TABLE("lru_hash", u64, struct identity, identities, 4096); /* by thread, as above */
#endif
#ifdef WANT_ROOMS
BPF_TABLE("lru_hash", u64, u32, rooms, 4096); /* by thread, as above: bytes for an address */
#endif
#if defined(WANT_RT_SIGRETURN) || defined(WANT_SIGRETURN)
BPF_TABLE("lru_hash", u64, u8, sigreturns, 4096);
#endif

/* What `groups` knows of a thread group. */
enum group_flag {
	GROUP_OWN = 1,      /* headrace itself: never traced */
	GROUP_TREE = 2,     /* in a tree that is asked for */
	GROUP_NOT_TREE = 4, /* in a tree that is excluded */
	GROUP_FOLLOWED = 8, /* a child of something that matched */
	GROUP_ARMED = 16,   /* will be the command: nothing of it is shown before its exec */
};
#define GROUP_INHERITED (GROUP_OWN | GROUP_TREE | GROUP_NOT_TREE | GROUP_FOLLOWED)
