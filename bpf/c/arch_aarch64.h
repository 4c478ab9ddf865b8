/*
 * arch_aarch64.h - registers of a system call on arm64. NOT YET RUN on arm64 hardware. The result
 * overwrites x0; the kernel keeps the first argument in orig_x0.
 */
#define TIF_32BIT (1 << 22)
#define SYSCALL_EXECVE(compat) ((compat) ? 11 : 221)
#define SYSCALL_FINIT_MODULE(compat) ((compat) ? 379 : 273)
#define SYSCALL_EXECVEAT(compat) ((compat) ? 387 : 281)
#define SYSCALL_INOTIFY_ADD_WATCH(compat) ((compat) ? 317 : 27)
/* Argument n of a kernel function, valid at its entry. */
#define FUNCTION_ARGUMENT(regs, n) LOAD_BY_TYPE(u64, "u64", regs, KERNEL_pt_regs_regs + (n) * 8)
#define INSTRUCTION_POINTER(regs) LOAD_REGISTER(regs, KERNEL_pt_regs_pc)
#define SYSCALL_NUMBER(regs) ((s64)(s32)LOAD_REGISTER4(regs, KERNEL_pt_regs_syscallno))
#define SYSCALL_IS_COMPAT(task) (LOAD8(task, KERNEL_task_struct_thread_info_flags) & TIF_32BIT)

#define REGISTERS(a, regs)                                                                     \
	do {                                                                                           \
		a[0] = LOAD_REGISTER(regs, KERNEL_pt_regs_orig_x0);                                            \
		a[1] = LOAD_REGISTER(regs, KERNEL_pt_regs_regs + 8);                                           \
		a[2] = LOAD_REGISTER(regs, KERNEL_pt_regs_regs + 16);                                          \
		a[3] = LOAD_REGISTER(regs, KERNEL_pt_regs_regs + 24);                                          \
		a[4] = LOAD_REGISTER(regs, KERNEL_pt_regs_regs + 32);                                          \
		a[5] = LOAD_REGISTER(regs, KERNEL_pt_regs_regs + 40);                                          \
	} while (0)
#define REGISTERS_COMPAT(a, regs)                                                              \
	do {                                                                                           \
		REGISTERS(a, regs);                                                            \
		for (int i = 0; i < 6; i++)                                                            \
			a[i] = (u32)a[i];                                                              \
	} while (0)
