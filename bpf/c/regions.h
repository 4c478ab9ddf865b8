/*
 * regions.h - the region of a process's memory that holds an address, and the region's file.
 */
#define AT_NULL 0
#define AT_BASE 7
#define AUXILIARY_PAIRS 24

/* State of the descent to the region that holds an address. */
struct descent {
	u64 address;
	u64 entry; /* a node; the region once `found` is set */
	u64 found;
};

/*
 * Since 6.1 regions are in a maple tree (include/linux/maple_tree.h). A node has pivots, the last
 * address of each slot, and slots. The low byte of a pointer to a node encodes its type. The tree
 * is read without its lock: a removed node is freed only after an RCU grace period.
 */
#ifdef KERNEL_mm_struct_mm_mt
#define TREE_DEPTH 8
#define TREE_ROOT (KERNEL_mm_struct_mm_mt + KERNEL_maple_tree_ma_root)
#define NODE_SLOTS 16
#define MAPLE_RANGE_64 2 /* lower types are leaves */
#define MAPLE_ARANGE_64 3

LOOP_BODY(region_level, struct descent *d)
{
	u32 zero = 0;
	struct tree_node *node = tree_nodes.lookup(&zero);
	u64 entry = d->entry, address = d->address;
	if (!node || entry < 4096)
		return 1;
	u32 kind = (entry >> 3) & 15;
	bpf_probe_read_kernel(node, sizeof(*node), (void *)(entry & ~255ULL));
	u32 pivots = kind == MAPLE_ARANGE_64 ? KERNEL_maple_arange_64_pivot / 8 : KERNEL_maple_range_64_pivot / 8;
	u32 slots = kind == MAPLE_ARANGE_64 ? KERNEL_maple_arange_64_slot / 8 : KERNEL_maple_range_64_slot / 8;
	u32 slot = 0;
	for (; slot < NODE_SLOTS - 1 && slot < slots - pivots; slot++) {
		u64 pivot = node->words[(pivots + slot) & 31];
		/* only the first pivot can be 0 */
		if (pivot >= address || (!pivot && slot))
			break;
	}
	d->entry = node->words[(slots + slot) & 31];
	d->found = kind < MAPLE_RANGE_64;
	return d->found;
}
#else
/*
 * Before 6.1 regions are in a red-black tree (include/linux/rbtree.h), also read without its lock.
 * A region may be missed during a rotation.
 */
#define TREE_DEPTH 34 /* for 65,530 regions, the default of vm.max_map_count */
#define TREE_ROOT KERNEL_mm_struct_mm_rb

LOOP_BODY(region_level, struct descent *d)
{
	u64 node = d->entry, region = node - KERNEL_vm_area_struct_vm_rb;
	if (!node)
		return 1;
	if (d->address < KREAD(u64, region + KERNEL_vm_area_struct_vm_start)) {
		d->entry = KREAD(u64, node + KERNEL_rb_node_rb_left);
		return 0;
	}
	d->found = d->address < KREAD(u64, region + KERNEL_vm_area_struct_vm_end);
	d->entry = d->found ? region : KREAD(u64, node + KERNEL_rb_node_rb_right);
	return d->found;
}
#endif

/* The region that holds `address`, or 0. */
static __always_inline u64 region_of(u64 mm, u64 address)
{
	struct descent d = {
		.address = address,
		.entry = KREAD(u64, mm + TREE_ROOT),
	};
	LOOP(TREE_DEPTH, region_level, &d);
	return d.found ? d.entry : 0;
}

/*
 * The file of an image's ELF interpreter, or 0 if it has none. `entry` is an address in the
 * interpreter, 0 if unknown. The base is the address of its first byte, which need not be mapped.
 * load_elf_binary() does not keep the file, but passes the base to the program: AT_BASE in the
 * auxiliary vector (create_elf_tables() in fs/binfmt_elf.c), of which the mm has a copy. Its pairs
 * are words of the program's width. The first pair is never (type, 0), so a 32-bit pair sets the
 * upper half of the first 8 bytes.
 */
struct auxiliary {
	u64 pair; /* address of the next pair */
	u64 narrow;
	u64 base;
};

LOOP_BODY(auxiliary_pair, struct auxiliary *a)
{
	u64 pair[2] = {};
	bpf_probe_read_kernel(pair, sizeof(pair), (void *)a->pair);
	a->pair += a->narrow ? 8 : 16;
	u64 type = a->narrow ? (u32)pair[0] : pair[0];
	if (type == AT_BASE)
		a->base = a->narrow ? pair[0] >> 32 : pair[1];
	return type == AT_NULL || type == AT_BASE;
}

static __always_inline u64 interpreter_file(u64 mm, u64 entry)
{
	struct auxiliary a = {.pair = mm + KERNEL_mm_struct_saved_auxv};
	a.narrow = KREAD(u64, a.pair) >> 32 != 0;
	LOOP(AUXILIARY_PAIRS, auxiliary_pair, &a);
	u64 region = a.base ? region_of(mm, entry ? entry : a.base) : 0;
	return region ? KREAD(u64, region + KERNEL_vm_area_struct_vm_file) : 0;
}
