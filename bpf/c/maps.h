/*
 * maps.h - the maps. Only programs write `frames`. User space maps `marks` and `produced`, which it
 * only reads, and `status`, of which it writes some members (layout.h). The loader fills `calls`,
 * `commands` and `groups`; programs add and remove thread groups.
 */
#define SLOTS (SHARDS + 2) /* one bulk frame per shard, the urgent frame, the frame of facts */
#define URGENT SHARDS
/*
 * Facts are lifecycle records that the user did not ask for. Workers need them to know the image of
 * each process and which process created it. They are sent like urgent records, and the ledger's
 * sum excludes them.
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
#ifdef POLICIES
BPF_ARRAY(policy_events, u64, EVENTS); /* mask of the policies that ask for each event; user space writes it */
#endif
#ifdef POLICY_GROUPS
BPF_HASH(policy_groups, u32, struct policy_group, GROUPS); /* by thread group, like `groups` */
#endif
BPF_PERCPU_ARRAY(group_caches, struct group_cache, 1);
BPF_TABLE("lru_hash", u32, struct ended, ended, 1024); /* by thread group: removed before its last thread's exit */
BPF_HASH(containers, u64, struct container, CONTAINERS); /* by cgroup id; only programs write it */
BPF_PERCPU_ARRAY(container_scratches, struct container_scratch, 1);
BPF_PERCPU_ARRAY(container_caches, struct container_cache, 1);
BPF_TABLE("lru_hash", u32, struct before_exec, before_execs, 8192); /* by thread group: exec can change the thread id */
BPF_TABLE("lru_hash", u32, struct told, told, 16384); /* by thread group: the image that workers know */
BPF_PROG_ARRAY(objects, PROGRAMS); /* by PROGRAM_*, the number in a call's row; 0 in a row is none */
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
BPF_TABLE("lru_hash", u64, struct regions, regions, 4096); /* by thread, from a call's entry to its exit */
#endif
#ifdef WANT_BEFORE
BPF_PERCPU_ARRAY(identity_scratch, struct identity, 1);
BPF_TABLE("lru_hash", u64, struct identity, identities, 4096); /* by thread, likewise */
#endif
#ifdef WANT_ROOMS
BPF_TABLE("lru_hash", u64, u32, rooms, 4096); /* by thread, likewise: size of the address buffer */
#endif
#if defined(WANT_RT_SIGRETURN) || defined(WANT_SIGRETURN)
BPF_TABLE("lru_hash", u64, u8, sigreturns, 4096);
#endif

/* Flags of a thread group in `groups`. */
enum group_flag {
	GROUP_OWN = 1,      /* headrace itself: never traced */
	GROUP_TREE = 2,     /* in a tree that the scope includes */
	GROUP_NOT_TREE = 4, /* in a tree that the scope excludes */
	GROUP_FOLLOWED = 8, /* child of a process that matched */
	GROUP_ARMED = 16,   /* will become the command: nothing is shown before its exec */
};
#define GROUP_INHERITED (GROUP_OWN | GROUP_TREE | GROUP_NOT_TREE | GROUP_FOLLOWED)
