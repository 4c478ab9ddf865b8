/*
 * origin.c - the memory that calls come from. A program's code is in files: a call from memory
 * without a file comes from code that was written there at run time.
 */
#ifdef EVENT_suspicious_syscall_source
#define VM_GROWSDOWN 0x100
BPF_PROG_ARRAY(entered_then, CALL_SLOTS * 2); /* programs that `entered` would call otherwise */

static __always_inline bool holds(u64 first, u64 end, u64 address)
{
	return address >= first && address < end;
}

static __always_inline void blob_region_type(struct writer *w, u64 mm, u64 flags, u64 ip)
{
	struct blob *b = blob_begin(w, 2, sizeof(struct blob) + 16);
	if (!b)
		return;
	u64 *to = (u64 *)(b + 1);
	u32 bytes = 5;
	to[1] = 0;
	if (flags & VM_GROWSDOWN)
		to[0] = TEXT8('s', 't', 'a', 'c', 'k', 0, 0, 0);
	else if (holds(KREAD(u64, mm + KERNEL_mm_struct_start_brk), KREAD(u64, mm + KERNEL_mm_struct_brk), ip))
		bytes = 4, to[0] = TEXT8('h', 'e', 'a', 'p', 0, 0, 0, 0);
	else
		bytes = 9, to[0] = TEXT8('a', 'n', 'o', 'n', 'y', 'm', 'o', 'u'), to[1] = 's';
	blob_end(w, b, bytes, BLOB_OK | SOURCE_KERNEL);
}

/* Report a call from a region without a file. Regions that the kernel maps itself (the vDSO) have vm_ops. */
int enter_suspicious_syscall_source(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = current_task_btf(), regs = current_registers();
	u64 ip = INSTRUCTION_POINTER(regs), mm = LOAD8(task, KERNEL_task_struct_mm), region = region_of(mm, ip);
	struct writer w;
	if (region && !KREAD(u64, region + KERNEL_vm_area_struct_vm_file) &&
	    !KREAD(u64, region + KERNEL_vm_area_struct_vm_ops) &&
	    event_begin(ctx, &w, true, EVENT_suspicious_syscall_source, 6, 64)) {
		u64 *a = (u64 *)(w.head + 1), start = KREAD(u64, region + KERNEL_vm_area_struct_vm_start);
		u64 flags = KREAD(u64, region + KERNEL_vm_area_struct_vm_flags);
		w.head->flags = HEAD_ENTRY | compat_flag();
		w.head->arg0 = (s32)CALL_NUMBER(ctx);
		a[1 - 1] = ip;
		a[3 - 1] = start;
		a[4 - 1] = KREAD(u64, region + KERNEL_vm_area_struct_vm_end) - start;
		a[5 - 1] = flags;
		blob_region_type(&w, mm, flags, ip);
		record_end(ctx, &w);
	}
	entered_then.call(ctx, call_slot((s32)CALL_NUMBER(ctx), SYSCALL_IS_COMPAT(task), 0));
	return 0;
}
#endif
